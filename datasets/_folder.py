"""A data set made of a folder of images and a folder of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from diffsift.common.yaml_files import load_yaml
from diffsift.errors import DataError, SpecificationError

from ._checks import class_names_of, joined_digest, refuse_torn_groups
from ._files import FileDataset, FileLayout, Item, file_digest
from ._image_files import MASK_SUFFIXES, Colour, Exif, check_palette, read_mask
from ._listing import IMAGE_SUFFIXES, files_by_stem, images_in, refuse_partnerless
from ._names import in_form_of
from ._samples import IGNORE, SPLITS, Split
from ._splits import SplitRule

_MAX_LABEL = 2**16 - 1


@dataclass(frozen=True)
class SegmentationFiles:
    """Where the files of a `SegmentationFolder` lie, and how they are to be read.

    Attributes:
        images: folder of images.
        labels: folder of masks, another than `images`.
        prompts: YAML or JSON file that maps every used stem to the prompt of its image; None: there are no prompts.
        label_suffix: what stands behind the image's stem in the stem of its mask, such as ``_mask``.
        palette: where colours of masks stand for classes: (red, green, blue) of each class by id, and one more for
            pixels that are ignored, if any; None: masks hold class ids.
        exif: ``ignore`` leaves images as they are stored, whatever their EXIF orientation says.
    """

    images: Path
    labels: Path
    prompts: Path | None = None
    label_suffix: str = ""
    palette: tuple[Colour, ...] | None = None
    exif: Exif = "turn"


class SegmentationFolder(FileDataset):
    """Images in one folder, masks of the same stems (file names without suffix) in another.

    Images are PNG, JPEG, WebP or BMP, read as RGB: turned upright as EXIF says, grayscale converted, transparent ones
    laid on white. Masks are PNGs or TIFFs of the image's size whose values are class ids (palette, grayscale or 16-bit)
    or colours of a palette. `summary` names hidden files, subfolders and whatever else is left alone.

    With `SeedSplit` every image needs a mask and the other way round; with `ListSplit` and `FileSplit` only what is
    listed is used and looked at.

    Args:
        files: the two folders, and the file with prompts where there is one.
        classes: names of the classes, by class id from 0; or how many there are, 2 to 255.
        split: which files belong to which split.
        ignore: mask value of pixels that do not count, 0 to 65535. A class id may be given, to leave that class out.
        group_separator: what stands in a stem before its last occurrence is the sample's group (``"_"``:
            ``street3_017`` is of group ``street3``); default: each sample is a group of its own.
        allow_absent_classes: whether a class may be absent from the training or test split.

    Raises:
        SpecificationError: an argument is out of range. What is wrong with files is raised by `check` (and by the
            other methods as far as they get) as `DataError`.
    """

    def __init__(
        self,
        files: SegmentationFiles,
        classes: int | Sequence[str],
        split: SplitRule,
        *,
        ignore: int = IGNORE,
        group_separator: str | None = None,
        allow_absent_classes: bool = False,
    ) -> None:
        if not 0 <= ignore <= _MAX_LABEL:
            raise SpecificationError(f"ignore must be a mask value from 0 to {_MAX_LABEL}, but got {ignore}.")
        if group_separator == "":
            raise SpecificationError("group_separator must not be empty; leave it out for one group per image.")
        names = class_names_of(classes)
        check_palette(files.palette, len(names))
        self._images, self._labels, self._prompts_file = Path(files.images), Path(files.labels), files.prompts
        self._suffix, self._palette = files.label_suffix, files.palette
        layout = FileLayout(
            "segmentation-folder",
            "segmentation",
            self._find,
            names,
            ignore=ignore,
            ignored_class=ignore,
            folders=lambda: (self._images, self._labels),
            exif=files.exif,
            allow_absent_classes=allow_absent_classes,
        )
        super().__init__(layout)
        self._rule, self._ignore, self._separator = split, ignore, group_separator

    def content(self) -> dict[str, Any]:
        return {
            "kind": "segmentation-folder",
            "format": 1,
            "classes": len(self.class_names),
            "ignore": self._ignore,
            **({} if self._palette is None else {"palette": [list(colour) for colour in self._palette]}),
            **self._orientation,
            **{split: self._split_digest(split) for split in SPLITS},
        }

    def _item_digest(self, item: Item) -> str:
        """Which suffix the image has does not matter, nor what classes are called."""
        texts = [item.name, item.group] if item.prompt is None else [item.name, item.group, item.prompt]
        files = [file_digest(item.image), file_digest(Path(item.answer))]
        return joined_digest([*(text.encode().hex() for text in texts), *files])

    def _find(self) -> Mapping[Split, Sequence[Item]]:
        images = files_by_stem(self._images, IMAGE_SUFFIXES, "images")
        masks = in_form_of(self._masks(), images)
        if self._images.samefile(self._labels):
            raise DataError(f"images and labels must lie in different folders, but both are {self._images}.")
        images_in(self._images)
        mask_needed = f"an image must have a mask (PNG or TIFF) in {self._labels}"
        if self._rule.covers_all:
            refuse_partnerless(images, set(images) - set(masks), mask_needed, self._labels)
            refuse_partnerless(masks, set(masks) - set(images), f"a mask must have an image in {self._images}")
        splits = self._rule.assign(images.keys(), self._group)
        used = {stem for stems in splits.values() for stem in stems}
        refuse_partnerless(images, used - set(masks), mask_needed, self._labels)
        groups: dict[Split, list[tuple[str, str]]] = {
            split: [(self._group(stem), stem) for stem in splits[split]] for split in SPLITS
        }
        refuse_torn_groups(groups, f"{self._images} with the group_separator {self._separator!r}")
        prompts = self._read_prompts(used)
        read = partial(read_mask, classes=len(self.class_names), ignore=self._ignore, palette=self._palette)

        def item(stem: str) -> Item:
            mask = masks[stem]
            return Item(stem, images[stem], lambda size: read(mask), mask, self._group(stem), prompts.get(stem))

        return {split: [item(stem) for stem in stems] for split, stems in splits.items()}

    def _masks(self) -> dict[str, Path]:
        """Masks by the stem of their image."""
        masks, suffix = files_by_stem(self._labels, MASK_SUFFIXES, "labels"), self._suffix
        return {stem.removesuffix(suffix): file for stem, file in masks.items() if stem.endswith(suffix)}

    def _read_prompts(self, used: set[str]) -> dict[str, str]:
        if self._prompts_file is None:
            return {}
        prompts = in_form_of(read_prompts(self._prompts_file), used)
        missing = sorted(used - set(prompts))
        if missing:
            raise DataError(
                f"{self._prompts_file} must have a prompt for every image that is used, but has none for {missing[0]!r}"
                f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}."
            )
        return prompts

    def _group(self, stem: str) -> str:
        if self._separator is None:
            return stem
        return stem.rpartition(self._separator)[0] or stem


def read_prompts(file: Path) -> dict[str, str]:
    """Prompts by the stem of an image's file name.

    Args:
        file: YAML or JSON.

    Returns:
        The prompts, by stem.

    Raises:
        DataError: the file cannot be read, or is not a mapping of stems to texts.
    """
    try:
        values = load_yaml(file.read_text(encoding="utf-8"))  # JSON is YAML
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} must be YAML or JSON, but cannot be parsed: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise DataError(f"{file} must map stems of image files to prompts, such as 'street3_017: a street at night'.")
    return {str(stem): value for stem, value in values.items()}
