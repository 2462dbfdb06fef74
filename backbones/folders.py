"""Folders of pipelines, looked at without importing or building anything heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffsift.errors import ModelError

MOST_TIMESTEPS = 10_000
"""Most noise levels of a scheduler: some make tables of their square."""

_LARGEST_SETTING = 10**6
"""Largest whole number in a scheduler's configuration: some make lists of such a length."""

_READ_BY_LOADERS = (
    "config.json",
    "scheduler_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    "vocab.json",
)

_UNUSED = ("safety_checker",)
"""Parts that are never loaded."""


def is_path(model: str) -> bool:
    """Whether a name is one of a file or folder, not a hub id: there is one, or it reads like one.

    Args:
        model: as a specification gives it.
    """
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model:
        return True
    try:
        return Path(model).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a path, say
        return False


def check_model_folder(model: str) -> None:
    """Refuse a path that leads to no pipeline: diffusers would look for it on the hub.

    Args:
        model: hub id or folder; of a hub id nothing is checked.

    Raises:
        ModelError: it reads like a path, and there is no folder with a whole ``model_index.json``.
    """
    path = Path(model).expanduser()
    if not is_path(model):
        return
    if not path.is_dir():
        raise ModelError(f"model.id must be a hub id or an existing folder, but there is no folder {model}.")
    if not (path / "model_index.json").is_file():
        raise ModelError(
            f"model.id must be a diffusers pipeline folder with a model_index.json, but {model} has none "
            f"(a single .safetensors checkpoint can be converted with diffusers' from_single_file and save_pretrained)."
        )
    read_index(path)


def read_index(folder: Path) -> dict[str, Any]:
    """A pipeline's ``model_index.json``, checked for what every one has.

    Args:
        folder: of the pipeline.

    Returns:
        Its content.

    Raises:
        ModelError: it is not JSON, names no pipeline, or has a part that is not [library, class].
    """
    file = folder / "model_index.json"
    index = _read_mapping(file)
    if not isinstance(index.get("_class_name"), str | list):
        raise ModelError(f"{file} must name the pipeline's class in _class_name: it is half-written; fetch it again.")
    for name, value in index.items():
        # Settings of a pipeline stand beside its parts; a part has a folder or a list of two.
        if name.startswith("_") or not ((folder / name).is_dir() or isinstance(value, list)):
            continue
        pair = value if isinstance(value, list) and len(value) == 2 else [value, 0]
        if pair != [None, None] and not all(isinstance(entry, str) for entry in pair):
            raise ModelError(
                f"{name} in {file} must be [library, class] or [null, null], but is {str(value)[:60]}: fetch the file "
                "again."
            )
    return index


def parts_of(index: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The parts that a pipeline is loaded with.

    Args:
        index: from `read_index`.

    Returns:
        Library and class of each part, by its name, which is that of its folder too.
    """
    return {
        name: (value[0], value[1])
        for name, value in index.items()
        if name[0] != "_" and name not in _UNUSED and isinstance(value, list) and value[0] is not None
    }


def check_parts(folder: Path, parts: dict[str, tuple[str, str]]) -> None:
    """Refuse a pipeline of which a part's folder or a configuration is missing, damaged or absurd.

    Args:
        folder: of the pipeline.
        parts: from `parts_of`.

    Raises:
        ModelError: naming the part and its file.
    """
    for name in parts:
        if not (folder / name).is_dir():
            raise ModelError(
                f"{folder} must hold {name}, as its model_index.json says, but has no folder {name}: it was not wholly "
                "downloaded or copied."
            )
        for file in sorted(entry for entry in (folder / name).iterdir() if entry.name in _READ_BY_LOADERS):
            _read_mapping(file)
    for name in parts:
        _check_scheduler(folder / name / "scheduler_config.json")


def is_pointer(file: Path) -> bool:
    """Whether a file is a pointer of git-lfs, in place of what it points to.

    Args:
        file: that exists.
    """
    with file.open("rb") as content:
        start = content.read(200)
    return start.startswith(b"version ") and b"\noid sha256:" in start


def refuse_pointer(file: Path) -> None:
    """Refuse a pointer of git-lfs.

    Args:
        file: that exists.

    Raises:
        ModelError: it is one.
    """
    if is_pointer(file):
        raise ModelError(
            f"{file} is a git-lfs pointer, not the file itself: run 'git lfs pull' in the folder, or download it again."
        )


def _read_mapping(file: Path) -> dict[str, Any]:
    refuse_pointer(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ModelError(f"{file} must be JSON, but cannot be parsed ({reason}): download it again.") from None
    if not isinstance(content, dict):
        raise ModelError(f"{file} must be a JSON mapping, but is a {type(content).__name__}: download it again.")
    return content


def _check_scheduler(file: Path) -> None:
    if not file.is_file():
        return
    for name, value in _read_mapping(file).items():
        most = MOST_TIMESTEPS if name == "num_train_timesteps" else _LARGEST_SETTING
        if isinstance(value, int) and value > most:
            raise ModelError(f"{name} in {file} must be at most {most}, but is {str(value)[:40]}.")
