from ._base import Dataset
from ._class_folders import class_folders
from ._depth_folder import depth_folder
from ._folder import SegmentationFiles, SegmentationFolder, read_prompts
from ._image_files import read_image
from ._judgement import FEW_IMAGES
from ._layouts import ade20k, cityscapes, ddpm_segmentation, voc
from ._list import ListReading, image_list
from ._listing import IMAGE_SUFFIXES
from ._mapped import MappedDataset
from ._normals_folder import normals_folder
from ._published import DDPM_SETS
from ._rendered_scenes import RenderedScenes
from ._samples import IGNORE, MAX_CLASSES, SPLITS, Label, Sample, Samples, Split
from ._spair import spair
from ._splits import FileSplit, ListSplit, SeedSplit, SplitRule
from ._tensors import image_tensors, pixel_tensors, prompts_of
from .opening import check_splits, explaining_refusals, open_dataset, searched_on
from .registry import DATASETS, register_dataset
from .specification import (
    DataKind,
    DataSpecification,
    FolderSpecification,
    PythonSpecification,
    RenderedScenesSpecification,
)

__all__ = [
    "DATASETS",
    "DDPM_SETS",
    "FEW_IMAGES",
    "IGNORE",
    "IMAGE_SUFFIXES",
    "MAX_CLASSES",
    "SPLITS",
    "DataKind",
    "DataSpecification",
    "Dataset",
    "FileSplit",
    "FolderSpecification",
    "Label",
    "ListReading",
    "ListSplit",
    "MappedDataset",
    "PythonSpecification",
    "RenderedScenes",
    "RenderedScenesSpecification",
    "Sample",
    "Samples",
    "SeedSplit",
    "SegmentationFiles",
    "SegmentationFolder",
    "Split",
    "SplitRule",
    "ade20k",
    "check_splits",
    "cityscapes",
    "class_folders",
    "ddpm_segmentation",
    "depth_folder",
    "explaining_refusals",
    "image_list",
    "image_tensors",
    "normals_folder",
    "open_dataset",
    "pixel_tensors",
    "prompts_of",
    "read_image",
    "read_prompts",
    "register_dataset",
    "searched_on",
    "spair",
    "voc",
]
