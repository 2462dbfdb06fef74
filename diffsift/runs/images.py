"""What the command line names as input files: found and judged without loading a model."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from pathlib import Path

from diffsift.errors import DataError, SelectionError, did_you_mean

_PATTERN = set("*?[")


def find_images(named: Sequence[str | Path]) -> list[Path]:
    """The image files that a user names.

    Args:
        named: files, folders (whose images are taken, without subfolders) and patterns such as ``photos/**/*.jpg``.

    Returns:
        Files in the order in which they are named, those of a folder or pattern sorted, each once.

    Raises:
        DataError: a name leads to no image, or two images have the same name without suffix.
    """
    found = list(dict.fromkeys(path for name in named for path in _images_of(str(name))))
    by_stem: dict[str, Path] = {}
    for path in found:
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise DataError(
                f"images must have different stems, but got {path.stem!r} twice ({other} and {path}): the features of "
                "one would overwrite those of the other."
            )
    return found


def require_selection(file: Path) -> None:
    """Refuse what is no selection file, from its JSON alone.

    Args:
        file: of the selection.

    Raises:
        SelectionError: there is no such file, or it is no selection file.
    """
    if not file.is_file():
        beside = [path.name for path in file.parent.glob("*.json")] if file.parent.is_dir() else []
        hint = did_you_mean(file.name, beside) if beside else "."
        raise SelectionError(f"the selection file must exist, but there is no {file}{hint}")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SelectionError(f"{file} must be a selection file, but cannot be read as JSON: {error}.") from error
    if not isinstance(document, dict) or "members" not in document:
        raise SelectionError(f"{file} must be a selection file, but has no members.")


def _images_of(name: str) -> list[Path]:
    from diffsift.datasets import IMAGE_SUFFIXES

    path = Path(name).expanduser()
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        images = [file for file in inside if file.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            raise DataError(f"{path} must hold images ({', '.join(IMAGE_SUFFIXES)}), but holds none.")
        return images
    if path.is_file():
        return [path]
    if not _PATTERN & set(name):
        raise DataError(f"images must exist, but there is no {path}.")
    files = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if Path(match).is_file()]
    if not files:
        raise DataError(f"the pattern {name!r} must match an image, but matches no file.")
    return files
