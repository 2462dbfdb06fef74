"""A search with a known answer: what a selection covers is its score, and three planted candidates cover everything."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffsift.common.reporting import Reporter
from diffsift.objectives import Score
from diffsift.search import SearchLoop, SearchSpace, StudySpecification, TrialStore
from diffsift.spaces import Candidate, LimitsSpecification, Selection
from diffsift.tracking import Ledger, MlflowLogger, open_database

STUDY = "planted"
PLANTED = tuple(
    Candidate("main", f"activation{number:02}", timestep) for number, timestep in ((3, 50), (8, 50), (14, 300))
)
_LOCATIONS = 60


def pool(size: int = 40) -> list[Candidate]:
    return sorted(Candidate("main", f"activation{i // 2:02}", (50, 300)[i % 2]) for i in range(size))


def covered(candidate: Candidate) -> np.ndarray:
    """Which of sixty locations a candidate covers: planted ones a third each, others most of a third and some beyond.

    Alone, many look as good as the planted ones; together, those of one third add little to each other.
    """
    if candidate in PLANTED:
        return np.arange(_LOCATIONS) // 20 == PLANTED.index(candidate)
    rng = np.random.default_rng(zlib.crc32(str(candidate).encode()))
    third = rng.permutation(_LOCATIONS // 3) + _LOCATIONS // 3 * int(rng.integers(3))
    beyond = rng.permutation(_LOCATIONS)
    found = np.zeros(_LOCATIONS, bool)
    found[third[: int(rng.integers(10, 17))]] = True
    found[beyond[: int(rng.integers(0, 6))]] = True
    return found


def value(selection: Selection) -> float:
    """At most 1, by the three planted candidates together at equal weights; other weights cost a little."""
    union = np.any([covered(candidate) for candidate in selection.candidates], axis=0)
    return float(union.mean()) - 0.01 * float(np.std([weight for _, weight in selection.members]))


def similarity(size: int = 40) -> np.ndarray:
    """What features would tell without a label: how far candidates cover the same locations."""
    vectors = np.array([covered(candidate) for candidate in pool(size)], dtype=float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors @ vectors.T)


@dataclass
class SyntheticProbe:
    """Scores by `value`, and remembers the selections that it scored."""

    scored: list[Selection] = field(default_factory=list)

    def score(self, selection: Selection) -> Score:
        self.scored.append(selection)
        return Score(value(selection), (value(selection),))


def space(size: int = 40, activations: int = 3) -> SearchSpace:
    candidates = pool(size)
    shares = {candidate: (1 + index) / len(candidates) for index, candidate in enumerate(candidates)}
    limits = LimitsSpecification(activations=activations)
    return SearchSpace(candidates, dict.fromkeys(candidates, 8), limits, shares)


def store(
    url: str,
    *,
    sampler: Any = "sift",
    pool: int = 40,
    activations: int = 3,
    seed: int = 0,
    objectives: tuple[Any, ...] = ("score",),
) -> TrialStore:
    ledger = Ledger(open_database(url))
    if ledger.study(STUDY) is None:
        ledger.create_study(STUDY, {}, {}, [])
    specification = StudySpecification(name=STUDY, sampler=sampler, seed=seed, objectives=objectives)
    return TrialStore(url, specification, space(pool, activations), ledger)


class Loop(SearchLoop):
    """A loop whose steps are passed on."""

    step: Callable[[str], None] = staticmethod(lambda step: None)

    def after_step(self, step: str) -> None:
        self.step(step)


def search(
    store: TrialStore,
    probe: SyntheticProbe,
    trials: int,
    *,
    stream: int = 0,
    after_step: Callable[[str], None] = lambda step: None,
    reporter: Reporter | None = None,
    **options: Any,
) -> None:
    """Run one process's loop on a planted study; `options` are those of `SearchLoop.run`."""
    loop = Loop(store, probe, seed_stream=stream, reporter=reporter)
    loop.step = after_step
    loop.run(trials, **options)


def logged_store(folder: str | Path, *, sampler: Any = "sift") -> tuple[TrialStore, MlflowLogger]:
    """As `diffsift search` opens one that may have been stopped: reclaimed, and its MLflow copy repaired."""
    found = store(f"sqlite:///{Path(folder) / 'studies.db'}", sampler=sampler)
    found.reclaim()
    log = MlflowLogger(f"sqlite:///{Path(folder) / 'mlflow.db'}", Path(folder) / "artifacts", STUDY)
    log.start({}, None)
    log.repair(found.records())
    return found, log
