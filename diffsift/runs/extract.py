"""Features of image files, one file each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import save_file
from torch import Tensor

from diffsift.common.reporting import LoggingReporter, Reporter
from diffsift.datasets import image_tensors, read_image, read_prompts
from diffsift.errors import DataError, SelectionError
from diffsift.extraction import FeatureExtractor

from .images import find_images, require_selection

FileFormat = Literal["safetensors", "npy"]


def extract_files(
    selection: str | Path,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    file_format: FileFormat = "safetensors",
    pooled: bool = False,
    model: str | Path | None = None,
    device: str = "auto",
    allow_download: bool = False,
    allow_pickle: bool = False,
    batch_size: int = 8,
    prompts: Path | None = None,
    reporter: Reporter | None = None,
) -> list[Path]:
    """Write the features of images, a file for each image.

    Args:
        selection: the selection file.
        images: files, folders and patterns; see `find_images`.
        out: folder to write to; it is made where it is missing.
        file_format: ``safetensors`` (a tensor ``features``) or ``npy``.
        pooled: write one vector per image instead of a feature map.
        model: hub id or folder to load instead of the one in the selection file.
        device: ``auto``, ``cpu``, ``cuda``, ...
        allow_download: see `FeatureExtractor.from_selection`.
        allow_pickle: see `FeatureExtractor.from_selection`.
        batch_size: images per pass.
        prompts: YAML or JSON file of prompts by stem, where the selection was made with one for each image.
        reporter: see `select`.

    Returns:
        The files, ``out/STEM.safetensors`` or ``.npy``, in the order of the images. Features are float32:
        (channels, rows, columns), or (channels,) where pooled.

    Raises:
        DataError: an image is missing or does not decode, or two share a stem; raised before the model is loaded.
        SelectionError: the selection file cannot be used.
    """
    reporter, folder = reporter or LoggingReporter(), Path(out)
    require_selection(Path(selection))
    files = find_images(images)
    for path in files:
        read_image(path)
    given = None if prompts is None else read_prompts(prompts)
    missing = [path.stem for path in files if given is not None and path.stem not in given]
    if missing:
        raise DataError(f"{prompts} must have a prompt for every image, but has none for {missing[0]!r}.")
    extractor = FeatureExtractor.from_selection(
        selection, model=model, device=device, allow_download=allow_download, allow_pickle=allow_pickle
    )
    if extractor.own_prompts != (given is not None):
        raise SelectionError(
            f"{selection} was made with {'a prompt for each image: name their file with' if given is None else 'no'} "
            f"{'--prompts' if given is None else 'prompts of images: leave --prompts out'}."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be made: {error.strerror}.") from error
    compute, written, shape = extractor.pooled if pooled else extractor, list[Path](), ()
    with reporter.progress(len(files), "extract", "image") as bar:
        for paths, arrays in _batches(files, batch_size):
            texts = None if given is None else [given[path.stem] for path in paths]
            for path, feature in zip(paths, compute(torch.stack(image_tensors(arrays)), texts), strict=True):
                written.append(_write(folder / path.stem, feature.to(torch.float32).cpu(), file_format))
                shape = tuple(feature.shape)
            bar.update(len(paths))
    axes = "(channels)" if pooled else "(channels, rows, columns)"
    reporter.info("wrote", f"{len(written)} files of {axes} = {shape} to {folder}")
    return written


def _batches(files: Sequence[Path], size: int) -> Iterator[tuple[list[Path], list[UInt8[np.ndarray, "_ _ 3"]]]]:
    """Files with their images, of one shape in each batch: each backbone resizes them to a size of its own."""
    for start in range(0, len(files), size):
        loaded = [(path, read_image(path)) for path in files[start : start + size]]
        for _, group in groupby(loaded, key=lambda pair: pair[1].shape):
            together = list(group)
            yield [path for path, _ in together], [array for _, array in together]


def _write(file: Path, feature: Tensor, file_format: FileFormat) -> Path:
    target = file.with_name(f"{file.name}.{file_format}")
    if file_format == "npy":
        np.save(target, feature.numpy())
    else:
        save_file({"features": feature.contiguous()}, target)
    return target
