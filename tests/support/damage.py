"""Harm that is done to folders of pipelines, as downloads, conversions and hands do it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064}\nsize 1000000\n"

NETWORKS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
"""The networks of a tiny Stable Diffusion, and their weight files."""


def edit(file: Path, *, without: tuple[str, ...] = (), **changes: Any) -> None:
    """Change fields of a JSON file."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in content.items() if name not in without}))


def rewrite(file: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Change the tensors of a safetensors file."""
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def cut(file: Path) -> None:
    """Keep the first half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def shard(file: Path) -> list[Path]:
    """Replace a weight file by two shards and their index."""
    tensors = load_file(file)
    names, shards, places = sorted(tensors), [], {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        name = f"{file.stem}-{number:05}-of-00002.safetensors"
        save_file({key: tensors[key] for key in part}, file.with_name(name), metadata={"format": "pt"})
        places |= dict.fromkeys(part, name)
        shards.append(file.with_name(name))
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps(index))
    file.unlink()
    return shards


def first_gone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[name] for name in sorted(tensors)[1:]}


def prefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def one_more(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "surplus.weight": torch.zeros(3)}


def other_shape(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, min(tensors): torch.zeros(3, 2)}
