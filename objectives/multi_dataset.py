"""One task on several data sets: a selection is good where it is good on all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from typing import Any

from diffsift.backbones import BackboneCache
from diffsift.bank import (
    Bank,
    BankPart,
    BankSpecification,
    BankView,
    DevelopmentSet,
    join_development_sets,
    pack_groups,
)
from diffsift.common.context import RunContext
from diffsift.common.reporting import Reporter
from diffsift.datasets import DataSpecification

from ._base import SHOWN, EvaluationProtocol, FittedSelection, Objective, SplitResults
from .metrics import MeanOverDataSets, pack_results
from .probes import HeadPerDataSet, MultiDatasetProbe
from .registry import OBJECTIVES
from .specification import AnyTaskSpecification, ProbeSpecification


def make_objective(
    data: Mapping[str, DataSpecification],
    task: AnyTaskSpecification,
    bank: BankSpecification,
    probe: ProbeSpecification,
) -> Objective:
    """The objective of a specification, whose data sets are given by name.

    Raises:
        SpecificationError: a data set has the answers of another task.
    """
    make = OBJECTIVES[task.kind]
    objectives: dict[str, Objective] = {name: make(entry, task, bank, probe) for name, entry in data.items()}
    return MultiDatasetObjective(objectives) if len(objectives) > 1 else next(iter(objectives.values()))


class MultiDatasetObjective(Objective):
    """The mean of a task's score over data sets, each with a probe of its own on the same features.

    One bank holds the images of all, with one standardiser per candidate, as the extractor will have one: it cannot
    know of which data set an image is. Statistics are fit on equally many training images of each data set.

    Args:
        objectives: of one task, by the name of their data set.
    """

    def __init__(self, objectives: Mapping[str, Objective]) -> None:
        self.objectives = dict(objectives)
        parts = list(self.objectives.values())
        self.metric = MeanOverDataSets([part.metric for part in parts])
        names = {part.class_names for part in parts}
        self.class_names = names.pop() if len(names) == 1 else ()
        self.credits = tuple(dict.fromkeys(chain.from_iterable(part.credits for part in parts)))

    @property
    def protocol(self) -> EvaluationProtocol:
        protocols = {name: part.protocol.to_json() for name, part in self.objectives.items()}
        joint = {field: _in_words({name: entry[field] for name, entry in protocols.items()}) for field in _FIELDS}
        first = next(iter(protocols.values()))
        digest = hashlib.sha256(json.dumps([entry["data"] for entry in protocols.values()]).encode()).hexdigest()[:16]
        averaging = f"{joint.pop('averaging')}, then the mean over {len(protocols)} data sets"
        return EvaluationProtocol(task=first["task"], data=digest, averaging=averaging, split=first["split"], **joint)

    def load(self, reporter: Reporter | None = None) -> DevelopmentSet:
        return join_development_sets({name: part.load(reporter) for name, part in self.objectives.items()})

    def probe(self, bank: BankView) -> MultiDatasetProbe:
        if not isinstance(bank, Bank):
            raise TypeError(f"several data sets need the whole bank, but got a {type(bank).__name__}.")
        parts = enumerate(self.objectives.values())
        return MultiDatasetProbe([part.probe(BankPart(bank, number)) for number, part in parts])

    def test(
        self, contenders: Sequence[FittedSelection], backbones: BackboneCache, context: RunContext
    ) -> SplitResults:
        found = {
            name: part.test(
                [_on_one(contender, number) for contender in contenders],
                backbones,
                context,
            )
            for number, (name, part) in enumerate(self.objectives.items())
        }
        results = list(found.values())
        groups = [part.groups or [str(number) for number in range(_count(part))] for part in results]
        return SplitResults(
            results={c.name: pack_results([part.results[c.name] for part in results]) for c in contenders},
            measures={c.name: self._measures(c.name, found) for c in contenders},
            samples=_in_turn([part.samples for part in results]),
            predictions={
                c.name: _in_turn([part.predictions[c.name] for part in results])
                for c in contenders
                if all(c.name in part.predictions for part in results)
            },
            groups=pack_groups(groups),
        )

    def _measures(self, contender: str, found: Mapping[str, SplitResults]) -> dict[str, float]:
        """Per data set its score, and what its objective measures besides."""
        measures = {}
        for name, result in found.items():
            metric = self.objectives[name].metric
            measures[f"{name}: {metric.name}"] = metric.value(result.results[contender])
            further = result.measures.get(contender, {})
            measures |= {f"{name}: {measure}": value for measure, value in further.items()}
        return measures


_FIELDS = ("metric", "averaging", "resolution", "sampling", "search")


def _in_words(by_name: Mapping[str, str]) -> str:
    """What all data sets have in common, or what each has."""
    if len(set(by_name.values())) == 1:
        return next(iter(by_name.values()))
    return ", ".join(f"{name}: {value}" for name, value in by_name.items())


def _count(result: SplitResults) -> int:
    """Results of each contender."""
    return len(next(iter(result.results.values())))


def _on_one(contender: FittedSelection, number: int) -> FittedSelection:
    """A contender with the head of one data set."""
    if not isinstance(contender.head, HeadPerDataSet):
        raise TypeError(f"{contender.name} must have a head per data set, but has {contender.head}.")
    return replace(contender, head=contender.head.heads[number])


def _in_turn(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """The first few of several lists, one of each at a time."""
    missing = object()
    return [entry for row in zip_longest(*parts, fillvalue=missing) for entry in row if entry is not missing][:SHOWN]
