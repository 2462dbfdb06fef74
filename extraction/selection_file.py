"""Selection files: a selection with the models and statistics that its features need.

A selection is stored in two files: ``selection.json`` names the models, activations, timesteps and weights; beside it,
``selection.safetensors`` holds the statistics and projections. The first holds the SHA-256 of the second, and a
checksum of itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from diffsift.backbones import Backbone, ModelSpecification
from diffsift.backbones.folders import is_path
from diffsift.backbones.registry import DIFFUSERS
from diffsift.backbones.specification import checked_device
from diffsift.common.files import seal_holds, sealed, write_atomically
from diffsift.errors import SelectionError
from diffsift.spaces import Candidate, Selection

from .fusion import Standardiser

FORMAT = 1

_LARGEST_MEAN, _LARGEST_SCALE, _LONGEST_COLUMN = 1e20, 1e13, 1.01
"""Beyond what `Standardiser.fit` gives of any activation; products of such numbers are finite in float32."""


def save_selection(
    path: Path,
    selection: Selection,
    models: Mapping[str, ModelSpecification],
    standardisers: Mapping[Candidate, Standardiser],
    *,
    identities: Mapping[str, Mapping[str, Any]],
    own_prompts: bool = False,
    about: Mapping[str, Any],
) -> None:
    """Write a selection file and its tensors beside it; each of the two is replaced in one step.

    Args:
        path: the JSON file; missing folders are made.
        selection: the selection to store.
        models: how to load each backbone, by its name; those that the selection does not use are left out.
        standardisers: training statistics of each candidate of the selection.
        identities: `Backbone.identity` of each backbone, so that another model under the same id is noticed.
        own_prompts: whether every image comes with its own prompt; False by default.
        about: any further information (study, score, protocol) as JSON, stored as it is.

    Raises:
        OSError: a file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for index, candidate in enumerate(selection.candidates):
        standardiser = standardisers[candidate]
        tensors[f"{index}.mean"], tensors[f"{index}.scale"] = standardiser.mean, standardiser.scale
        if standardiser.projection is not None:
            tensors[f"{index}.projection"] = standardiser.projection.contiguous()
    blob = save(tensors)
    tensor_file = path.with_suffix(".safetensors")
    used = [name for name in models if name in {candidate.backbone for candidate in selection.candidates}]
    document = {
        "format": FORMAT,
        "models": {name: models[name].model_dump(mode="json", exclude={"device", "batch_size"}) for name in used},
        "members": selection.to_json(),
        "own_prompts": own_prompts,
        "statistics": {"file": tensor_file.name, "sha256": hashlib.sha256(blob).hexdigest()},
        "backbones": {name: dict(identities[name]) for name in used},
        "about": dict(about),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(tensor_file, blob)
    write_atomically(path, json.dumps(sealed(document), indent=2) + "\n")


@dataclass(frozen=True)
class SelectionFile:
    """The content of a selection file.

    Attributes:
        path: the JSON file.
        selection: the selection.
        models: how to load each backbone, by its name.
        standardisers: training statistics of each candidate.
        identities: `Backbone.identity` of each backbone when the selection was made.
        own_prompts: whether every image comes with its own prompt.
        about: study, scores and protocol, as they were stored.
    """

    path: Path
    selection: Selection
    models: Mapping[str, ModelSpecification]
    standardisers: Mapping[Candidate, Standardiser]
    identities: Mapping[str, Mapping[str, Any]]
    own_prompts: bool
    about: Mapping[str, Any]

    @property
    def noise_seed(self) -> int:
        """Seed of the noise added to images, the same for all models."""
        return next(iter(self.models.values())).noise_seed

    def verify(self, backbone: Backbone) -> None:
        """Check that a backbone is the one that the selection was made with.

        Args:
            backbone: loaded, under its name in the file. Another dtype is accepted: it changes features by rounding
                only, and digests of weights are not compared then.

        Raises:
            SelectionError: its weights, scheduler or size differ.
        """
        _check_identity(backbone.identity(), self.identities[backbone.name], self.path)

    def permitted_models(
        self, *, model: str | Path | None = None, allow_download: bool = False, allow_pickle: bool = False
    ) -> dict[str, ModelSpecification]:
        """The models, as far as whoever loads them lets the file decide: it may come from a stranger.

        Args:
            model: hub id or folder to load in the place of the file's models; it counts as permitted.
            allow_download: fetch what the file names on the hub. Without it only what is in the hub's cache already is
                loaded.
            allow_pickle: load weights that can run code, where the file asks for them.

        Returns:
            How to load each backbone, by its name.

        Raises:
            SelectionError: the file asks for more than is permitted; the message says how to permit it.
        """
        named = None if model is None else str(model)
        return {
            name: given.model_copy(update=self._permitted(given, named, allow_download, allow_pickle))
            for name, given in self.models.items()
        }

    def _permitted(
        self, given: ModelSpecification, model: str | None, allow_download: bool, allow_pickle: bool
    ) -> dict[str, Any]:
        if given.allow_pickle and not allow_pickle:
            raise SelectionError(
                f"{self.path} asks for weights of {given.id[:100]} that may be pickled, and those can run code when "
                "they are loaded: permit it (allow_pickle=True, --allow-pickle) only if you trust their author."
            )
        if given.kind != DIFFUSERS:
            return {} if model is None else {"id": model}
        found: dict[str, Any] = {"id": model or self._here(given.id, given.revision, allow_download)}
        if given.lora is not None:
            found["lora"] = self._here(given.lora, None, allow_download)
        return found

    def _here(self, name: str, revision: str | None, allow_download: bool) -> str:
        """A folder or file as it is; a hub id too where it may be loaded, or else its folder in the hub's cache.

        Raises:
            SelectionError: it is not in the cache, and nothing may be downloaded.
        """
        if allow_download or is_path(name):
            return name
        try:
            return snapshot_download(name, revision=revision, local_files_only=True)
        except (OSError, ValueError) as error:
            raise SelectionError(
                f"{self.path} names {name[:100]!r} on the hub, which is not in the hub's cache: permit the download "
                "(allow_download=True, --allow-download) if you trust its author, or name a folder (model=..., "
                "--model)."
            ) from error


def read_selection(path: str | Path, *, device: str = "auto") -> SelectionFile:
    """Read a selection file and the statistics beside it; no model is loaded.

    Args:
        path: the JSON file.
        device: device that the models will be loaded on; ``auto`` by default.

    Returns:
        The selection, how to load its models, their identities and the statistics.

    Raises:
        SelectionError: a file is missing or damaged, or the two do not belong together.
    """
    file = Path(path)
    try:
        checked_device(device)
    except ValueError as error:
        raise SelectionError(f"device {error}.") from None
    document, unchanged = _read_document(file)
    selection = Selection.from_json(document.members)
    if {candidate.backbone for candidate in selection.candidates} - set(document.models):
        raise SelectionError(f"{file} must describe the models of all its candidates, but does not.")
    standardisers = _read_statistics(file, document.statistics, selection)
    if not unchanged:
        raise SelectionError(
            f"{file} must be as diffsift wrote it, but was changed: its checksum differs. Restore it; or, where the "
            "change is yours, remove the field 'checksum'."
        )
    return SelectionFile(
        path=file,
        selection=selection,
        models={name: model.model_copy(update={"device": device}) for name, model in document.models.items()},
        standardisers=standardisers,
        identities=document.backbones,
        own_prompts=document.own_prompts,
        about=document.about,
    )


class _Statistics(BaseModel):
    file: str
    sha256: str


class _Document(BaseModel):
    format: int
    models: dict[str, ModelSpecification] = Field(min_length=1)
    members: list[Any]
    own_prompts: bool = False
    statistics: _Statistics
    backbones: dict[str, dict[str, Any]]
    about: dict[str, Any] = {}


def _read_document(file: Path) -> tuple[_Document, bool]:
    """The document, and whether it says what diffsift wrote."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SelectionError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise SelectionError(f"{file} must be a selection file, but is not JSON: {error}.") from error
    if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:
        raise SelectionError(
            f"{file} must be of format {FORMAT}, but is of format {str(values['format'])[:20]}: use the diffsift that "
            "wrote it."
        )
    missing = [
        name
        for name, field in _Document.model_fields.items()
        if field.is_required() and not (isinstance(values, dict) and name in values)
    ]
    if missing:
        raise SelectionError(f"{file} must be a selection file, but has no {', '.join(missing)}.")
    try:
        document = _Document.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        raise SelectionError(
            f"{file} must be a selection file, but {where} is not right: {first['msg'][:200]}."
        ) from None
    if set(document.models) != set(document.backbones):
        raise SelectionError(f"{file} must describe and identify the same models, but does not.")
    return document, seal_holds(values)


def _read_statistics(file: Path, reference: _Statistics, selection: Selection) -> dict[Candidate, Standardiser]:
    tensor_file = file.parent / Path(reference.file).name
    try:
        blob = tensor_file.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SelectionError(
            f"{file} needs {tensor_file.name[:100]} beside it, but it cannot be read ({why}): keep both together."
        ) from error
    if hashlib.sha256(blob).hexdigest() != reference.sha256:
        raise SelectionError(f"{tensor_file} does not belong to {file}, or was changed: its SHA-256 differs.")
    try:
        tensors = load(blob)
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float32 or not tensor.isfinite().all():
                raise ValueError(f"{name} must hold finite float32 numbers, but does not")
        return {
            candidate: _standardiser(tensors, index, candidate) for index, candidate in enumerate(selection.candidates)
        }
    except (SafetensorError, KeyError, ValueError) as error:
        raise SelectionError(f"{tensor_file} must hold the statistics of {file}, but does not: {error}.") from error


def _standardiser(tensors: Mapping[str, Tensor], index: int, candidate: Candidate) -> Standardiser:
    mean, scale, projection = tensors[f"{index}.mean"], tensors[f"{index}.scale"], tensors.get(f"{index}.projection")
    shapes = [tuple(tensor.shape) for tensor in (mean, scale, projection) if tensor is not None]
    fits = mean.ndim == 1 and len(mean) > 0 and mean.shape == scale.shape
    if projection is not None:
        fits = fits and projection.ndim == 2 and 0 < projection.shape[1] <= projection.shape[0] == len(mean)
    if not fits or not (scale > 0).all():
        raise ValueError(
            f"mean and scale of {candidate} must have one number for each channel, those of the scale above 0, and a "
            f"projection at most as many columns, but their shapes are {shapes}"
        )
    columns = mean.new_zeros(1) if projection is None else projection.norm(dim=0)
    if mean.abs().max() > _LARGEST_MEAN or scale.max() > _LARGEST_SCALE or columns.max() > _LONGEST_COLUMN:
        raise ValueError(
            f"mean and scale of {candidate} must be at most {_LARGEST_MEAN:g} and {_LARGEST_SCALE:g}, and columns of a "
            f"projection of length 1, but are up to {mean.abs().max():g}, {scale.max():g} and {columns.max():g}: "
            "features would not be finite"
        )
    return Standardiser(mean, scale, projection)


def _check_identity(found: Mapping[str, Any], expected: Mapping[str, Any], file: Path) -> None:
    # float16 on a GPU and float32 on a CPU give equal features up to rounding: dtype and digests may differ together.
    rounded = found.get("dtype") != expected.get("dtype")
    ignored = {"dtype", "denoiser", "vae", "conditioning"} if rounded else set()
    differing = sorted(key for key in expected if key not in ignored and found.get(key) != expected[key])
    if differing:
        raise SelectionError(
            f"{file} was made with another model: {', '.join(differing)} must be the same, but differ. Name the right "
            "model, or pass verify=False to use this one anyway."
        )
