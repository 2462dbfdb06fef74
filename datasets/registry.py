"""Which kinds of data there are: ours, those of entry points, and those registered from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffsift.common.registry import Registry

if TYPE_CHECKING:
    from .specification import DataKind

_OURS = "diffsift.datasets.specification"

DATASETS: Registry[type[DataKind]] = Registry(
    "data kind",
    "diffsift.datasets",
    {
        "rendered-scenes": f"{_OURS}:RenderedScenesSpecification",
        "folder": f"{_OURS}:FolderSpecification",
        "voc": f"{_OURS}:VocSpecification",
        "ade20k": f"{_OURS}:AdeSpecification",
        "cityscapes": f"{_OURS}:CityscapesSpecification",
        "ddpm-segmentation": f"{_OURS}:DdpmSegmentationSpecification",
        "depth-folder": f"{_OURS}:DepthFolderSpecification",
        "normals-folder": f"{_OURS}:NormalsFolderSpecification",
        "class-folders": f"{_OURS}:ClassFoldersSpecification",
        "spair": f"{_OURS}:SpairSpecification",
        "list": f"{_OURS}:ListSpecification",
        "python": f"{_OURS}:PythonSpecification",
    },
)
"""By ``data.kind``: the class that validates the fields and opens the data set."""


def register_dataset(kind: str, specification: type[DataKind]) -> None:
    """Make a kind of data known as ``data: {kind: ..., ...}`` in this process.

    A package does the same for every process, workers included, with an entry point of the group
    ``diffsift.datasets``.

    Args:
        kind: its name; none of those there are.
        specification: the class that validates the other fields and opens the data set.

    Raises:
        SpecificationError: the name is taken.
    """
    DATASETS.register(kind, specification)
