"""The packaged extractor: a selection file and the module that yields exactly its features.

A selection is two files: ``selection.json`` says which model, activations, timesteps and weights; beside it,
``selection.safetensors`` holds the statistics and projections, tied to it by its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from diffsift.backbones import Activation, Backbone, ModelSpecification
from diffsift.backbones import load as load_backbone
from diffsift.errors import SelectionError
from diffsift.spaces import (
    Candidate,
    Selection,
    Standardiser,
    activation_named,
    block_scale,
    catalogue,
    resample_map,
    sample_map,
)

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
    """Write ``selection.json`` at `path` and its tensors beside it.

    Args:
        path: of the JSON file.
        selection: what was chosen.
        models: how to load each backbone, by its name; those that the selection does not use are left out.
        standardisers: of each candidate of the selection.
        identities: what `Backbone.identity` said of each, so that another model under the same id is noticed.
        own_prompts: whether every image comes with a prompt of its own.
        about: anything worth knowing (study, score, protocol), stored as it is.
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
    _replace(tensor_file, blob)
    _replace(path, (json.dumps(document, indent=2) + "\n").encode())


class FeatureExtractor(nn.Module):
    """Turns images into the fused feature of a selection.

    Each backbone runs once per distinct timestep and only as deep as the selection needs. The noise added to an image
    is drawn from its content, so an image gives the same feature at any batch size and place in the batch.

    Args:
        selection: what to extract; every candidate must be of one of the backbones.
        backbones: loaded; all stay in memory.
        standardisers: of each candidate.
        noise_seed: the seed the statistics were measured with.
        own_prompts: whether every image comes with a prompt of its own.

    Examples:
        >>> extractor = FeatureExtractor.from_selection("selection.json")  # doctest: +SKIP
        >>> features = extractor(images)  # (batch, 3, height, width) in [0, 1]  # doctest: +SKIP
    """

    def __init__(
        self,
        selection: Selection,
        backbones: Sequence[Backbone],
        standardisers: Mapping[Candidate, Standardiser],
        *,
        noise_seed: int,
        own_prompts: bool = False,
    ) -> None:
        super().__init__()
        names = [backbone.name for backbone in backbones]
        strangers = {entry.backbone for entry in selection.candidates} - set(names)
        if strangers:
            raise SelectionError(f"all candidates must be of the backbones {names}, but got {sorted(strangers)}.")
        self.selection, self.noise_seed, self.own_prompts = selection, noise_seed, own_prompts
        self.denoisers = nn.ModuleList(backbone.denoiser for backbone in backbones)
        self._wanted: list[tuple[Backbone, dict[int, list[Activation]]]] = []
        for backbone in backbones:
            known, wanted = catalogue(backbone), dict[int, list[Activation]]()
            for candidate in selection.candidates:
                if candidate.backbone == backbone.name:
                    wanted.setdefault(candidate.timestep, []).append(activation_named(candidate.activation, known))
            backbone.check_timesteps(list(wanted))
            self._wanted.append((backbone, wanted))
        self._standardisers = dict(standardisers)
        self.channels = sum(standardisers[candidate].channels for candidate in selection.candidates)

    @classmethod
    def from_selection(
        cls, path: str | Path, *, model: str | None = None, device: str = "auto", verify: bool = True
    ) -> FeatureExtractor:
        """Load the models that a selection file names and the statistics beside the file.

        Args:
            path: of ``selection.json``.
            model: hub id or folder to load instead of the one in the file (say, after a move), where that is one.
            device: ``auto``, ``cpu``, ``cuda``, ...
            verify: refuse a model whose weights, scheduler or size are not those the selection was made with.

        Raises:
            SelectionError: a file is missing, damaged or does not belong to the other, or the model is another one.
            ModelError: the model cannot be loaded.
        """
        file = Path(path)
        document = _read_document(file)
        specifications = _read_models(file, document, device)
        if model is not None:
            if len(specifications) > 1:
                raise SelectionError(f"{file} needs the models {', '.join(specifications)}: one cannot replace them.")
            specifications = {name: given.model_copy(update={"id": model}) for name, given in specifications.items()}
        selection = Selection.from_json(document["members"])
        standardisers = _read_statistics(file, document, selection)
        backbones = []
        for name, specification in specifications.items():
            backbones.append(load_backbone(specification, name=name))
            if verify:
                _check_identity(backbones[-1].identity(), document["backbones"][name], file)
        own_prompts = bool(document.get("own_prompts"))
        return cls(selection, backbones, standardisers, noise_seed=specification.noise_seed, own_prompts=own_prompts)

    @torch.inference_mode()
    def forward(
        self, images: Float[Tensor, "batch 3 height width"], prompts: Sequence[str] | None = None
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The fused feature map on the finest grid of the selection.

        Args:
            images: RGB in [0, 1], of any size; resized to each backbone's size.
            prompts: one per image, where the selection was made with prompts that differ from image to image.

        Raises:
            ValueError: the shape or the range is another, or prompts are missing or too many.
        """
        _check_images(images)
        blocks = self._blocks(images, prompts)
        finest = max((tuple(block.shape[-2:]) for block in blocks), key=lambda size: size[0] * size[1])
        return torch.cat([resample_map(block, (finest[0], finest[1])) for block in blocks], dim=1)

    @torch.inference_mode()
    def features_at(
        self,
        images: Float[Tensor, "batch 3 height width"],
        points: Float[Tensor, "batch points 2"],
        prompts: Sequence[str] | None = None,
    ) -> Float[Tensor, "batch points channels"]:
        """The fused feature at points (x, y) in [0, 1]; 0 and 1 are the outer edges of the image."""
        _check_images(images)
        return torch.cat([sample_map(block, points.to(block.device)) for block in self._blocks(images, prompts)], dim=2)

    def _blocks(self, images: Tensor, prompts: Sequence[str] | None) -> list[Float[Tensor, "batch kept rows columns"]]:
        if self.own_prompts != (prompts is not None) or (prompts is not None and len(prompts) != len(images)):
            needed = f"one prompt for each of {len(images)} images" if self.own_prompts else "no prompts"
            given = "none" if prompts is None else len(prompts)
            raise ValueError(f"this selection must be given {needed}, as it was made, but got {given}.")
        found: dict[Candidate, Tensor] = {}
        for backbone, wanted in self._wanted:
            for timestep, maps in backbone.capture(images, wanted, seed=self.noise_seed, prompts=prompts):
                for name, feature_map in maps.items():
                    candidate = Candidate(backbone.name, name, timestep)
                    standardiser = self._standardisers[candidate].to(feature_map.device)
                    found[candidate] = standardiser.apply(feature_map.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return [
            found[candidate] * block_scale(weight, self._standardisers[candidate].raw_channels)
            for candidate, weight in self.selection.members
        ]


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (batch, 3, height, width), but got {tuple(images.shape)}.")
    if not images.is_floating_point() or images.min() < 0 or images.max() > 1:
        raise ValueError(
            f"images must be floating point in [0, 1], but got {images.dtype} in "
            f"[{images.min().item():g}, {images.max().item():g}]: divide 8-bit images by 255."
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
        raise SelectionError(f"{tensor_file} does not belong to {file}, or was changed: its SHA-256 is another.")
    try:
        tensors = load(blob)
        return {
            candidate: Standardiser(tensors[f"{i}.mean"], tensors[f"{i}.scale"], tensors.get(f"{i}.projection"))
            for i, candidate in enumerate(selection.candidates)
        }
    except (SafetensorError, KeyError) as error:
        raise SelectionError(f"{tensor_file} must hold the statistics of {file}, but does not: {error}.") from error


def _check_identity(found: Mapping[str, Any], expected: Mapping[str, Any], file: Path) -> None:
    # float16 on a GPU and float32 on a CPU give the same features up to rounding: type and digests may differ together.
    rounded = found.get("dtype") != expected.get("dtype")
    ignored = {"dtype", "denoiser", "vae", "conditioning"} if rounded else set()
    differing = sorted(key for key in expected if key not in ignored and found.get(key) != expected[key])
    if differing:
        raise SelectionError(
            f"{file} was made with another model: {', '.join(differing)} must be the same, but differ. Name the right "
            "model, or pass verify=False to use this one all the same."
        )


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
