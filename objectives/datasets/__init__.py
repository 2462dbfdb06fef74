"""Readers of labelled images: the built-in digit scenes, folders, lists, published layouts, and rows from Python."""

from ._base import IGNORE, MAX_CLASSES, Dataset, Sample, Samples, Split
from ._class_folders import class_folders
from ._depth_folder import depth_folder
from ._digit_scenes import DigitScenes
from ._files import IMAGE_SUFFIXES
from ._folder import SegmentationFolder, read_prompts
from ._image_files import read_image
from ._layouts import DDPM_SETS, ade20k, cityscapes, ddpm_segmentation, voc
from ._list import listed
from ._mapped import MappedDataset
from ._scenes import CLASS_NAMES, PHOTO_CREDITS, Scene, SceneGenerator
from ._spair import spair
from ._splits import FileSplit, ListSplit, SeedSplit, SplitRule

__all__ = [
    "CLASS_NAMES",
    "DDPM_SETS",
    "IGNORE",
    "IMAGE_SUFFIXES",
    "MAX_CLASSES",
    "PHOTO_CREDITS",
    "Dataset",
    "DigitScenes",
    "FileSplit",
    "ListSplit",
    "MappedDataset",
    "Sample",
    "Samples",
    "Scene",
    "SceneGenerator",
    "SeedSplit",
    "SegmentationFolder",
    "Split",
    "SplitRule",
    "ade20k",
    "cityscapes",
    "class_folders",
    "ddpm_segmentation",
    "depth_folder",
    "listed",
    "read_image",
    "read_prompts",
    "spair",
    "voc",
]
