"""The contract of a probe."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from diffsift.bank import BankView
from diffsift.objectives import Head, Probe
from diffsift.spaces import Selection

from .synthetic import INFORMATIVE, NOISE, PARTIAL, SyntheticBank


class ProbeContract:
    """Tests that every fast `Probe` must pass.

    Subclass it under a name that pytest collects, and override the fixture `make_probe`::

        class TestMyProbe(ProbeContract):
            @pytest.fixture
            def make_probe(self):
                return lambda bank: MyProbe(bank, ProbeSpecification(kind="mine"), ClassReadout())

    Override `bank`, `better` and `worse` too where the probe cannot read the targets of a segmentation.
    """

    @pytest.fixture
    def make_probe(self) -> Callable[[BankView], Probe]:
        """A function that makes a new probe on a bank, the same at each call."""
        raise NotImplementedError

    @pytest.fixture
    def bank(self) -> BankView:
        """What the probe scores selections on."""
        return SyntheticBank()

    @pytest.fixture
    def better(self) -> Selection:
        """A selection that must score above `worse`."""
        return Selection.of({INFORMATIVE: 1.0, PARTIAL: 0.5})

    @pytest.fixture
    def worse(self) -> Selection:
        """A selection that holds nothing of the targets."""
        return Selection.of([NOISE])

    @pytest.fixture
    def probe(self, make_probe: Callable[[BankView], Probe], bank: BankView) -> Probe:
        """The probe that most tests use."""
        return make_probe(bank)

    def test_a_score_is_the_metric_of_the_held_out_results(self, probe: Probe, better: Selection) -> None:
        score, results = probe.score(better), probe.held_out(better)
        assert score.value == pytest.approx(probe.metric.sign * probe.metric.value(results))
        assert np.isfinite([score.value, *score.folds]).all()

    def test_every_result_has_its_group(self, probe: Probe, better: Selection, worse: Selection) -> None:
        assert len(probe.groups) == len(probe.held_out(better)) == len(probe.held_out(worse))
        low, high = probe.metric.interval(probe.held_out(better), groups=probe.groups)
        assert low <= high

    def test_two_selections_are_compared_on_the_same_points(
        self, probe: Probe, better: Selection, worse: Selection
    ) -> None:
        gain = probe.metric.gain(probe.held_out(better), probe.held_out(worse), groups=probe.groups)
        assert gain.difference > 0

    def test_scores_do_not_depend_on_what_was_scored_before(
        self, make_probe: Callable[[BankView], Probe], bank: BankView, better: Selection, worse: Selection
    ) -> None:
        first, second = make_probe(bank), make_probe(bank)
        scores = {selection: first.score(selection) for selection in (better, worse)}
        assert {selection: second.score(selection) for selection in (worse, better)} == scores
        assert first.score(better) == scores[better]

    def test_what_holds_the_targets_scores_higher(self, probe: Probe, better: Selection, worse: Selection) -> None:
        assert probe.score(better).value > probe.score(worse).value

    def test_a_head_reads_the_candidates_of_its_selection(
        self, probe: Probe, bank: BankView, better: Selection
    ) -> None:
        head = probe.fit(better)
        if not isinstance(head, Head):
            pytest.skip("nothing is fitted")
        assert set(head.weights) == set(better.candidates)
        for candidate, weights in head.weights.items():
            assert weights.shape == (bank[candidate].features.shape[-1], len(head.intercept))
        sums = np.repeat(head.intercept[None], 3, axis=0)
        outputs = head.outputs(sums)
        assert len(outputs) == 3
        assert np.isfinite(outputs).all()

    def test_an_elimination_orders_the_whole_pool(self, probe: Probe, better: Selection, worse: Selection) -> None:
        pool = sorted({*better.candidates, *worse.candidates})
        elimination = probe.eliminate(pool, 1)
        if elimination is None:
            pytest.skip("nothing is eliminated")
        assert sorted(elimination.survivors) == pool
        assert elimination.survivors[0] in better.candidates

    def test_the_sampling_error_is_a_standard_error(self, probe: Probe, better: Selection) -> None:
        error = probe.sampling_error(better)
        assert error is None or error >= 0
