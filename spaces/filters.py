"""Filters: which activations are worth trying, decided before any label is used.

A filter is given the whole catalogue and names the activations to drop, each with a reason. An activation is kept when
no filter drops it. The first filter that drops it gives the reason, in this order: what cannot be captured, the name
patterns of the specification, its rules, and the registered filters it names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from diffsift.backbones import Activation
from diffsift.errors import SpecificationError, did_you_mean

from .registry import FILTERS
from .specification import FilterSpecification, Rules


@dataclass(frozen=True)
class Decision:
    """The filters' decision on one activation.

    Attributes:
        activation: the declaration that was judged.
        kept: whether it may be chosen.
        reason: why it was dropped; empty when it is kept.
    """

    activation: Activation
    kept: bool
    reason: str


class PropertyFilter(ABC):
    """Decides which activations of a catalogue to drop.

    The life of a filter: `apply_filters` makes one for each model of a study, before the bank is filled, and calls
    `reasons` once with the model's whole catalogue. A filter reads declarations, or properties that were measured
    without labels; it must not use labels. `register_filter` makes a further filter known, and
    `diffsift.testing.filter.FilterContract` tests it.
    """

    @abstractmethod
    def reasons(self, activations: Sequence[Activation]) -> dict[str, str]:
        """Name the activations to drop.

        Args:
            activations: the whole catalogue in execution order, including what other filters drop.

        Returns:
            Reasons by the names of the activations to drop. Reasons are counted in reports: use the same words for the
            same cause, without numbers that differ from one activation to the next.

        Raises:
            SpecificationError: the filter does not fit this catalogue, such as a name pattern that matches nothing.
        """


class StructuralFilter(PropertyFilter):
    """The rules that Meng et al. (NeurIPS 2024, sections 4 and 5, appendix E) derived on SD 1.5 and SDXL, generalised.

    They read declarations only. Diffusion noise is strong in the down-stage, fades along it and returns late in the
    up-stage. So only the up-stage is kept, and of its last level only self-attention queries and keys, whose locality
    suppresses that noise. Earlier, the same locality hides meaning, so queries and keys of self-attention are dropped
    there, except in the last repeat before the last level. Increments carry high-frequency noise. A grid eight times
    coarser than the denoiser's input is too coarse.
    """

    too_coarse_stride = 8

    def reasons(self, activations: Sequence[Activation]) -> dict[str, str]:
        last_level = max(
            (entry.level for entry in activations if entry.stage == "up" and entry.level is not None), default=0
        )
        found = {entry.name: self._reason(entry, last_level) for entry in activations}
        return {name: reason for name, reason in found.items() if reason}

    def _reason(self, entry: Activation, last_level: int) -> str:
        if entry.stage == "blocks":
            return ""  # the rules were derived on U-Nets: they say nothing of a transformer
        if entry.stage == "up" and entry.level is None:
            return ""  # the mean of the stage's cross-attention maps, which the paper's SDXL-t uses
        if entry.stage != "up":
            return {
                "in": "network input: no features yet",
                "down": "down-stage: diffusion noise not removed yet",
                "mid": "mid-stage: before the up-stage",
            }[entry.stage]
        if entry.kind in ("res-increment", "ffn-inner", "self-v", "self-out", "cross-out"):
            return "increment: carries high-frequency noise"
        if entry.stride >= self.too_coarse_stride or (
            entry.kind == "upsampler-out" and entry.stride * 2 >= self.too_coarse_stride
        ):
            return f"too coarse: a stride of {self.too_coarse_stride} or more"
        is_self_attention = entry.kind in ("self-q", "self-k")
        if entry.level == last_level and not is_self_attention:
            return "last up level: diffusion noise comes back"
        last_repeat = entry.repeat is not None and entry.repeats is not None and entry.repeat == entry.repeats - 1
        late = entry.level == last_level or (entry.level == last_level - 1 and last_repeat)
        if is_self_attention and not late:
            return "self-attention in the clean part: locality hides meaning"
        return ""


class UsableFilter(PropertyFilter):
    """Drops what cannot be captured, and attention maps unless they are asked for: they are as wide as the grid.

    Args:
        attention_maps: whether to keep attention maps.
    """

    def __init__(self, *, attention_maps: bool) -> None:
        self._attention_maps = attention_maps

    def reasons(self, activations: Sequence[Activation]) -> dict[str, str]:
        found = {entry.name: f"cannot be captured: {entry.unreadable}" for entry in activations if entry.unreadable}
        if not self._attention_maps:
            maps = [entry.name for entry in activations if entry.kind in ("self-map", "cross-map")]
            found |= dict.fromkeys(maps, "attention map: filters.attention_maps is off")
        return found


class NamePatternFilter(PropertyFilter):
    """Keeps or drops by shell-style name patterns, such as ``up-*-cross-q``.

    Args:
        keep: only names that match one of these are kept; empty keeps all.
        drop: names that match one of these are dropped.
    """

    def __init__(self, *, keep: Sequence[str] = (), drop: Sequence[str] = ()) -> None:
        self._keep, self._drop = tuple(keep), tuple(drop)

    def reasons(self, activations: Sequence[Activation]) -> dict[str, str]:
        dropped = {}
        for name in (entry.name for entry in activations):
            if self._keep and not any(fnmatchcase(name, pattern) for pattern in self._keep):
                dropped[name] = "name matches no pattern of filters.keep"
            elif match := next((pattern for pattern in self._drop if fnmatchcase(name, pattern)), None):
                dropped[name] = f"name matches {match!r} of filters.drop"
        return dropped


def check_patterns(names: Sequence[str], specification: FilterSpecification) -> None:
    """Refuse name patterns that match nothing.

    Args:
        names: of the activations of all models.
        specification: whose `keep` and `drop` are checked.

    Raises:
        SpecificationError: a pattern matches no name; the closest ones are offered.
    """
    for field, patterns in (("filters.keep", specification.keep), ("filters.drop", specification.drop)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise SpecificationError(
                    f"{field} must match activations of a model, but {pattern!r} matches "
                    f"none{did_you_mean(pattern, names)}"
                )


def rules_for(activations: Sequence[Activation], specification: FilterSpecification) -> Rules:
    """Resolve the rules of a specification for a network.

    Args:
        activations: the network's catalogue.
        specification: its `rules` are read.

    Returns:
        The rules as given; for ``auto``, ``structural`` for a U-Net whose up-stage has cross-attention, the kind that
        the rules were derived on, and ``measured`` for every other network.
    """
    if specification.rules != "auto":
        return specification.rules
    papers = any(entry.stage == "up" and entry.kind == "cross-q" for entry in activations)
    return "structural" if papers else "measured"


def apply_filters(
    activations: Sequence[Activation],
    specification: FilterSpecification,
    measured: PropertyFilter | None = None,
) -> tuple[Decision, ...]:
    """Decide on every activation of a catalogue.

    Args:
        activations: the whole catalogue in execution order.
        specification: which filters apply.
        measured: the filter for the rules ``measured``; None makes them drop nothing.

    Returns:
        A decision for each activation, in the same order. Patterns that match nothing may be meant for another model:
        see `check_patterns`.

    Raises:
        SpecificationError: a filter is not registered, or nothing is left.
    """
    filters: list[PropertyFilter] = [UsableFilter(attention_maps=specification.attention_maps)]
    if specification.keep or specification.drop:
        filters.append(NamePatternFilter(keep=specification.keep, drop=specification.drop))
    rules = rules_for(activations, specification)
    if rules == "structural":
        filters.append(StructuralFilter())
    elif rules == "measured" and measured is not None:
        filters.append(measured)
    filters += [FILTERS[name]() for name in specification.further]
    dropped: dict[str, str] = {}
    for entry in filters:
        dropped = {**entry.reasons(activations), **dropped}
    decisions = tuple(Decision(entry, entry.name not in dropped, dropped.get(entry.name, "")) for entry in activations)
    if not any(decision.kept for decision in decisions):
        check_patterns([entry.name for entry in activations], specification)
        summary = "; ".join(f"{count} x {reason}" for reason, count in count_reasons(decisions))
        raise SpecificationError(
            f"filters must keep at least one activation, but all {len(activations)} are dropped ({summary}): "
            "set filters.rules to none or widen filters.keep."
        )
    return decisions


def count_reasons(decisions: Iterable[Decision]) -> list[tuple[str, int]]:
    """Count the reasons for which activations were dropped.

    Args:
        decisions: as `apply_filters` returns them.

    Returns:
        Pairs of a reason and its count, the most frequent first.
    """
    return Counter(decision.reason for decision in decisions if not decision.kept).most_common()
