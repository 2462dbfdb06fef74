"""The rows of the final table: the selection found, and what one would use without a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from diffsift.backbones import (
    Backbone,
    BackboneCache,
    BackboneName,
    ModelSpecification,
    controls_of,
    load,
    owner_of,
    untrained_name,
)
from diffsift.bank import Bank
from diffsift.spaces import Candidate, ModelSpace, Selection, activations_by_timestep


class RowName(StrEnum):
    """Names of the final table's rows."""

    PIXELS = "raw pixels"
    LATENTS = "VAE latents"
    RANDOM = "random weights"
    OLDER = "older practice"
    PAPER = "paper's rule-based choice"
    SINGLE = "best single activation"
    EVERYTHING = "all kept, one timestep"
    FOUND = "selection found"


@dataclass(frozen=True)
class Row:
    """A row before the test split is opened.

    Attributes:
        name: what the table calls it.
        alternatives: selections; the best of them on validation data is scored.
        note: how it was chosen, in words.
    """

    name: RowName
    alternatives: tuple[Selection, ...]
    note: str = ""


@dataclass(frozen=True)
class Baselines:
    """Makes the rows beside the selection found; features that they need and the bank lacks are extracted.

    Attributes:
        bank: the study's bank.
        backbones: backbones by name; controls and untrained networks are added.
        models: what each model offers, by the name of its backbone.
        specifications: the models' parts of the specification, by the same names.
        variants: names of the models that are variants of the main one.
        timesteps: the study's timesteps.
        random_weights: whether there is a row for the selection found on networks with random weights.
    """

    bank: Bank
    backbones: BackboneCache
    models: Mapping[str, ModelSpace]
    specifications: Mapping[str, ModelSpecification]
    variants: tuple[str, ...]
    timesteps: tuple[int, ...]
    random_weights: bool = True

    def rows(self, pool: Sequence[Candidate], found: Selection) -> list[Row]:
        """All rows in the order of the table, the selection found last.

        Args:
            pool: the study's candidates.
            found: the selection that the search found.

        Returns:
            Rows whose alternatives are all in the bank.
        """
        return [
            *self._controls(),
            *(self._untrained(found) if self.random_weights else ()),
            *(row for rule in (RowName.OLDER, RowName.PAPER) for row in self._published(rule)),
            Row(RowName.SINGLE, tuple(Selection.of([candidate]) for candidate in pool)),
            self._everything(pool, found),
            Row(RowName.FOUND, (found,)),
        ]

    def by_rule(self, rule: RowName, models: Sequence[str]) -> list[Selection]:
        """What a rule of the literature chooses.

        Args:
            rule: `RowName.OLDER` or `RowName.PAPER`.
            models: names of models.

        Returns:
            A selection for each model and timestep where all of it is in the bank.
        """
        chosen = []
        for name in models:
            for timestep in self.timesteps:
                members = [Candidate(name, entry, timestep) for entry in self.models[name].published[rule]]
                if members and all(candidate in self.bank for candidate in members):
                    chosen.append(Selection.of(members))
        return chosen

    def noise_draws(self) -> dict[str, int]:
        """How often each model runs per image and timestep, trained and untrained."""
        trained = {name: specification.noise_seeds for name, specification in self.specifications.items()}
        return {**trained, **{untrained_name(name): count for name, count in trained.items()}}

    def _controls(self) -> list[Row]:
        main = BackboneName.MAIN
        labels = {BackboneName.PIXELS: RowName.PIXELS, BackboneName.LATENTS: RowName.LATENTS}
        rows = []
        for name in controls_of(self.backbones[main]):

            def make(name: BackboneName = name) -> Backbone:
                return controls_of(self.backbones[main])[name]()

            self.backbones.add(name, make, beside=main)
            (activation,) = self.backbones[name].activations()
            self.bank.fill(self.backbones[name], {0: [activation]})
            rows.append(Row(labels[name], (Selection.of([Candidate(name, activation.name, 0)]),)))
        return rows

    def _untrained(self, found: Selection) -> list[Row]:
        """The selection found, on the same networks before training; empty where a backbone cannot be untrained."""
        used = sorted({candidate.backbone for candidate in found.candidates})
        if not all(self.backbones[name].can_be_untrained for name in used):
            return []
        for name in used:
            self._add_untrained(name)
            wanted = activations_by_timestep(found.candidates, name, self.models[name].activations)
            self.bank.fill(self.backbones[untrained_name(name)], wanted)
        selection = _on_backbones(found, {name: untrained_name(name) for name in used})
        return [Row(RowName.RANDOM, (selection,), "the selection found, on the same network before training")]

    def _add_untrained(self, model: str) -> None:
        """Register the network of a model before training; variants of a model share one."""
        owner = owner_of(model, self.specifications)
        name = untrained_name(owner)
        self.backbones.add_untrained(name, owner)
        if owner != model:
            variant, specification = untrained_name(model), self.specifications[model]

            def make() -> Backbone:
                return load(specification, name=variant, beside=self.backbones[name])

            self.backbones.add(variant, make, beside=name)

    def _published(self, rule: RowName) -> list[Row]:
        alternatives = self.by_rule(rule, list(self.models))
        note = f"at its {self._best_setting} on held-out images"
        return [Row(rule, tuple(alternatives), note)] if alternatives else []

    def _everything(self, pool: Sequence[Candidate], found: Selection) -> Row:
        """All kept activations of the model as it is given, or of a variant that was found, and of further models."""
        main = BackboneName.MAIN
        used = {candidate.backbone for candidate in found.candidates}
        alternatives = []
        for name in (main, *self.variants):
            if name not in {main, *used}:
                continue
            left_out = {main, *self.variants} - {name}
            members: dict[int, list[Candidate]] = {}
            for candidate in pool:
                if candidate.backbone not in left_out:
                    members.setdefault(candidate.timestep, []).append(candidate)
            alternatives += [Selection.of(entries) for entries in members.values()]
        return Row(
            RowName.EVERYTHING,
            tuple(alternatives),
            f"every kept activation, at the {self._best_setting} on held-out images",
        )

    @property
    def _best_setting(self) -> str:
        return "best timestep and variant of the model" if self.variants else "best timestep"


def _on_backbones(selection: Selection, names: Mapping[str, str]) -> Selection:
    """The same selection on other backbones."""
    return Selection.of({replace(entry, backbone=names[entry.backbone]): weight for entry, weight in selection.members})
