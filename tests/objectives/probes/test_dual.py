"""Ridge regression of more channels than rows: the dual form against the primal one and scikit-learn's."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from diffsift.bank import ALWAYS_FIT, DevelopmentSet, Entry, Features
from diffsift.extraction import Standardiser, block_scale
from diffsift.objectives import ProbeSpecification, RidgeProbe
from diffsift.objectives.probes import PENALTIES
from diffsift.objectives.probes import _dual as dual_module
from diffsift.objectives.probes import ridge as ridge_module
from diffsift.spaces import Candidate, Selection

POINTS, RAW = 10, 400


@dataclass
class Held:
    """A bank in memory."""

    development: DevelopmentSet
    entries: dict[Candidate, Entry]

    def __getitem__(self, candidate: Candidate, /) -> Entry:
        return self.entries[candidate]


def held(images: int = 12, candidates: int = 11, channels: int = 100, *, validation: bool = False) -> Held:
    rng = np.random.default_rng(0)
    rows = (images, POINTS)
    signal = rng.standard_normal((*rows, 5))
    fold = np.arange(images) % 3
    if validation:
        fold = np.where(np.arange(images) < images // 2, ALWAYS_FIT, 0)
    development = DevelopmentSet(
        samples=[None] * images,  # type: ignore[arg-type]
        points=np.zeros((*rows, 2), np.float32),
        labels=(signal[..., :3].argmax(-1)).astype(np.uint8),
        weights=rng.uniform(0.2, 3.0, rows).astype(np.float32),
        fold=fold,
        training=np.ones(images, bool),
        groups=tuple(map(str, range(images))),
        class_names=("a", "b", "c"),
        identity={},
    )
    entries = {}
    for number in range(candidates):
        candidate = Candidate("main", f"a{number}", 50)
        features = signal @ rng.standard_normal((5, channels)) + 2 * rng.standard_normal((*rows, channels)) + 1
        raw = RAW + number
        statistics = Standardiser(torch.zeros(raw), torch.ones(raw), torch.zeros(raw, channels))
        stored = Features(features.astype(np.float16), np.arange(images))
        entries[candidate] = Entry(candidate, stored, statistics, 0, "")
    return Held(development, entries)


def everything(bank: Held) -> Selection:
    weights = np.linspace(0.3, 1.0, len(bank.entries)).round(1)
    return Selection.of(dict(zip(bank.entries, weights.tolist(), strict=True)))


def probe_of(bank: Held, regularisation: float | str, balance: float = 0.0) -> RidgeProbe:
    specification = ProbeSpecification.model_validate({"regularisation": regularisation, "balance": balance})
    return RidgeProbe(bank, specification)  # type: ignore[arg-type]


@pytest.mark.parametrize("validation", [False, True], ids=["folds", "validation"])
@pytest.mark.parametrize("balance", [0.0, 1.0], ids=["weighted", "even"])
@pytest.mark.parametrize("regularisation", [1e-4, 1e-2, "auto"])
def test_both_forms_give_the_same(
    regularisation: float | str, balance: float, validation: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = held(validation=validation)
    selection = everything(bank)
    dual = probe_of(bank, regularisation, balance)
    monkeypatch.setattr(dual, "moments", None)  # of channels x channels
    outputs, head, score = list(dual.fold_outputs(selection)), dual.fit(selection), dual.score(selection)
    monkeypatch.setattr(ridge_module, "SMALL", 10**6)
    primal = probe_of(bank, regularisation, balance)
    # The primal form sums products in float32.
    for found, expected in zip(outputs, primal.fold_outputs(selection), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
    expected_head = primal.fit(selection)
    np.testing.assert_allclose(head.intercept, expected_head.intercept, atol=2e-3)
    for candidate, weights in expected_head.weights.items():
        np.testing.assert_allclose(head.weights[candidate], weights, atol=2e-3 * np.abs(weights).max())
    assert score.value == pytest.approx(primal.score(selection).value, abs=2e-2)


@pytest.mark.parametrize("penalty", [1e-6, 1e-3])
def test_the_head_is_that_of_a_dense_fit(penalty: float) -> None:
    bank = held()
    selection = everything(bank)
    head = probe_of(bank, penalty).fit(selection)
    blocks = [
        bank[candidate].features.astype(np.float64) * block_scale(weight, bank[candidate].standardiser.raw_channels)
        for candidate, weight in selection.members
    ]
    features = np.concatenate(blocks, axis=2).reshape(-1, 1100)
    emphasis = (bank.development.weights.astype(np.float64) / bank.development.weights.mean()).ravel()
    targets = np.eye(3)[bank.development.labels.ravel()]
    model = Ridge(alpha=penalty * emphasis.sum(), solver="cholesky").fit(features, targets, sample_weight=emphasis)
    np.testing.assert_allclose(head.intercept, model.intercept_, rtol=1e-4, atol=1e-5)
    found = np.concatenate(
        [
            head.weights[candidate] / block_scale(weight, bank[candidate].standardiser.raw_channels)
            for candidate, weight in selection.members
        ]
    )
    np.testing.assert_allclose(found, model.coef_.T, rtol=1e-3, atol=1e-5 * np.abs(model.coef_).max())


def test_penalties_are_chosen_by_the_errors_of_dense_fits() -> None:
    bank = held()
    selection = everything(bank)
    probe = probe_of(bank, "auto")
    dual = ridge_module._DualFits(probe, selection, "auto", [0, 1, 2])
    blocks = probe._blocks(selection)
    x = np.concatenate([scale * entry.features.astype(np.float64) for entry, scale, _ in blocks], axis=2)
    y, v = np.eye(3)[bank.development.labels], probe._emphasis.astype(np.float64)
    fit, out = (bank.development.fold != 1), (bank.development.fold == 1)
    expected = []
    for penalty in PENALTIES:
        model = Ridge(alpha=penalty * v[fit].sum(), solver="cholesky")
        model.fit(x[fit].reshape(-1, 1100), y[fit].reshape(-1, 3), sample_weight=v[fit].ravel())
        residual = y[out].reshape(-1, 3) - model.predict(x[out].reshape(-1, 1100))
        expected.append(v[out].ravel() @ (residual**2).sum(1))
    np.testing.assert_allclose(dual._errors([1], [2, 0]), expected, rtol=1e-7)
    assert len(np.unique(np.round(expected, 6))) == len(PENALTIES)


def test_the_form_follows_rows_and_channels() -> None:
    bank = held()
    probe, selection = probe_of(bank, 1e-3), everything(bank)
    assert isinstance(probe._fits(selection, [0, 1, 2]), ridge_module._DualFits)
    few = Selection.of(list(bank.entries)[:10])  # 1,000 channels: their products are cached
    assert isinstance(probe._fits(few, [0, 1, 2]), ridge_module._PrimalFits)
    many = held(images=111)  # 1,110 rows, 1,100 channels
    assert isinstance(probe_of(many, 1e-3)._fits(everything(many), [0, 1, 2]), ridge_module._PrimalFits)
    assert isinstance(probe_of(many, 1e-3)._fits(everything(many), [0, 1]), ridge_module._DualFits)


def test_products_are_mirrored_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual_module, "_TOGETHER", 7)
    x = np.random.default_rng(0).standard_normal((33, 40))
    found = dual_module.DualRidge.of([x[:, :15], x[:, 15:].astype(np.float32)], np.ones(33), np.ones((33, 1)))
    np.testing.assert_allclose(found.gram, x @ x.T, atol=1e-5)
    assert np.array_equal(found.gram, found.gram.T)


def test_no_matrix_of_channels_and_no_cache() -> None:
    bank = held(candidates=60)  # 6,000 channels: 288 MB for a matrix of them, and 120 rows
    probe, selection = probe_of(bank, "auto"), everything(bank)
    tracemalloc.start()
    probe.score(selection)
    probe.fit(selection)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
    assert not [key for key in probe._cache if key[0] != "targets"]  # type: ignore[index]
