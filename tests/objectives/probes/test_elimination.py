"""Backward elimination: what is worth something beside others only is kept, and every solve is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

from diffsift.objectives.probes._elimination import eliminate
from diffsift.spaces import Candidate

ROWS, CLASSES = 1500, 5


def suppressed(size: int, seed: int) -> tuple[dict[Candidate, Any], Any, set[Candidate]]:
    """Two groups of latents decide the class. One is planted as it is, one under a nuisance, and the nuisance alone."""
    rng = np.random.default_rng(seed)
    first, second, nuisance = (rng.standard_normal((ROWS, 4)) for _ in range(3))
    mixing = rng.standard_normal((8, CLASSES))
    labels = (np.concatenate([first, second], axis=1) @ mixing + 0.3 * rng.gumbel(size=(ROWS, CLASSES))).argmax(1)
    pool = [Candidate("main", f"block{number}-out", 50) for number in range(size)]
    places = rng.choice(size, 3, replace=False)
    held = dict(zip(places.tolist(), (first, second + 1.5 * nuisance, nuisance), strict=True))
    features = {}
    for number, candidate in enumerate(pool):
        weak = 0.4 * first + 0.4 * second[:, ::-1] + rng.standard_normal((ROWS, 4))
        base = held.get(number, weak)
        noise = 0.2 if number in held else 1.0
        x = base @ rng.standard_normal((4, 8)) / 2 + noise * rng.standard_normal((ROWS, 8))
        features[candidate] = x.astype(np.float32)
    return features, np.eye(CLASSES, dtype=np.float32)[labels], {pool[place] for place in places}


@pytest.mark.parametrize("size", [40, 200])
def test_a_suppressor_survives_beside_what_it_suppresses(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets, planted = suppressed(size, seed=0)
    counted, factorise = [], scipy.linalg.cho_factor
    monkeypatch.setattr(
        scipy.linalg, "cho_factor", lambda *args, **options: counted.append(1) or factorise(*args, **options)
    )
    found = eliminate(list(features), features.__getitem__, targets, 3)
    assert set(found.survivors[:3]) == planted
    assert len(counted) == found.solves
    assert sorted(found.survivors) == sorted(features)


def test_a_pool_too_large_for_one_fit_is_halved_group_by_group() -> None:
    """What is worth something by itself survives; a pair that needs one another may be torn apart."""
    features, targets, planted = suppressed(300, seed=0)
    found = eliminate(list(features), features.__getitem__, targets, 3)
    assert planted & set(found.survivors[:3])
    assert sorted(found.survivors) == sorted(features)
    alone = eliminate(list(features)[:200], features.__getitem__, targets, 3)
    assert found.solves == alone.solves + 2 - 1


def test_alone_it_is_among_the_worst() -> None:
    """Why it takes an elimination: the suppressor's own fit explains next to nothing."""
    features, targets, planted = suppressed(40, seed=0)
    centered = targets - targets.mean(0)

    def explained(candidate: Candidate) -> float:
        x = features[candidate] - features[candidate].mean(0)
        residual = centered - x @ np.linalg.lstsq(x, centered, rcond=None)[0]
        return float(1 - (residual**2).sum() / (centered**2).sum())

    ranked = sorted(features, key=explained)
    assert planted & set(ranked[:3])


def test_a_pool_no_larger_than_what_is_to_survive_needs_no_solve() -> None:
    features, targets, _ = suppressed(4, seed=1)
    found = eliminate(list(features), features.__getitem__, targets, 4)
    assert found.solves == 0
    assert found.survivors == tuple(features)
