"""One task on several data sets: a selection is good where it is good on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from typing import TypeVar

from diffsift.backbones import BackboneCache
from diffsift.bank import (
    BankPart,
    BankSpecification,
    BankView,
    DevelopmentSet,
    join_development_sets,
    pack_groups,
)
from diffsift.common.context import RunContext
from diffsift.common.files import digest
from diffsift.common.reporting import Reporter
from diffsift.datasets import DataSpecification
from diffsift.errors import DataError

from ._base import SHOWN, EvaluationProtocol, FittedSelection, Objective, SplitResults
from .metrics import MeanOverDataSets
from .probes import HeadPerDataSet, MultiDatasetProbe
from .registry import OBJECTIVES
from .specification import AnyTaskSpecification, ProbeSpecification

_Entry = TypeVar("_Entry")


def make_objective(
    data: Mapping[str, DataSpecification],
    task: AnyTaskSpecification,
    bank: BankSpecification,
    probe: ProbeSpecification,
) -> Objective:
    """The objective of a specification.

    Args:
        data: the data sets by name; at least one.
        task: the task's part of the specification.
        bank: the bank's part.
        probe: the fast probe's part.

    Returns:
        The objective of the task's kind; a `MultiDatasetObjective` where there are several data sets.

    Raises:
        SpecificationError: there is no such task, or a data set has labels of another one.
    """
    make = OBJECTIVES[task.kind]
    objectives: dict[str, Objective] = {name: make(entry, task, bank, probe) for name, entry in data.items()}
    return MultiDatasetObjective(objectives) if len(objectives) > 1 else next(iter(objectives.values()))


class MultiDatasetObjective(Objective):
    """The mean of a task's score over data sets, each with a probe of its own on the same features.

    One bank holds the images of all, with one standardiser per candidate, as the extractor will have one: it cannot
    know which data set an image comes from. Statistics are fitted on equally many training images of each data set.

    Args:
        objectives: objectives of one task, by the name of their data set.
    """

    def __init__(self, objectives: Mapping[str, Objective]) -> None:
        self.objectives = dict(objectives)
        parts = list(self.objectives.values())
        self.task = parts[0].task
        self._mean = self.metric = MeanOverDataSets([part.metric for part in parts])
        names = {part.class_names for part in parts}
        self.class_names = names.pop() if len(names) == 1 else ()
        self.credits = tuple(dict.fromkeys(chain.from_iterable(part.credits for part in parts)))

    @property
    def protocol(self) -> EvaluationProtocol:
        """What all data sets have in common, and what each has; reads the identity of every data set."""
        protocols = {name: part.protocol for name, part in self.objectives.items()}
        joint = {
            field: _in_words({name: getattr(protocol, field) for name, protocol in protocols.items()})
            for field in ("metric", "averaging", "resolution", "sampling", "search")
        }
        joint["averaging"] += f", then the mean over {len(protocols)} data sets"
        data = digest([protocol.data for protocol in protocols.values()])
        return replace(next(iter(protocols.values())), data=data, **joint)

    def load(self, reporter: Reporter | None = None) -> DevelopmentSet:
        loaded = {}
        for name, part in self.objectives.items():
            try:
                loaded[name] = part.load(reporter)
            except DataError as error:
                raise DataError(f"data set {name}: {error}") from error
        return join_development_sets(loaded)

    def probe(self, bank: BankView) -> MultiDatasetProbe:
        """Make a probe for each data set.

        Args:
            bank: the bank of all data sets, not a part of it.

        Returns:
            A probe that scores the mean.

        Raises:
            TypeError: the bank is a part.
        """
        if isinstance(bank, BankPart):
            raise TypeError("several data sets need the whole bank, but got a part of it.")
        parts = enumerate(self.objectives.values())
        return MultiDatasetProbe([part.probe(BankPart(bank, number)) for number, part in parts])

    def test(self, fitted: Sequence[FittedSelection], backbones: BackboneCache, context: RunContext) -> SplitResults:
        by_name = {
            name: part.test([_with_head(entry, number) for entry in fitted], backbones, context)
            for number, (name, part) in enumerate(self.objectives.items())
        }
        parts = list(by_name.values())
        selections = [entry.name for entry in fitted]
        groups = [part.groups or [str(row) for row in range(len(part.results[selections[0]]))] for part in parts]
        return SplitResults(
            results={name: self._mean.pack([part.results[name] for part in parts]) for name in selections},
            measures={name: self._measures(name, by_name) for name in selections},
            samples=_in_turn([part.samples for part in parts]),
            predictions={
                name: _in_turn([part.predictions[name] for part in parts])
                for name in selections
                if all(name in part.predictions for part in parts)
            },
            groups=pack_groups(groups),
        )

    def _measures(self, selection: str, by_name: Mapping[str, SplitResults]) -> dict[str, float]:
        """The score on each data set, and what its objective measures besides."""
        measures = {}
        for name, part in by_name.items():
            metric = self.objectives[name].metric
            measures[f"{name}: {metric.name}"] = metric.value(part.results[selection])
            measures |= {f"{name}: {measure}": value for measure, value in part.measures[selection].items()}
        return measures


def _in_words(by_name: Mapping[str, str]) -> str:
    """What all data sets have in common, or what each has."""
    if len(set(by_name.values())) == 1:
        return next(iter(by_name.values()))
    return ", ".join(f"{name}: {value}" for name, value in by_name.items())


def _with_head(fitted: FittedSelection, number: int) -> FittedSelection:
    """A fitted selection with the head of one data set."""
    if not isinstance(fitted.head, HeadPerDataSet):
        raise TypeError(f"{fitted.name} must have a head per data set, but has {fitted.head}.")
    return replace(fitted, head=fitted.head.heads[number])


def _in_turn(parts: Sequence[Sequence[_Entry]]) -> list[_Entry]:
    """The first few entries of several lists, one of each at a time."""
    rows = zip_longest(*([(entry,) for entry in part] for part in parts), fillvalue=())
    return [entry for row in rows for cell in row for entry in cell][:SHOWN]
