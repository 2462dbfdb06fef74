"""The contract of an objective."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffsift.backbones import Backbone, BackboneCache, ModelSpecification, load
from diffsift.bank import Bank, BankSpecification
from diffsift.common.context import RunContext
from diffsift.demo import PIPELINE
from diffsift.errors import SpecificationError
from diffsift.objectives import FittedSelection, Objective
from diffsift.objectives.metrics import Metric
from diffsift.spaces import Candidate, Selection

BANK = BankSpecification(pixels_per_image=16, max_channels=8, fit_images=4)
"""Pass it to the objective, so that its development set and the contract's bank agree."""


class ObjectiveContract:
    """Tests that every `Objective` must pass.

    Subclass it under a name that pytest collects, and override the fixture `make_objective`::

        class TestMyObjective(ObjectiveContract):
            @pytest.fixture(scope="class")
            def make_objective(self):
                data = RenderedScenesSpecification(size=32, train=12, validation=8, test=5)
                task = OtherTaskSpecification(kind="mine")
                return lambda: MyObjective(data, task, BANK, ProbeSpecification())

    Features come from the pipeline that is built into diffsift.
    """

    @pytest.fixture(scope="class")
    def make_objective(self) -> Callable[[], Objective]:
        """A function that makes a new objective, the same at each call. Keep its data small: they are all read."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def objective(self, make_objective: Callable[[], Objective]) -> Objective:
        """The objective that most tests use."""
        return make_objective()

    @pytest.fixture(scope="class")
    def backbone(self) -> Backbone:
        """Where features come from."""
        return load(ModelSpecification(id=str(PIPELINE), device="cpu"))

    @pytest.fixture(scope="class")
    def bank(self, objective: Objective, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Bank:
        """Two candidates at the objective's locations."""
        bank = Bank(tmp_path_factory.mktemp("bank"), objective.load(), BANK, RunContext(batch_size=8))
        wanted = [entry for entry in backbone.activations() if entry.name.endswith("res-out")][-2:]
        bank.fill(backbone, {50: wanted})
        return bank

    @pytest.fixture(scope="class")
    def fitted(self, objective: Objective, backbone: Backbone, bank: Bank) -> list[FittedSelection]:
        """Two selections, ready for the test split."""
        names = [entry.name for entry in backbone.activations() if entry.name.endswith("res-out")][-2:]
        candidates, probe = [Candidate(backbone.name, name, 50) for name in names], objective.probe(bank)
        selections = {"both": Selection.of(candidates), "one": Selection.of(candidates[:1])}
        return [
            FittedSelection(name, selection, probe.fit(selection), bank.standardisers(selection.candidates))
            for name, selection in selections.items()
        ]

    @pytest.fixture(scope="class")
    def backbones(self, backbone: Backbone) -> BackboneCache:
        """The backbone by its name."""
        backbones = BackboneCache()
        backbones.add(backbone.name, lambda: backbone)
        return backbones

    def test_it_says_what_is_optimised(self, objective: Objective) -> None:
        assert isinstance(objective.metric, Metric)
        assert objective.metric.name
        assert len(set(objective.class_names)) == len(objective.class_names)
        assert all(isinstance(line, str) for line in objective.credits)

    def test_its_protocol_is_json_and_stable(
        self, objective: Objective, make_objective: Callable[[], Objective]
    ) -> None:
        protocol = objective.protocol
        assert json.loads(json.dumps(protocol.to_json())) == protocol.to_json()
        assert make_objective().protocol == protocol

    def test_the_development_set_is_drawn_the_same_again(self, make_objective: Callable[[], Objective]) -> None:
        once, again = make_objective().load(), make_objective().load()
        assert once.identity == again.identity
        np.testing.assert_array_equal(once.points, again.points)
        np.testing.assert_array_equal(once.fold, again.fold)
        assert len(once.groups) == len(once.samples) == len(once.fold)
        assert once.folds
        assert 0 <= once.points.min() <= once.points.max() <= 1

    def test_the_probe_scores_by_the_objective_s_metric(self, objective: Objective, bank: Bank) -> None:
        probe = objective.probe(bank)
        assert (probe.metric.name, probe.metric.sign) == (objective.metric.name, objective.metric.sign)
        assert tuple(probe.groups) == bank.development.held_out_groups

    def test_every_selection_is_scored_on_the_same_test_images(
        self, objective: Objective, fitted: list[FittedSelection], backbones: BackboneCache
    ) -> None:
        results = objective.test(fitted, backbones, RunContext(batch_size=2))
        assert set(results.results) == {entry.name for entry in fitted}
        both, one = (results.results[entry.name] for entry in fitted)
        objective.metric.check_comparable(both, one)
        assert results.groups is None or len(results.groups) == len(both)
        assert np.isfinite(objective.metric.value(both))
        assert set(results.measures) == set(results.results)
        assert all(len(maps) == len(results.samples) for maps in results.predictions.values())

    def test_results_depend_neither_on_the_batch_nor_on_other_selections(
        self, objective: Objective, fitted: list[FittedSelection], backbones: BackboneCache
    ) -> None:
        together = objective.test(fitted, backbones, RunContext(batch_size=2))
        alone = objective.test(fitted[1:], backbones, RunContext(batch_size=8))
        value = objective.metric.value
        name = fitted[1].name
        assert value(alone.results[name]) == pytest.approx(value(together.results[name]), rel=1e-2, abs=1e-2)
        assert alone.groups == together.groups

    def test_perfect_outputs_of_a_reference_head_score_highest(self, objective: Objective, tmp_path: Path) -> None:
        try:
            sample = objective.dataset.split("train")[0]
            targets = objective.targets(sample)
        except SpecificationError:
            pytest.skip("the task has no reference probes")
        classes = len(objective.class_names)
        if classes:
            perfect = np.eye(classes)[targets.targets.astype(int)]
        else:
            perfect = targets.targets.reshape(len(targets.targets), -1).astype(float)
        metric = objective.metric
        best, other = (
            metric.sign * metric.value(objective.result(targets, outputs)[None])
            for outputs in (perfect, np.roll(perfect, 1, axis=-1) if classes else perfect * 0 + perfect.mean())
        )
        assert best >= other
        assert targets.points.min() >= 0
        assert targets.points.max() <= 1
