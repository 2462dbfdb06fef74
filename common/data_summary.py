"""What a data set holds, as one record: the run says it first, and report and loggers show it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .reporting import Reporter

_SHOWN_CLASSES = 8


@dataclass(frozen=True)
class SplitSummary:
    """What a split holds.

    Attributes:
        name: of the split.
        images: how many.
        groups: of images that belong together; as many as images where each is by itself. None: not counted.
        smallest: (height, width) in px of the image with the fewest pixels; None: not counted.
        largest: that of the image with the most.
        classes: share in [0, 1] of each class in the pixels that count (classification: in the images), in order of id;
            empty where the task has no classes, or they were not counted.
        excluded: share in [0, 1] of the pixels that do not count: ignored, or of unknown depth; None: not counted.
        depth: smallest, typical (the median of the images' medians) and largest depth in metres.
        pairs: of images to match, for correspondence.
    """

    name: str
    images: int
    groups: int | None = None
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None
    classes: Mapping[str, float] = field(default_factory=dict, hash=False)
    excluded: float | None = None
    depth: tuple[float, float, float] | None = None
    pairs: int = 0

    def __str__(self) -> str:
        counted = f"{self.images} image{'' if self.images == 1 else 's'}"
        if self.groups is not None and self.groups != self.images:
            counted += f" in {self.groups} group{'' if self.groups == 1 else 's'}"
        if self.pairs:
            counted += f" ({self.pairs} pair{'' if self.pairs == 1 else 's'})"
        parts = [counted]
        if self.sizes:
            parts.append(f"{self.sizes} px")
        if self.classes:
            parts.append(self._classes_in_words())
        if self.depth is not None:
            parts.append(f"depth {self.depths}")
        if self.excluded:
            parts.append(f"{'ignored' if self.classes else 'unknown'} {percent(self.excluded)}")
        return f"{self.name}: {'; '.join(parts)}"

    @property
    def sizes(self) -> str:
        """Width and height in px, of the smallest and the largest image; empty where they were not counted."""
        if self.smallest is None or self.largest is None:
            return ""
        return " to ".join(dict.fromkeys(f"{width} x {height}" for height, width in (self.smallest, self.largest)))

    @property
    def depths(self) -> str:
        """The range of depths in metres; empty where there are none."""
        if self.depth is None:
            return ""
        low, typical, high = self.depth
        return f"{low:.4g} to {high:.4g} m, typically {typical:.4g} m"

    def _classes_in_words(self) -> str:
        if len(self.classes) <= _SHOWN_CLASSES:
            return ", ".join(f"{name} {percent(share)}" for name, share in self.classes.items())
        ordered = sorted(self.classes.items(), key=lambda entry: -entry[1])
        shown = ", ".join(f"{name} {percent(share)}" for name, share in ordered[: _SHOWN_CLASSES - 1])
        rarest, share = ordered[-1]
        return f"{shown} and {len(ordered) - _SHOWN_CLASSES + 1} more classes down to {rarest} {percent(share)}"


@dataclass(frozen=True)
class DataSummary:
    """What a data set holds.

    Attributes:
        splits: those that hold an image: train, validation, test.
        left_out: what lies beside the images and labels and is not used, and why, in words.
        name: of the data set where there are several; else empty.
    """

    splits: tuple[SplitSummary, ...]
    left_out: tuple[str, ...] = ()
    name: str = ""

    @property
    def lines(self) -> list[str]:
        """The record in words: a line for each split, and one for what was left out."""
        start = f"{self.name}: " if self.name else ""
        left_out = [f"{start}left out: {'; '.join(self.left_out)}"] if self.left_out else []
        return [f"{start}{split}" for split in self.splits] + left_out

    def to_json(self) -> dict[str, Any]:
        """As JSON, for loggers."""
        return asdict(self)


def say_what_data_hold(summaries: Iterable[DataSummary], reporter: Reporter) -> None:
    """Tell what data sets hold, in a line for each split.

    Args:
        summaries: of the data sets.
        reporter: gets the lines.
    """
    for number, line in enumerate(line for summary in summaries for line in summary.lines):
        reporter.info("" if number else "data", line)


def percent(share: float) -> str:
    """A share as a percentage with one decimal; one that would be rounded to nothing is said to be below it.

    Args:
        share: in [0, 1].

    Returns:
        Text such as ``12.5 %``.

    Examples:
        >>> percent(0.125), percent(0.0001), percent(0.0)
        ('12.5 %', '< 0.1 %', '0.0 %')
    """
    return "< 0.1 %" if 0 < share < 0.0005 else f"{share:.1%}".replace("%", " %")
