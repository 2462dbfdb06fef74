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

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from diffsift.backbones import Backbone, ModelSpecification
from diffsift.backbones.specification import checked_device
from diffsift.common.files import seal_holds, sealed, write_atomically
from diffsift.errors import SelectionError
from diffsift.spaces import Candidate, Selection

from .fusion import Standardiser

FORMAT = 1


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
    document = _read_document(file)
    try:
        checked_device(device)
    except ValueError as error:
        raise SelectionError(f"device {error}.") from None
    models = _read_models(file, document, device)
    selection = Selection.from_json(document["members"])
    standardisers = _read_statistics(file, document, selection)
    if not seal_holds(document):
        raise SelectionError(
            f"{file} must be as diffsift wrote it, but was changed: its checksum differs. Restore it; or, where the "
            "change is yours, remove the field 'checksum'."
        )
    return SelectionFile(
        path=file,
        selection=selection,
        models=models,
        standardisers=standardisers,
        identities=document["backbones"],
        own_prompts=bool(document.get("own_prompts")),
        about=document.get("about", {}),
    )


def _read_document(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SelectionError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SelectionError(f"{file} must be a selection file, but is not JSON: {error}.") from error
    if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
        raise SelectionError(
            f"{file} must be of format {FORMAT}, but is of format {document['format']}: use the diffsift that wrote it."
        )
    wanted = ("format", "models", "members", "statistics", "backbones")
    missing = [field for field in wanted if not isinstance(document, dict) or field not in document]
    if missing:
        raise SelectionError(f"{file} must be a selection file, but has no {', '.join(missing)}.")
    return dict(document)


def _read_models(file: Path, document: dict[str, Any], device: str) -> dict[str, ModelSpecification]:
    try:
        models = {
            name: ModelSpecification.model_validate({**fields, "device": device})
            for name, fields in document["models"].items()
        }
    except (ValidationError, AttributeError, TypeError) as error:
        raise SelectionError(f"{file}: every model must be described in full, but: {error}") from error
    if not models or set(models) != set(document["backbones"]):
        raise SelectionError(f"{file} must describe and identify the same models, but does not.")
    return models


def _read_statistics(file: Path, document: dict[str, Any], selection: Selection) -> dict[Candidate, Standardiser]:
    reference = document["statistics"]
    tensor_file = file.parent / Path(str(reference["file"])).name
    try:
        blob = tensor_file.read_bytes()
    except OSError as error:
        raise SelectionError(
            f"{file} needs {tensor_file.name} beside it, but it cannot be read ({error.strerror}): keep both together."
        ) from error
    if hashlib.sha256(blob).hexdigest() != reference["sha256"]:
        raise SelectionError(f"{tensor_file} does not belong to {file}, or was changed: its SHA-256 differs.")
    try:
        tensors = load(blob)
        return {
            candidate: Standardiser(tensors[f"{i}.mean"], tensors[f"{i}.scale"], tensors.get(f"{i}.projection"))
            for i, candidate in enumerate(selection.candidates)
        }
    except (SafetensorError, KeyError) as error:
        raise SelectionError(f"{tensor_file} must hold the statistics of {file}, but does not: {error}.") from error


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
