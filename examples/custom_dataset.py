"""A data set of one's own, as a kind that specifications can name.

python examples/custom_dataset.py
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from diffsift.datasets import DataKind, Dataset, Sample, Samples, Split, register_dataset


class Squares(Dataset):
    """Bright squares on noise: segmentation into background and square."""

    task, class_names = "segmentation", ("background", "square")

    def __init__(self, images: int) -> None:
        self._images = images

    def split(self, name: Split) -> Samples:
        count = {"train": self._images, "validation": 0, "test": self._images}[name]
        return Samples(self._draw, [f"{name}-{number}" for number in range(count)])

    def _draw(self, name: str) -> Sample:
        rng = np.random.default_rng(list(name.encode()))
        image, label = rng.integers(0, 150, (24, 24, 3), dtype=np.uint8), np.zeros((24, 24), np.uint8)
        top, left = rng.integers(0, 16, 2)
        image[top : top + 8, left : left + 8] += 100
        label[top : top + 8, left : left + 8] = 1
        return Sample(name, image, label, group=name)


class SquaresKind(DataKind):
    """Fields of `data` for this kind, and how the data set is opened."""

    kind: Literal["squares"]
    images: int = Field(default=16, ge=2, description="images of each split")

    def open(self, task: str) -> Dataset:
        return Squares(self.images)


# A package that is installed does this with an entry point of the group diffsift.datasets instead.
register_dataset("squares", SquaresKind)

if __name__ == "__main__":
    import diffsift
    from diffsift.demo import PIPELINE

    values = {"model": {"id": str(PIPELINE)}, "data": {"kind": "squares", "images": 24}}
    result = diffsift.select({**values, "study": {"name": "squares", "trials": 20}}, out="squares.json")
    print(result.outcome.found)
