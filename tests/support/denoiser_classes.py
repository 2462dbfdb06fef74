"""The denoiser classes that diffusers exports, and which of them make no images."""

from __future__ import annotations

import inspect
from pathlib import Path

import diffusers
import yaml
from diffusers.models.modeling_utils import ModelMixin

NOT_IMAGES: dict[str, str] = {
    name: reason
    for reason, names in yaml.safe_load(Path(__file__).with_name("not_images.yaml").read_text()).items()
    for name in names
}


def exported_denoisers() -> set[str]:
    """Denoiser classes that diffusers exports: models in its folders of transformers and U-Nets."""
    parts = {  # of networks, which nobody calls by themselves
        "MotionAdapter",
        "MiniMaxMusic3RVQDepthDecoder",
        "T5FilmDecoder",
    }
    found = set()
    for name in dir(diffusers):
        value = getattr(diffusers, name)
        if inspect.isclass(value) and issubclass(value, ModelMixin):
            package = value.__module__.split(".")[2]
            if package in ("transformers", "unets") and name not in parts:
                found.add(name)
    return found
