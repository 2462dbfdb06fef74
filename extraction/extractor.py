"""The feature extractor: a module that computes exactly the features of a selection file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffsift.backbones import Activation, Backbone, DigestCache, owner_of
from diffsift.backbones import load as load_backbone
from diffsift.errors import SelectionError
from diffsift.spaces import Candidate, Selection, activations_by_timestep

from .fusion import Fusion, Standardiser, pool, resample_map, sample_map
from .selection_file import read_selection

_DIGESTS = DigestCache()
"""So that a second extractor of a process does not hash the same files again."""


class FeatureExtractor(nn.Module):
    """Turns images into the fused feature of a selection.

    Each backbone runs once per distinct timestep and noise draw, only as deep as the selection needs. The noise added
    to an image is drawn from its content, so an image has the same feature in any batch.

    Args:
        selection: what to extract.
        backbones: the loaded backbones of all candidates; all stay in memory.
        standardisers: training statistics of each candidate.
        noise_seed: the noise seed that the statistics were measured with.
        own_prompts: whether every image comes with its own prompt; False by default.

    Attributes:
        channels: channels of the fused feature.

    Raises:
        SelectionError: a candidate is of none of the backbones.
        ModelError: a timestep is out of range.

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
        names = [str(backbone.name) for backbone in backbones]
        missing = {entry.backbone for entry in selection.candidates} - set(names)
        if missing:
            raise SelectionError(f"all candidates must be of the backbones {names}, but got {sorted(missing)}.")
        self.selection, self.noise_seed, self.own_prompts = selection, noise_seed, own_prompts
        # Variants of a model use one denoiser.
        self.denoisers = nn.ModuleList(dict.fromkeys(backbone.denoiser for backbone in backbones))
        self._wanted: list[tuple[Backbone, dict[int, list[Activation]]]] = []
        for backbone in backbones:
            if selection.has_attention_maps:
                backbone.place_attention_maps()
            known = {entry.name: entry for entry in backbone.activations()}
            wanted = activations_by_timestep(selection.candidates, backbone.name, known)
            backbone.check_timesteps(list(wanted))
            self._wanted.append((backbone, wanted))
            _check_channels(backbone, known, standardisers)
        self._fusion = Fusion(selection, standardisers)
        self.channels = self._fusion.channels

    @classmethod
    def from_selection(
        cls,
        path: str | Path,
        *,
        model: str | Path | None = None,
        device: str = "auto",
        verify: bool = True,
        allow_download: bool = False,
        allow_pickle: bool = False,
    ) -> FeatureExtractor:
        """Load the models that a selection file names, and the statistics beside the file.

        The file decides nothing about trust: what it asks for is loaded only as far as the last two arguments permit.

        Args:
            path: the selection file, such as ``selection.json``.
            model: hub id or folder to load instead of the one in the file (after a move, say); only where the file
                names one model or variants of one.
            device: ``cpu``, ``cuda``, ...; ``auto`` (the default) is the first GPU, or else the CPU.
            verify: whether to refuse a model whose weights, scheduler or size differ from those that the selection was
                made with; True by default.
            allow_download: whether models and LoRA weights that the file names on the hub may be downloaded; False by
                default: only what is in the hub's cache already is loaded.
            allow_pickle: whether weights that can run code may be loaded where the file asks for them; False by
                default.

        Returns:
            An extractor that gives the features which the selection was scored on.

        Raises:
            SelectionError: a file is missing, damaged or does not belong to the other, the model is another one, or the
                file asks for more than is permitted.
            ModelError: the model cannot be loaded.
        """
        file = read_selection(path, device=device)
        if model is not None and len({owner_of(name, file.models) for name in file.models}) > 1:
            raise SelectionError(
                f"{path} needs the models {', '.join(file.models)}: a single model cannot replace them."
            )
        specifications = file.permitted_models(model=model, allow_download=allow_download, allow_pickle=allow_pickle)
        backbones: dict[str, Backbone] = {}
        for name, specification in specifications.items():
            beside = backbones.get(owner_of(name, specifications))
            backbones[name] = load_backbone(specification, name=name, beside=beside, digests=_DIGESTS)
            if verify:
                file.verify(backbones[name])
        return cls(
            file.selection,
            list(backbones.values()),
            file.standardisers,
            noise_seed=file.noise_seed,
            own_prompts=file.own_prompts,
        )

    @torch.inference_mode()
    def forward(
        self, images: Float[Tensor, "batch 3 height width"], prompts: Sequence[str] | None = None
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The fused feature map on the finest grid of the selection.

        Args:
            images: RGB in [0, 1], of any size; resized to each backbone's size.
            prompts: one per image, where the selection was made with a prompt for each image.

        Returns:
            Features in float32; their rows and columns are those of the selection's finest activation.

        Raises:
            ValueError: images have another shape or range.
            SelectionError: the number of prompts is not what the selection needs.
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
        """The fused feature at points of each image.

        Args:
            images: RGB in [0, 1], of any size; resized to each backbone's size.
            points: (x, y) in [0, 1] for each image; 0 and 1 are its outer edges.
            prompts: one per image, where the selection was made with a prompt for each image.

        Returns:
            Features in float32, sampled bilinearly.

        Raises:
            ValueError: images have another shape or range.
            SelectionError: the number of prompts is not what the selection needs.
        """
        _check_images(images)
        return torch.cat([sample_map(block, points.to(block.device)) for block in self._blocks(images, prompts)], dim=2)

    @torch.inference_mode()
    def pooled(
        self, images: Float[Tensor, "batch 3 height width"], prompts: Sequence[str] | None = None, *, side: int = 8
    ) -> Float[Tensor, "batch channels"]:
        """One feature for each image, pooled as in classification.

        Args:
            images: RGB in [0, 1], of any size; resized to each backbone's size.
            prompts: one per image, where the selection was made with a prompt for each image.
            side: features are pooled over a regular grid of side x side locations. The search used the largest square
                up to ``bank.pixels_per_image``: a side of 8, the default here, for its default of 64.

        Returns:
            Features in float32: the mean over locations, or for attention maps the standard deviation.

        Raises:
            ValueError: images have another shape or range.
            SelectionError: the number of prompts is not what the selection needs.
        """
        _check_images(images)
        found = []
        for candidate, block in zip(self.selection.candidates, self._blocks(images, prompts), strict=True):
            found.append(pool(resample_map(block, (side, side)).flatten(2).transpose(1, 2), candidate.activation))
        return torch.cat(found, dim=1)

    def _blocks(self, images: Tensor, prompts: Sequence[str] | None) -> list[Float[Tensor, "batch _ rows columns"]]:
        """Each candidate's part of the fused feature on its own grid, in the order of the selection."""
        if self.own_prompts != (prompts is not None) or (prompts is not None and len(prompts) != len(images)):
            needed = f"one prompt for each of {len(images)} images" if self.own_prompts else "no prompts"
            given = "none" if prompts is None else len(prompts)
            raise SelectionError(f"this selection needs {needed}, as in its search, but got {given}.")
        blocks: dict[Candidate, Tensor] = {}
        for backbone, wanted in self._wanted:
            for timestep, maps in backbone.capture(images, wanted, seed=self.noise_seed, prompts=prompts):
                for name, feature_map in maps.items():
                    candidate = Candidate(backbone.name, name, timestep)
                    block = self._fusion.block(candidate, feature_map.permute(0, 2, 3, 1))
                    blocks[candidate] = block.permute(0, 3, 1, 2)
        return [blocks[candidate] for candidate in self.selection.candidates]


def _check_channels(
    backbone: Backbone, known: Mapping[str, Activation], standardisers: Mapping[Candidate, Standardiser]
) -> None:
    """Refuse statistics of another number of channels, which would be broadcast or fail at the first image.

    Raises:
        SelectionError: they do not fit an activation.
    """
    for candidate, standardiser in standardisers.items():
        channels = known[candidate.activation].channels if candidate.backbone == backbone.name else 0
        if channels and channels != standardiser.raw_channels:
            raise SelectionError(
                f"the statistics of {candidate} must be of its {channels} channels, but are of "
                f"{standardiser.raw_channels}."
            )


def _check_images(images: Tensor) -> None:
    """Refuse anything but a batch of RGB images in [0, 1]: features of 8-bit values would be wrong without an error.

    Raises:
        ValueError: the shape, the type or the range is another.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (batch, 3, height, width), but got {tuple(images.shape)}.")
    if not images.is_floating_point() or images.min() < 0 or images.max() > 1:
        raise ValueError(
            f"images must be floating point in [0, 1], but got {images.dtype} in "
            f"[{images.min().item():g}, {images.max().item():g}]: divide 8-bit images by 255."
        )
