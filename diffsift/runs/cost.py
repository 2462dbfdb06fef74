"""What each model of a study still costs before the search can start: passes and disk, from declarations alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffsift.backbones import differences

from .prepare import Prepared


@dataclass(frozen=True)
class Price:
    """What one model costs.

    Attributes:
        name: of its backbone.
        about: how it differs from the model as given, in words; empty where it is no variant.
        passes: runs of the denoiser that the bank still needs, one for each image, timestep and noise draw.
        bytes: size of its entries on disk; those that exist already are counted too.
        seconds: what the passes take; None where it was not measured.
    """

    name: str
    about: str
    passes: int
    bytes: int
    seconds: float | None = None

    @property
    def words(self) -> str:
        """Passes, disk and, if it was measured, time."""
        took = "" if self.seconds is None else f", about {duration(self.seconds)}"
        return f"{self.passes} passes, {self.bytes / 1e6:.1f} MB{took}"


def prices(prepared: Prepared) -> list[Price]:
    """The price of each model, in the order of the study; nothing is run.

    Args:
        prepared: the study.

    Returns:
        One price for each model, variants included; without times, as none is measured.
    """
    specification, found = prepared.specification, []
    for name, model in prepared.models.items():
        wanted, given = prepared.wanted(model), specification.models[name]
        runs = prepared.bank.passes(name, dict(model.identity), wanted)
        about = differences(given, specification.model) if name in specification.variants else ""
        found.append(Price(name, about, runs * given.noise_seeds, prepared.bank.estimate(wanted)))
    return found


def joint_words(found: Sequence[Price]) -> str:
    """What the variants cost together, beside what the search costs without them.

    Args:
        found: from `prices`, with at least one variant.

    Returns:
        One line without a full stop.
    """
    variants = [price for price in found if price.about]
    others = [price for price in found if not price.about]
    return (
        f"{len(variants)} variant{'s' if len(variants) > 1 else ''} of the model: {_total(variants).words} at most; "
        f"without them {_total(others).words}"
    )


def price_lines(found: Sequence[Price]) -> list[str]:
    """A line for each model.

    Args:
        found: from `prices`; at least one.

    Returns:
        Lines with name, passes and megabytes, names padded to the same width.
    """
    width = max(len(price.name) for price in found)
    return [f"{price.name:{width}}  {price.words}{f' ({price.about})' if price.about else ''}" for price in found]


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours, as long as it is.

    Args:
        seconds: 0 or above.

    Returns:
        Number and unit, such as ``12 s``, ``5 minutes (0.08 hours)`` or ``1.5 hours``.
    """
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes ({seconds / 3600:.2f} hours)" if seconds >= 90 else f"{seconds:.0f} s"


def _total(found: Sequence[Price]) -> Price:
    known = [price.seconds for price in found if price.seconds is not None]
    return Price(
        name="",
        about="",
        passes=sum(price.passes for price in found),
        bytes=sum(price.bytes for price in found),
        seconds=sum(known) if len(known) == len(found) else None,
    )
