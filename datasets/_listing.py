"""Files and folders of data sets: what must exist, what lies in a folder, and which files belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from diffsift.errors import DataError

from ._samples import Split
from ._splits import SeedSplit

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_SHOWN = 3  # files listed in a message


@runtime_checkable
class Grouped(Protocol):
    """What can be split at random: it has a name, and a group that stays together."""

    @property
    def name(self) -> str: ...

    @property
    def group(self) -> str: ...


GroupedItem = TypeVar("GroupedItem", bound=Grouped)


def split_by_fractions(
    items: Sequence[GroupedItem], fractions: tuple[float, float, float], seed: int
) -> dict[Split, list[GroupedItem]]:
    """Items split at random by seed, whole groups at a time."""
    by_name = {item.name: item for item in items}
    assigned = SeedSplit(fractions, seed).assign(by_name.keys(), lambda name: by_name[name].group)
    return {split: [by_name[name] for name in names] for split, names in assigned.items()}


def require_folder(root: Path, *parts: str) -> Path:
    """A folder that must exist."""
    found = root.joinpath(*parts)
    if not found.is_dir():
        inner = sorted(root.glob("/".join(("*", *parts)))) if root.is_dir() and parts else []
        hint = f"; is the root {root / inner[0].relative_to(root).parts[0]}?" if inner else "."
        raise DataError(f"the data set in {root} must have the folder {'/'.join(parts) or '.'}, but has none{hint}")
    return found


def read_lines(file: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file} must list the images of a split, but cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} must list the images of a split in UTF-8, but does not: {error}.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def require_file(path: Path, owner: str) -> Path:
    """A file that must exist; `owner` is what it belongs to, for the message."""
    if not path.is_file():
        raise DataError(f"{owner} must have the file {path}, but there is none.")
    return path


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder, which must hold one; hidden files are left alone."""
    found = sorted(
        file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    )
    if not found:
        raise DataError(f"{folder} must hold images ({', '.join(IMAGE_SUFFIXES)}), but holds none.")
    return found


def pair_by_stem(images: Path, answers: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, Path]]:
    """Every image of a folder with the file of the same stem that holds its answer; none may be alone."""
    images_in(images)
    pictures = files_by_stem(images, IMAGE_SUFFIXES, "images")
    labels = files_by_stem(answers, suffixes, "answers")
    kinds = " or ".join(suffixes)
    refuse_partnerless(pictures, set(pictures) - set(labels), f"an image must have a {kinds} file in {answers}")
    refuse_partnerless(
        labels, set(labels) - set(pictures), f"a {kinds} file in {answers} must have an image in {images}"
    )
    return [(picture, labels[stem]) for stem, picture in pictures.items()]


def files_by_stem(folder: Path, suffixes: tuple[str, ...], role: str) -> dict[str, Path]:
    """Files of a folder by their name without suffix, sorted; hidden ones are left alone."""
    if not folder.is_dir():
        raise DataError(
            f"the folder of {role} must exist, but {folder} {'is a file' if folder.exists() else 'does not'}."
        )
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in files:
            raise DataError(
                f"{role} must have different stems, but {folder} holds {files[path.stem].name} and {path.name}."
            )
        files[path.stem] = path
    return files


def refuse_partnerless(files: dict[str, Path], alone: set[str], condition: str) -> None:
    """Raise `DataError` with the names of files that have no partner."""
    if alone:
        shown = ", ".join(files[stem].name for stem in sorted(alone)[:_SHOWN])
        more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
        raise DataError(
            f"{condition} of the same stem, but {len(alone)} of {len(files)} {'has' if len(alone) == 1 else 'have'} "
            f"none: {shown}{more}."
        )
