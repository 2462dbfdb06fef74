"""The weight files of a network, looked at before it is built: there, whole, and of the kind that is trusted."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from diffsift.errors import ModelError

from .folders import parts_of, read_index, refuse_pointer

_SAFE, _PICKLE = "safetensors", "bin"

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types of weights by their names in a safetensors file; others hold quantised weights."""


@dataclass(frozen=True)
class WeightFiles:
    """The files that a network is loaded from.

    Attributes:
        files: all shards, or the only file.
        variant: the file variant they are of; None for plain ones.
        tensors: how many tensors they hold; None for pickles, which are not read before they are loaded.
    """

    files: tuple[Path, ...]
    variant: str | None
    tensors: int | None

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of the first weight matrix; None where there is none, and for pickles."""
        if self.tensors is None:
            return None
        with safe_open(self.files[0], framework="pt") as content:
            matrices = (content.get_slice(name) for name in content.keys())  # noqa: SIM118 - no mapping
            found = next((entry.get_dtype() for entry in matrices if len(entry.get_shape()) > 1), None)
        return None if found is None else _DTYPES.get(found)


def find_weights(folder: Path, stems: dict[str, str], *, variant: str | None, allow_pickle: bool) -> WeightFiles:
    """Find the weight files that a loader will take, and check that they are whole.

    Args:
        folder: of the network.
        stems: the name of a file without suffixes, by its last suffix: ``safetensors`` or ``bin``.
        variant: wanted file variant, such as fp16; plain files are taken where it is not there, as diffusers does.
        allow_pickle: whether pickles may be taken where there are no safetensors.

    Returns:
        The files.

    Raises:
        ModelError: there are none, a shard is missing, one is damaged, or only pickles or other variants are there.
    """
    for suffix in (_SAFE, _PICKLE) if allow_pickle else (_SAFE,):
        for name in dict.fromkeys((variant, None)):
            files = _files_of(folder, stems[suffix], suffix, name)
            if files:
                tensors = [check_weights(file) for file in files]
                return WeightFiles(files, name, None if None in tensors else sum(count or 0 for count in tensors))
    raise ModelError(_why_none(folder, stems, allow_pickle))


def _files_of(folder: Path, stem: str, suffix: str, variant: str | None) -> tuple[Path, ...]:
    """The only file, or all shards; none where there is neither."""
    inner = "" if variant is None else f".{variant}"
    index = folder / f"{stem}.{suffix}.index{inner}.json"
    single = folder / f"{stem}{inner}.{suffix}"
    if single.is_file():
        return (single,)
    if not index.is_file():
        return ()
    refuse_pointer(index)
    try:
        shards = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(f"{index} must list the shards of the weights, but is damaged: download it again.") from None
    lacking = [name for name in shards if not (folder / name).is_file()]
    if lacking or not shards:
        names = ", ".join(lacking[:3]) or "all shards"
        raise ModelError(
            f"{folder} must hold the {len(shards)} shards that {index.name} lists, but lacks {names}: the download is "
            "not complete; download the folder again."
        )
    return tuple(folder / name for name in shards)


def check_weights(file: Path) -> int | None:
    """Check that a file of weights is whole.

    Args:
        file: that exists.

    Returns:
        How many tensors it holds; None for a pickle, which is not read before it is loaded.

    Raises:
        ModelError: it is empty, cut off, damaged, or a pointer of git-lfs.
    """
    refuse_pointer(file)
    if file.stat().st_size == 0:
        raise ModelError(f"{file} is empty: the download was interrupted; download it again.")
    if file.suffix != f".{_SAFE}":
        return None
    try:
        with safe_open(file, framework="pt") as content:
            return len(content.keys())
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file} is damaged or not wholly downloaded ({str(error)[:80]}): download it again."
        ) from error


def damaged_weights(folder: Path) -> str:
    """What is wrong with the weights of a pipeline's folder, as far as headers and lists of shards tell.

    Args:
        folder: of the pipeline; it may hold configurations alone.

    Returns:
        A sentence on the first file that a search would refuse; empty where there is none.
    """
    for part in parts_of(read_index(folder)):
        try:
            for file in sorted((folder / part).glob(f"*.{_SAFE}")):
                check_weights(file)
            for index in sorted((folder / part).glob(f"*.{_SAFE}.index*.json")):
                stem, _, inner = index.name.removesuffix(".json").partition(f".{_SAFE}.index")
                _files_of(folder / part, stem, _SAFE, inner.removeprefix(".") or None)
        except ModelError as error:
            return str(error)
    return ""


def _why_none(folder: Path, stems: dict[str, str], allow_pickle: bool) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    wanted = f"{stems[_SAFE]}.{_SAFE}"
    others = sorted(
        {
            found[1]
            for name in names
            for pattern in (r"\.(\w+)(?:-\d+-of-\d+)?\.safetensors", r"\.safetensors\.index\.(\w+)\.json")
            if (found := re.fullmatch(re.escape(stems[_SAFE]) + pattern, name)) and found[1] != "index"
        }
    )
    if others:
        one = " or ".join(others)
        return f"{folder} must hold {wanted}, but there are only {one} files: set model.variant: {others[0]}."
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickles and not allow_pickle:
        return (
            f"the weights in {folder} must be safetensors files, because pickled ones can run code when they are "
            f"loaded, but are {pickles[0]}: set model.allow_pickle: true only if you trust their author."
        )
    there = [name for name in names if name.endswith(f".{_SAFE}")]
    beside = f" (there is {there[0]})" if there else ""
    return f"{folder} must hold the weights {wanted}, but does not{beside}: download the folder again."
