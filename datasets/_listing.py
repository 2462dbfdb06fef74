"""Files and folders of data sets: what must exist, what lies in a folder, and which files belong together."""

from __future__ import annotations

import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from diffsift.errors import DataError

from ._names import REFUSED, composed, in_form_of, refuse_unreadable_names, shown, some
from ._samples import Split
from ._splits import SeedSplit

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_LITTER = {
    ".directory",
    ".ds_store",
    ".ipynb_checkpoints",
    ".localized",
    "@eadir",
    "__macosx",
    "desktop.ini",
    "ehthumbs.db",
    "thumbs.db",
}
"""What operating systems and their tools leave in folders, in lower case."""

_OF_SYSTEMS = "file(s) of operating systems"
_LEADS_NOWHERE = "link(s) to what is not there"
"""Reasons for which an entry of a folder is not used; ``(s)`` stands for the plural."""


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
    """A file that must exist, in whichever Unicode form its name is; `owner` is what it belongs to, for the message."""
    forms = (path, *(Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD")))
    found = next((form for form in forms if form.is_file()), None)
    if found is None:
        lacks = "it is a link that leads nowhere" if path.is_symlink() else "there is none"
        raise DataError(f"{owner} must have the file {shown(str(path))}, but {lacks}.")
    return found


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder, which must hold one; hidden files are left alone."""
    found = _files_in(folder, IMAGE_SUFFIXES)
    if not found:
        others = left_out([folder], ())
        holds = f"no such file; it holds {'; '.join(others)}" if others else "none"
        raise DataError(f"{folder} must hold images ({', '.join(IMAGE_SUFFIXES)}), but holds {holds}.")
    return found


def left_out(folders: Iterable[Path], used: Iterable[Path]) -> list[str]:
    """What lies in folders and is not used, by the reason.

    Args:
        folders: each is listed once; a folder that holds another one of them is not said to leave that out.
        used: files that are.

    Returns:
        Words such as ``2 .tif files (images/a.tif, images/b.tif)``; litter of operating systems comes last.
    """
    listed, known = list(dict.fromkeys(folders)), set(used)
    suffixes = {file.suffix for file in known}
    by_reason: dict[str, list[str]] = {}
    for folder in listed:
        for entry in sorted(folder.iterdir()):
            if entry not in known and entry not in listed:
                by_reason.setdefault(_reason(entry, suffixes), []).append(f"{shown(folder.name)}/{shown(entry.name)}")
    ordered = sorted(by_reason.items(), key=lambda pair: pair[0] == _OF_SYSTEMS)
    return [
        f"{len(names)} {reason.replace('(s)', '' if len(names) == 1 else 's')} ({some(names)})"
        for reason, names in ordered
    ]


def is_litter(entry: Path) -> bool:
    """Whether a file or folder is one that operating systems and their tools leave behind."""
    return entry.name.lower() in _LITTER or entry.name.startswith("._")


def _reason(entry: Path, suffixes: Container[str]) -> str:
    """Why an entry of a folder is not used; `suffixes` are those of files that are."""
    if is_litter(entry):
        return _OF_SYSTEMS
    if entry.is_symlink() and not entry.exists():
        return _LEADS_NOWHERE
    if entry.is_dir():
        return "folder(s) within folders"
    if entry.name.startswith("."):
        return "hidden file(s)"
    if not entry.is_file():
        return "special file(s)"
    if not entry.suffix:
        return "file(s) without a suffix"
    return f"{shown(entry.suffix.lower())} file(s){' of no split' if entry.suffix in suffixes else ''}"


def _files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files of a folder with one of some suffixes, sorted; hidden ones and links that lead nowhere are left out."""
    entries = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes and path.name[0] != "."]
    refuse_unreadable_names(path.name for path in entries)
    return [path for path in entries if path.is_file()]


def pair_by_stem(images: Path, answers: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, Path]]:
    """Every image of a folder with the file of the same stem that holds its answer; none may be alone."""
    images_in(images)
    pictures = files_by_stem(images, IMAGE_SUFFIXES, "images")
    labels = in_form_of(files_by_stem(answers, suffixes, "answers"), pictures)
    kinds = " or ".join(suffixes)
    refuse_partnerless(
        pictures, set(pictures) - set(labels), f"an image must have a {kinds} file in {answers}", answers
    )
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
    twice = []
    for path in _files_in(folder, suffixes):
        other = files.setdefault(path.stem, path)
        if other is not path:
            twice.append(f"{shown(other.name)} and {shown(path.name)}")
    if twice:
        raise DataError(f"{role} must have different stems, but {folder} holds {some(twice, REFUSED)}.")
    return files


def refuse_partnerless(
    files: Mapping[str, Path], alone: set[str], condition: str, partners: Path | None = None
) -> None:
    """Refuse files that have no partner.

    Args:
        files: by stem.
        alone: stems of those without a partner.
        condition: what must hold, for the message.
        partners: folder in which partners are looked for, where the message should say what is there instead.

    Raises:
        DataError: there are such files.
    """
    if not alone:
        return
    names = [shown(files[stem].name) for stem in sorted(alone)]
    raise DataError(
        f"{condition} of the same stem, but {len(alone)} of {len(files)} {'has' if len(alone) == 1 else 'have'} "
        f"none: {some(names, REFUSED)}{_instead(sorted(alone), partners)}."
    )


def _instead(alone: Sequence[str], folder: Path | None) -> str:
    """What a folder holds for a stem instead of its partner, and what to do."""
    if folder is None:
        return ""
    stem = composed(alone[0])
    for path in sorted(folder.iterdir()):
        name = composed(shown(path.name))
        if not name.startswith(stem) or path.name.startswith("."):
            continue
        rest = path.stem[len(stem) :]
        if path.is_symlink() and not path.exists():
            return f"; {name} is a link that leads nowhere"
        if not rest and path.suffix.lower() in (".jpg", ".jpeg"):
            return f"; {name} is a JPEG, which changes values where it compresses: save it as PNG"
        if not rest:
            return f"; {name} is of another format: convert it"
        if not rest[0].isalnum():
            return f"; is {name} meant? Then set data.label_suffix: {rest!r} (data.kind folder), or rename it"
    return ""
