"""Where a pipeline lies: in a folder, in the hub's cache, or on the hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import transformers
from diffusers import DiffusionPipeline
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from diffsift.errors import ModelError, first_line

from .specification import ModelSpecification


def index_of(model: ModelSpecification) -> Any:
    """The ``model_index.json`` of a folder or of the hub."""
    try:
        return DiffusionPipeline.load_config(model.id, revision=model.revision)
    except Exception as error:
        raise ModelError(_why_not_loaded(model, error)) from error


def folder_of(model: ModelSpecification, *, download: bool = True) -> Path:
    """The folder of a pipeline; one of the hub is downloaded first, or else the one in the hub's cache is meant."""
    path = Path(model.id).expanduser()
    if path.is_dir():
        return path
    try:
        found = DiffusionPipeline.download(
            model.id,
            revision=model.revision,
            variant=model.variant,
            use_safetensors=None if model.allow_pickle else True,
            safety_checker=None,
            local_files_only=not download,
        )
    except Exception as error:
        raise ModelError(_why_not_loaded(model, error)) from error
    return Path(str(found))


def _why_not_loaded(model: ModelSpecification, error: Exception) -> str:
    text = str(error)
    pickled = any(suffix in text for suffix in (".bin", ".pt", ".ckpt"))
    if "safetensors" in text and pickled and not model.allow_pickle:
        return (
            f"the weights of {model.id} must be safetensors files, because pickled ones can run code when they are "
            f"loaded; set model.allow_pickle: true only if you trust their author ({first_line(error)})"
        )
    causes = tuple(_causes(error))
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return f"{model.id} is private or gated on the hub: accept its licence there and log in with `hf auth login`."
    if any(isinstance(cause, RepositoryNotFoundError | RevisionNotFoundError) for cause in causes):
        return f"model.id must name a pipeline on the hub or a folder, but nothing is found under {model.id!r}."
    if any(isinstance(cause, ConnectionError | LocalEntryNotFoundError) for cause in causes):
        return f"{model.id} is neither a folder here nor in the hub's cache, and the hub cannot be reached."
    return f"{model.id} cannot be loaded as a diffusers pipeline: {first_line(error)}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: diffusers wraps errors of the hub's client in its own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Silence advice on other uses (torchvision processors) and progress bars of loading."""
    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        diffusers.utils.logging.enable_progress_bar()
        transformers.utils.logging.enable_progress_bar()
