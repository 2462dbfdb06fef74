"""What a check remembers of each sample: enough to judge and describe a data set without reading it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32
from PIL import Image

from diffsift.common.data_summary import SplitSummary

from ._samples import IGNORE, Label, Sample

THUMBNAIL = 16
"""Edge in px of the thumbnails by which nearly equal images are found."""


@dataclass(frozen=True)
class DepthFacts:
    """The known depths of an image, in metres.

    Attributes:
        low: the smallest.
        median: of all.
        high: the largest.
        at_high: how many are the largest.
        below: the largest but one; 0 where there is one value alone.
    """

    low: float
    median: float
    high: float
    at_high: int
    below: float

    @classmethod
    def of(cls, known: Float32[np.ndarray, "known"]) -> DepthFacts:
        """Those of depths that are known; at least one is."""
        high = known.max()
        others = known[known < high]
        return cls(
            low=float(known.min()),
            median=float(np.median(known)),
            high=float(high),
            at_high=known.size - others.size,
            below=float(others.max()) if others.size else 0.0,
        )


@dataclass(frozen=True)
class SampleFacts:
    """What a check remembers of a sample.

    Attributes:
        name: of the sample.
        group: of the sample.
        digest: of its content.
        size: (height, width) of its image in px.
        thumbnail: its image at `THUMBNAIL` px, RGB.
        counts: pixels of each class id; for classification, its class id with 1.
        values: all values of its label, where it has one per pixel.
        excluded: those that do not count: ignored, or not known.
        is_flat: whether its mask holds one value alone.
        depth: for depth.
    """

    name: str
    group: str
    digest: str
    size: tuple[int, int] = (0, 0)
    thumbnail: bytes = b""
    counts: Mapping[int, int] = field(default_factory=dict, hash=False)
    values: int = 0
    excluded: int = 0
    is_flat: bool = False
    depth: DepthFacts | None = None


def facts_of(sample: Sample, task: str, digest: str) -> SampleFacts:
    """The facts of a sample that was checked."""
    label = sample.label
    small = Image.fromarray(sample.image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    counts: dict[int, int] = {}
    values = excluded = 0
    depth = None
    if task == "segmentation":
        pixels = np.bincount(label.ravel(), minlength=IGNORE + 1)
        values, excluded = label.size, int(pixels[IGNORE])
        counts = {int(number): int(pixels[number]) for number in np.flatnonzero(pixels[:IGNORE])}
    elif task == "classification":
        counts = {int(label): 1}
    elif task in ("depth", "normals"):
        known = np.isfinite(label) if task == "depth" else np.isfinite(label).all(-1)
        values, excluded = known.size, int((~known).sum())
        depth = DepthFacts.of(label[known]) if task == "depth" else None
    return SampleFacts(
        name=sample.name,
        group=sample.group,
        digest=digest,
        size=(sample.image.shape[0], sample.image.shape[1]),
        thumbnail=small.tobytes(),
        counts=counts,
        values=values,
        excluded=excluded,
        is_flat=task == "segmentation" and _is_flat(label),
        depth=depth,
    )


def _is_flat(label: Label) -> bool:
    return bool((label == label.flat[0]).all())


def totals(facts: Sequence[SampleFacts]) -> dict[int, int]:
    """Pixels (or images) of each class id over samples; a class without any is left out."""
    found: dict[int, int] = {}
    for entry in facts:
        for number, count in entry.counts.items():
            found[number] = found.get(number, 0) + count
    return found


def summary_of(split: str, facts: Sequence[SampleFacts], class_names: Sequence[str], pairs: int = 0) -> SplitSummary:
    """What a split holds.

    Args:
        split: its name.
        facts: of its samples; at least one.
        class_names: by class id.
        pairs: of images to match.
    """
    counts, values = totals(facts), sum(entry.values for entry in facts)
    everything = max(1, sum(counts.values()))
    sizes = sorted((entry.size for entry in facts), key=lambda size: (size[0] * size[1], size))
    depths = [entry.depth for entry in facts if entry.depth is not None]
    return SplitSummary(
        name=split,
        images=len(facts),
        groups=len({entry.group for entry in facts}),
        smallest=sizes[0],
        largest=sizes[-1],
        classes={name: counts.get(number, 0) / everything for number, name in enumerate(class_names)},
        excluded=sum(entry.excluded for entry in facts) / values if values else None,
        depth=_depth_range(depths) if depths else None,
        pairs=pairs,
    )


def _depth_range(depths: Sequence[DepthFacts]) -> tuple[float, float, float]:
    typical = float(np.median([entry.median for entry in depths]))
    return min(entry.low for entry in depths), typical, max(entry.high for entry in depths)
