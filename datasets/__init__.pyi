from ._base import IGNORE, MAX_CLASSES, Dataset, Sample, Samples, Split
from ._class_folders import class_folders
from ._depth_folder import depth_folder
from ._digit_rendering import CLASS_NAMES, PHOTO_CREDITS, Scene, SceneGenerator
from ._digit_scenes import DigitScenes
from ._files import IMAGE_SUFFIXES
from ._folder import SegmentationFolder, read_prompts
from ._image_files import read_image
from ._layouts import DDPM_SETS, ade20k, cityscapes, ddpm_segmentation, voc
from ._list import listed
from ._mapped import MappedDataset
from ._spair import spair
from ._splits import FileSplit, ListSplit, SeedSplit, SplitRule
from ._tensors import image_tensors, prompts_of
from .opening import check_splits, open_dataset, searched_on
from .specification import DataSpecification, DigitScenesSpecification, FolderSpecification

__all__ = [
    "CLASS_NAMES",
    "DDPM_SETS",
    "IGNORE",
    "IMAGE_SUFFIXES",
    "MAX_CLASSES",
    "PHOTO_CREDITS",
    "DataSpecification",
    "Dataset",
    "DigitScenes",
    "DigitScenesSpecification",
    "FileSplit",
    "FolderSpecification",
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
    "check_splits",
    "cityscapes",
    "class_folders",
    "ddpm_segmentation",
    "depth_folder",
    "image_tensors",
    "listed",
    "open_dataset",
    "prompts_of",
    "read_image",
    "read_prompts",
    "searched_on",
    "spair",
    "voc",
]
