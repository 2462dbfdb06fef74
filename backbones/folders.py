"""Folders of pipelines, looked at without loading anything."""

from __future__ import annotations

import json
from pathlib import Path

from diffsift.errors import ModelError


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
        ModelError: it reads like a path, and there is no folder with a readable ``model_index.json``.
    """
    path = Path(model).expanduser()
    if not is_path(model):
        return
    if not path.is_dir():
        raise ModelError(f"model.id must be a hub id or an existing folder, but there is no folder {model}.")
    index = path / "model_index.json"
    if not index.is_file():
        raise ModelError(
            f"model.id must be a diffusers pipeline folder with a model_index.json, but {model} has none "
            f"(a single .safetensors checkpoint can be converted with diffusers' from_single_file and save_pretrained)."
        )
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{index} must be JSON, but cannot be parsed: {error}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{index} must be a mapping of pipeline parts, but is a {type(content).__name__}.")
