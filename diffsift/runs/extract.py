"""Features of image files, written as safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from diffsift.common.reporting import Reporter
from diffsift.datasets import image_tensors, read_image, read_prompts
from diffsift.errors import DataError, SelectionError
from diffsift.extraction import FeatureExtractor


def extract_files(
    selection: Path,
    images: Sequence[Path],
    out: Path,
    *,
    model: str | None,
    device: str,
    batch_size: int,
    prompts: Path | None = None,
    reporter: Reporter,
) -> None:
    """Write ``out/<stem>.safetensors`` with a tensor ``features`` (channels, rows, columns) for every image.

    Raises:
        DataError: an image is missing or does not decode, or two share a stem; raised before the model is loaded.
        SelectionError: the selection file cannot be used.
    """
    if not selection.is_file():
        raise SelectionError(f"the selection file must exist, but there is no {selection}.")
    missing = next((path for path in images if not path.is_file()), None)
    if missing is not None:
        raise DataError(f"images must exist, but there is no {missing}.")
    stems = [path.stem for path in images]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise DataError(f"images must have different stems, but got {twice!r} twice: their features would overwrite.")
    for path in images:
        read_image(path)
    told = None if prompts is None else read_prompts(prompts)
    untold = [stem for stem in stems if told is not None and stem not in told]
    if untold:
        raise DataError(f"{prompts} must have a prompt for every image, but has none for {untold[0]!r}.")
    extractor = FeatureExtractor.from_selection(selection, model=model, device=device)
    if extractor.own_prompts != (told is not None):
        raise SelectionError(
            f"{selection} was made with {'a prompt for each image: name their file with' if told is None else 'no'} "
            f"{'--prompts' if told is None else 'prompts of images: leave --prompts out'}."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the folder {out} cannot be made: {error.strerror}.") from error
    shape: tuple[int, ...] = ()
    bar = reporter.progress(len(images), "extract", "image")
    for start in range(0, len(images), batch_size):
        paths = images[start : start + batch_size]
        arrays: list[np.ndarray] = [read_image(path) for path in paths]
        # Images of one shape run together: each backbone resizes them to a size of its own.
        for _, group in groupby(range(len(paths)), key=lambda index: arrays[index].shape):
            together = list(group)
            batch = torch.stack(image_tensors([arrays[index] for index in together]))
            features = extractor(batch, None if told is None else [told[paths[index].stem] for index in together])
            shape = tuple(features.shape[1:])
            bar.update(len(together))
            for index, feature in zip(together, features, strict=True):
                file = out / f"{paths[index].stem}.safetensors"
                save_file({"features": feature.to(torch.float32).cpu().contiguous()}, file)
    bar.close()
    reporter.info("wrote", f"{len(images)} files of (channels, rows, columns) = {shape} to {out}")
