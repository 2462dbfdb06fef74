"""Classes, ignored values and numbers of images of published data sets; nothing is imported to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ._samples import Split

VOC_CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]

CITYSCAPES_CLASSES = {  # name: label id, in the order of the training ids
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}

ADE_CLASSES = 150


@dataclass(frozen=True)
class DdpmSet:
    """Constants of one of the sets of Baranchuk et al. (ICLR 2022).

    Attributes:
        classes: ids in the label files, from 0; the ignored one counts as well.
        ignore: label that does not count.
        images: of the published protocol, by split.
        label_size: edge to which the protocol brings labels (and features).
    """

    classes: int
    ignore: int
    images: Mapping[Split, int]
    label_size: int = 256


DDPM_SETS = {
    "horse-21": DdpmSet(21, 255, {"train": 30, "test": 30}),
    "cat-15": DdpmSet(15, 255, {"train": 30, "test": 20}),
    "bedroom-28": DdpmSet(29, 0, {"train": 40, "test": 20}),  # 28 classes count: id 0 is the background
    "ffhq-34": DdpmSet(34, 255, {"train": 20, "test": 20}),
    "celeba-19": DdpmSet(19, 255, {"train": 20, "test": 500}),
    "ade-bedroom-30": DdpmSet(30, 255, {"train": 50, "test": 650}),
}
