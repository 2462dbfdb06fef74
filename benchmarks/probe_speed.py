"""What it costs to score a selection: the fast probe beside scikit-learn's logistic regression and ten MLPs.

All of it in one process and run, on the same features, folds and number of penalties, with one thread each. Side by
side stand scores on the demo's pipeline and scenes (375 scenes in three folds, activations projected to 64 channels),
as how long a solver iterates depends on the features. How the fast probe's time grows is measured on random numbers.

- fast probe: `RidgeProbe.score` from end to end, labels to mean IoU. *Cold*: a fresh probe, so features are read and
  Gram blocks computed. *Warm*: every block is kept, weights are new each time. *Amortised*: the mean over the distinct
  selections that the sampler `sift` proposes in a fresh study. `NeighbourProbe` stands beside it, warm.
- logistic: scikit-learn's `LogisticRegression` on the fused features as one matrix, scaled to unit variance, run until
  it converges (the columns say how many steps the slowest fit took, and that its limit was not met), then mean IoU.
- ten MLPs: `MlpEnsembleHead` on the same locations and features. It is not run to its end: 200 steps are timed, and
  multiplied by the fewest steps that its protocol allows (four epochs, then 51 steps). So its row is a lower bound.

With one penalty, a score takes a fit for each fold. With six, each fold chooses among them on inner folds: for the
logistic regression one inner fit per penalty is timed, and the others are taken to be as long ("extrapolated").

Noise that is left: the machine may be busy. The processor time of this process stands beside the wall time, and
factors are those of processor times. Of repeated measurements the median is taken.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import RESULTS, environment, load, print_table, write_csv
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from diffsift.bank import Bank, DevelopmentSet, Entry
from diffsift.common.reporting import NullReporter
from diffsift.demo import PIPELINE
from diffsift.extraction import Standardiser, block_scale
from diffsift.objectives import NeighbourProbe, Probe, ProbeSpecification, RidgeProbe
from diffsift.objectives.metrics import confusion, mean_iou
from diffsift.objectives.probes import PENALTIES
from diffsift.objectives.reference import MlpEnsembleHead, TrainingLocations
from diffsift.runs.prepare import prepare
from diffsift.search import SearchSpace, SubsetGPSampler
from diffsift.spaces import Candidate, LimitsSpecification, Selection
from diffsift.specification import Specification
from diffsift.study_store import StudyStore

POINTS, FOLDS, SEED = 64, 3, 7
BASE = {"locations": 24_000, "channels": 64, "classes": 11, "candidates": 4}
GROWTH = {
    "locations": (6_000, 12_000, 48_000),
    "channels": (32, 128, 256),
    "classes": (2, 21, 150),
    "candidates": (1, 2, 8),
}
INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
REPEATS = 7
MLP_STEPS = 200
Times = tuple[float, float]


class SyntheticBank:
    """Random features of a development set without images: values do not matter for the speed of the fast probe."""

    def __init__(self, locations: int, channels: int, classes: int, candidates: int) -> None:
        images = locations // POINTS
        generator = np.random.default_rng(SEED)
        self.development = DevelopmentSet(
            samples=[],
            points=np.zeros((images, POINTS, 2), np.float32),
            labels=generator.integers(classes, size=(images, POINTS)).astype(np.uint8),
            weights=np.ones((images, POINTS), np.float32),
            fold=np.arange(images) % FOLDS,
            training=np.ones(images, bool),
            groups=tuple(map(str, range(images))),
            class_names=tuple(map(str, range(classes))),
            identity={},
        )
        statistics = Standardiser(torch.zeros(channels), torch.ones(channels), None)
        self.candidates = [Candidate("main", f"activation{number}", 50) for number in range(candidates)]
        self._entries = {}
        for candidate in self.candidates:
            features = generator.normal(size=(images, POINTS, channels)).astype(np.float16)
            self._entries[candidate] = Entry(candidate, features, statistics, features.nbytes, candidate.activation)

    def __getitem__(self, candidate: Candidate) -> Entry:
        return self._entries[candidate]


def demo_bank(folder: Path, pool: int) -> tuple[Bank, list[Candidate]]:
    """The demo's features as `BASE` says, and `pool` candidates that have that many channels."""
    scenes = BASE["locations"] // POINTS
    values = {
        "model": {"id": str(PIPELINE), "device": "cpu", "batch_size": 32},
        "data": {"kind": "rendered-scenes", "train": scenes, "validation": 0, "test": 1, "seed": SEED},
        "task": {"kind": "segmentation", "folds": FOLDS},
        "bank": {"pixels_per_image": POINTS, "max_channels": BASE["channels"]},
        "study": {"name": "speed"},
    }
    specification, store = Specification.parse(values), StudyStore(folder)
    prepared = prepare(specification, store, specification.context(store.workspace, NullReporter()))
    backbone = prepared.backbone("main")
    wide = [entry for entry in backbone.activations() if entry.channels >= BASE["channels"]]
    wanted = dict.fromkeys((50, 200), wide[: -(-pool // 2)])
    prepared.bank.fill(backbone, wanted)
    named = [Candidate("main", entry.name, timestep) for timestep, entries in wanted.items() for entry in entries]
    return prepared.bank, [candidate for candidate in named if candidate in prepared.bank][:pool]


def weighted(candidates: Sequence[Candidate], seed: int) -> Selection:
    """These candidates, with weights of their own."""
    weights = np.random.default_rng(seed).uniform(0.2, 1, len(candidates))
    return Selection.of({entry: float(weight) for entry, weight in zip(candidates, weights, strict=True)})


def fused(bank: Any, selection: Selection) -> np.ndarray:
    """(images, points, channels), scaled to unit variance at equal weights."""
    blocks = [
        np.asarray(bank[entry].features[:], dtype=np.float32) * block_scale(weight, bank[entry].standardiser.channels)
        for entry, weight in selection.members
    ]
    found = np.concatenate(blocks, axis=2)
    return np.asarray(found * found.shape[2] ** 0.5)


def timed(action: Callable[[], object]) -> Times:
    """Wall and processor milliseconds."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - processor)


def median(times: Sequence[Times]) -> Times:
    wall, processor = np.median(np.array(times), axis=0)
    return float(wall), float(processor)


def fast(bank: Any, candidates: Sequence[Candidate], penalties: int) -> tuple[Times, Times]:
    """Cold and warm."""
    specification = ProbeSpecification(regularisation="auto" if penalties > 1 else 1e-4)
    cold = []
    for repeat in range(3):
        probe = RidgeProbe(bank, specification)
        chosen = weighted(candidates, repeat)
        cold.append(timed(lambda probe=probe, chosen=chosen: probe.score(chosen)))
    return median(cold), warm(probe, candidates)


def warm(probe: Probe, candidates: Sequence[Candidate]) -> Times:
    probe.score(weighted(candidates, 0))
    selections = [weighted(candidates, seed) for seed in range(1, REPEATS + 1)]
    return median([timed(lambda chosen=chosen: probe.score(chosen)) for chosen in selections])


def amortised(bank: Any, pool: Sequence[Candidate], penalties: int, trials: int) -> Times:
    """Mean over the distinct selections of a fresh study, proposals not counted."""
    probe = RidgeProbe(bank, ProbeSpecification(regularisation="auto" if penalties > 1 else 1e-4))
    space = SearchSpace(pool, dict.fromkeys(pool, BASE["channels"]), LimitsSpecification())
    sampler = SubsetGPSampler(space, seed=SEED)
    history: dict[Selection, float] = {}
    total = np.zeros(2)
    while len(history) < trials:
        selection, _ = sampler.propose(history)
        if selection in history:
            raise RuntimeError(f"{len(history)} selections are all that this pool has: make it larger.")
        scores: list[float] = []
        total += timed(lambda chosen=selection, scores=scores: scores.append(probe.score(chosen).value))
        history[selection] = scores[0]
    wall, processor = total / trials
    return float(wall), float(processor)


def logistic(bank: Any, candidates: Sequence[Candidate]) -> tuple[Times, Times, dict[str, Any]]:
    """A score with one penalty, measured, and with all of them, extrapolated; and how the solver fared."""
    features, labels = fused(bank, weighted(candidates, 1)), bank.development.labels
    fold, classes, most = bank.development.fold, len(bank.development.class_names), 2000
    steps: list[int] = []

    def fitted(chosen: np.ndarray, inverse_penalty: float) -> LogisticRegression:
        model = LogisticRegression(C=inverse_penalty, max_iter=most)
        model.fit(features[chosen].reshape(-1, features.shape[2]), labels[chosen].ravel())
        steps.append(int(model.n_iter_.max()))
        return model

    def score() -> float:
        counts = np.zeros((classes, classes))
        for held_out in range(FOLDS):
            model = fitted(fold != held_out, 1.0)
            predicted = model.predict(features[fold == held_out].reshape(-1, features.shape[2]))
            counts += confusion(labels[fold == held_out].ravel(), predicted, None, classes)
        return mean_iou(counts)

    one = timed(score)
    inner = np.array([timed(lambda c=c: fitted(fold == 0, c)) for c in INVERSE_PENALTIES]).sum(0)
    several = np.array(one) + FOLDS * (FOLDS - 1) * inner
    fared = {"most_steps": max(steps), "converged": max(steps) < most}
    return one, (float(several[0]), float(several[1])), fared


def ten_mlps(bank: Any, candidates: Sequence[Candidate]) -> Times:
    """The least that a score can take, from the time of some steps and of the votes on all locations."""
    features = torch.from_numpy(fused(bank, weighted(candidates, 1))).flatten(0, 1)
    labels = bank.development.labels.ravel()
    head = MlpEnsembleHead(epochs=1)
    locations = TrainingLocations(
        features=lambda chosen: features[torch.from_numpy(chosen)],
        targets=labels[: MLP_STEPS * head.batch],
        channels=features.shape[1],
        classes=len(bank.development.class_names),
        seed=0,
        device=torch.device("cpu"),
    )
    step = np.array(timed(lambda: head.fit(locations))) / MLP_STEPS
    votes = np.array(timed(lambda: head.outputs(features)))
    fit = len(labels) * (FOLDS - 1) // FOLDS
    fewest = head.sure_epochs * (fit // head.batch) + head.patience + 1
    wall, processor = FOLDS * fewest * step + votes
    return float(wall), float(processor)


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    shared = {**environment(), "numeric_threads": 1, "load": load()}

    def note(
        group: str, method: str, state: str, penalties: int, times: Times, at: dict[str, int], **more: Any
    ) -> None:
        columns = {"group": group, "method": method, "state": state, "penalties": penalties, **at, "folds": FOLDS}
        known = {"wall_ms": times[0], "cpu_ms": times[1], "most_steps": None, "converged": None}
        rows.append({**columns, **known, **more, **shared})
        print(
            f"{group}: {method}, {state}, {penalties} penalties, {at}: {times[1]:.1f} ms of processor time", flush=True
        )

    with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="diffsift-speed-") as temporary:
        bank, pool = demo_bank(Path(temporary), options.pool)
        fast(bank, pool[:1], 1)  # libraries are loaded
        _side_by_side(bank, pool, options.trials, note)
        for name, values in GROWTH.items():
            for value in values:
                at = {**BASE, name: value}
                synthetic = SyntheticBank(**at)
                for penalties in (1, len(PENALTIES)):
                    for state, times in zip(
                        ("cold", "warm"), fast(synthetic, synthetic.candidates, penalties), strict=True
                    ):
                        note(f"growth with {name}", "ridge", state, penalties, times, at)
    _add_factors(rows)
    _print(rows)
    write_csv(options.out, rows)


def _side_by_side(bank: Bank, pool: Sequence[Candidate], trials: int, note: Callable[..., None]) -> None:
    group, several = "side by side", len(PENALTIES)
    chosen = [pool[int(position)] for position in np.linspace(0, len(pool) - 1, BASE["candidates"])]
    for penalties in (1, several):
        for state, times in zip(("cold", "warm"), fast(bank, chosen, penalties), strict=True):
            note(group, "ridge", state, penalties, times, BASE)
        note(group, "ridge", "amortised", penalties, amortised(bank, pool, penalties, trials), BASE)
    nearest = NeighbourProbe(bank, ProbeSpecification(kind="knn"))
    note(group, "knn", "warm", 1, warm(nearest, chosen), BASE)
    one, all_of_them, fared = logistic(bank, chosen)
    note(group, "logistic", "measured", 1, one, BASE, **fared)
    note(group, "logistic", "extrapolated", several, all_of_them, BASE, **fared)
    note(group, "ten MLPs", "lower bound", 1, ten_mlps(bank, chosen), BASE)


def _add_factors(rows: list[dict[str, Any]]) -> None:
    """How many times as long as the fast probe in each of its states, side by side, with as many penalties."""
    beside = [row for row in rows if row["group"] == "side by side"]
    fast_ms = {(row["state"], row["penalties"]): row["cpu_ms"] for row in beside if row["method"] == "ridge"}
    for row in rows:
        for state in ("cold", "warm", "amortised"):
            known = fast_ms.get((state, row["penalties"])) if row in beside else None
            row[f"times_{state}"] = row["cpu_ms"] / known if known else None


def _print(rows: Sequence[dict[str, Any]]) -> None:
    def shown(value: float | None, digits: int = 1) -> str:
        return "" if value is None else f"{value:,.{digits}f}"

    cells = [
        (
            f"{row['group']}: {row['method']}, {row['state']}",
            *(str(row[name]) for name in ("penalties", *BASE)),
            shown(row["wall_ms"]),
            shown(row["cpu_ms"]),
            *(shown(row[f"times_{state}"]) for state in ("cold", "warm", "amortised")),
        )
        for row in rows
    ]
    header = ("what", "penalties", *BASE, "wall ms", "CPU ms", "x cold", "x warm", "x amortised")
    print_table(header, cells)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300, help="of the fresh study (default: %(default)s)")
    parser.add_argument("--pool", type=int, default=60, help="candidates of the fresh study (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "probe_speed.csv", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
