"""The abstract backbone: a network with what is needed to run it on an image."""

from __future__ import annotations

import gc
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffsift.common.reporting import LOGGER
from diffsift.errors import ModelError

from ._catalogue import complete_by_running
from ._resizing import Resize, crop_content, resize_images
from .activation import Activation, ActivationsByTimestep
from .capture import Capture, as_map
from .operations import operations_of

Part = TypeVar("Part")


class Backbone(ABC):
    """A network that turns images into activations at chosen noise levels.

    The life of a backbone: `load` makes it, once per process. A run asks for its `activations` (the catalogue) and its
    `identity`, checks timesteps with `check_timesteps`, and then calls `capture` for batch after batch. `capture`
    resizes the images, calls `encode` once for a batch and `denoise` once for each timestep and noise draw, with what
    `condition` returned, while hooks on `denoiser` read the activations.

    A subclass sets the attributes and implements `encode`, `denoise` and `identity`. It overrides `condition` where the
    network takes more than the image, `activations` where its catalogue cannot be read off a U-Net or transformer, and
    `untrained` where the same network can be made with random weights. `register_backbone` makes it known;
    `diffsift.testing.backbone.BackboneContract` tests it.

    Attributes:
        name: unique within a study.
        denoiser: the module whose activations are captured, in eval mode and without gradients.
        image_size: height and width in pixels that images are resized to.
        train_timesteps: number of noise levels T; timesteps are 0 (clean) to T - 1. 1 for a network without noise.
        resize: how images are brought to `image_size`: ``stretch`` (the default) or ``pad``.
        noise_seeds: number of noise draws that features are averaged over, 1 by default.
        noise_shared: whether all images get the same noise, instead of one each from their content (the default).
    """

    name: str
    denoiser: nn.Module
    image_size: tuple[int, int]
    train_timesteps: int
    resize: Resize = "stretch"
    noise_seeds: int = 1
    noise_shared: bool = False
    _activations: tuple[Activation, ...] = ()
    _largest_batch: int | None = None
    """Images that run together since memory ran out with more."""

    @abstractmethod
    def encode(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch latent_channels rows columns"]:
        """The denoiser's clean input.

        Args:
            images: RGB in [0, 1], of `image_size`, on `device`.
        """

    def condition(self, batch: int, prompts: Sequence[str] | None = None) -> dict[str, Any]:
        """The arguments of `denoise` beside image and timestep; by default there are none, whatever the prompts.

        Args:
            batch: number of images.
            prompts: one per image, in place of the backbone's own; None uses that.

        Returns:
            What `denoise` is given as `conditioning`.

        Raises:
            ModelError: prompts cannot be encoded together.
        """
        return {}

    @abstractmethod
    def denoise(
        self,
        clean: Float[Tensor, "batch latent_channels rows columns"],
        noise: Float[Tensor, "batch latent_channels rows columns"],
        timestep: int,
        conditioning: dict[str, Any],
    ) -> None:
        """Noise the clean input and run the denoiser once; its output is not used.

        Args:
            clean: what `encode` returned.
            noise: standard normal.
            timestep: noise level, from 0 to `train_timesteps` - 1.
            conditioning: what `condition` returned.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that decides the value of a feature, as JSON.

        Returns:
            Equal for two backbones exactly when their features are equal: digests of weights, conditioning, noise
            schedule, image size. Names and paths do not belong here. The bank and saved selections rely on it.
        """

    def activations(self) -> tuple[Activation, ...]:
        """The catalogue, in the order in which a pass reaches the activations.

        It is read off the denoiser's module tree and completed by three passes, the first time only.

        Returns:
            All activations; those that cannot be captured give the reason in `Activation.unreadable`.

        Raises:
            ModelError: the denoiser has none.
        """
        if not self._activations:
            run, input_size = self._single_passes()
            self._activations = complete_by_running(self.denoiser, run, input_size)
        return self._activations

    @property
    def can_be_untrained(self) -> bool:
        """Whether the class implements `untrained`."""
        return type(self).untrained is not Backbone.untrained

    def untrained(self, *, name: str, seed: int = 0) -> Backbone:
        """The same network with random weights, a control in the final table; left out where it is not implemented.

        Args:
            name: of the new backbone.
            seed: of the random weights, 0 by default.

        Returns:
            A backbone that differs in the weights of the denoiser alone.

        Raises:
            ModelError: the class does not implement it.
        """
        raise ModelError(f"{self.name} cannot be given random weights: {type(self).__name__} does not implement it.")

    def operations(self) -> int:
        """Operations of a whole pass on one image, two for each multiply-add; 0 where they cannot be counted."""
        run, _ = self._single_passes()
        return operations_of(lambda: run(0))

    def activations_in_passes_of(self, other: Backbone) -> tuple[Activation, ...]:
        """The catalogue with `Activation.operations` in whole passes of another backbone.

        Args:
            other: the backbone whose whole pass on one image is the unit, such as this one at a smaller image size.
        """
        whole, unit = self.operations(), other.operations()
        ratio = whole / unit if unit else 0.0
        return tuple(
            replace(entry, operations=None if entry.operations is None or not ratio else entry.operations * ratio)
            for entry in self.activations()
        )

    def input_identity(self) -> dict[str, Any]:
        """Image size and resizing as JSON, a part of every `identity`."""
        ways = {"stretch": "stretch, bicubic, antialiased", "pad": "fit and pad with grey, bicubic, antialiased"}
        return {"image_size": list(self.image_size), "resize": ways[self.resize]}

    @property
    def device(self) -> torch.device:
        """The device that images are moved to; by default that of the denoiser's parameters."""
        return next(self.denoiser.parameters(), torch.empty(0)).device

    def timestep_of(self, level: int | float) -> int:
        """Convert a noise level of the specification to a timestep.

        Args:
            level: a whole number is a timestep; a fraction is a share of all noise levels, and with flow matching also
                the share of noise in the noised image.

        Returns:
            The timestep; whole numbers are not checked (`check_timesteps`).
        """
        return level if isinstance(level, int) else min(round(level * self.train_timesteps), self.train_timesteps - 1)

    def check_timesteps(self, timesteps: Sequence[int]) -> None:
        """Refuse timesteps that the model was not trained with.

        Args:
            timesteps: as they will be captured.

        Raises:
            ModelError: one is out of range.
        """
        for timestep in timesteps:
            if not 0 <= timestep < self.train_timesteps:
                raise ModelError(f"timestep must be in [0, {self.train_timesteps - 1}], but got {timestep}.")

    def capture(
        self,
        images: Float[Tensor, "batch 3 height width"] | Sequence[Float[Tensor, "3 _ _"]],
        wanted: ActivationsByTimestep,
        *,
        seed: int,
        prompts: Sequence[str] | None = None,
    ) -> Iterator[tuple[int, dict[str, Float[Tensor, "batch channels rows columns"]]]]:
        """Run the denoiser on images and yield their feature maps, timestep by timestep.

        There is one pass for each timestep and noise draw, only as deep as needed. The noise of an image is drawn from
        its content (unless all share one) and `seed` alone and is the same at every timestep, so an image has the same
        features in any batch. When memory runs out, fewer images run together from then on.

        Args:
            images: RGB in [0, 1], of any size and, in a list, of different sizes.
            wanted: activations by timestep; their names are unique within a timestep.
            seed: of the noise, 0 or above.
            prompts: one per image, in place of the backbone's own.

        Yields:
            A timestep and its feature maps by the name of the activation, in float32 on `device`.

        Raises:
            ModelError: a timestep is out of range, memory does not hold even one image, or prompts cannot be encoded.
            CaptureError: an activation cannot be captured as declared.
        """
        self.check_timesteps(list(wanted))
        if prompts is not None and len(prompts) != len(images):
            raise ModelError(f"prompts must be one for each of {len(images)} images, but got {len(prompts)}.")
        if not wanted:
            return
        # Left before each yield: what the caller does with the maps is not inference.
        with torch.inference_mode():
            resized, boxes = resize_images(images, self.image_size, self.resize, self.device)
            clean = torch.cat(self._in_parts(len(resized), lambda part: self.encode(resized[part])))
            shape = tuple(clean.shape[1:])
            noise = [self._noise(resized, shape, seed, draw).to(clean) for draw in range(self.noise_seeds)]
        for timestep, activations in wanted.items():

            def maps(part: slice, t: int = timestep, entries: Sequence[Activation] = activations) -> dict[str, Tensor]:
                draws = [draw[part] for draw in noise]
                return self._maps(clean[part], draws, t, entries, None if prompts is None else prompts[part])

            with torch.inference_mode():
                parts = self._in_parts(len(clean), maps)
                cropped = {name: crop_content(torch.cat([part[name] for part in parts]), boxes) for name in parts[0]}
            yield timestep, cropped

    def _single_passes(self) -> tuple[Callable[[int], None], tuple[int, int]]:
        """What runs the denoiser once on one of two images, and the rows and columns of its input."""
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(2, 3, *self.image_size, generator=generator).to(self.device)
        with torch.inference_mode():
            clean = torch.cat([self.encode(image[None]) for image in images])
            noise = torch.randn(clean[:1].shape, generator=generator).to(clean)

        def run(image: int) -> None:
            timestep = self.train_timesteps // 4
            self.denoise(clean[image : image + 1], noise, timestep, self.condition(1))

        return run, (int(clean.shape[-2]), int(clean.shape[-1]))

    def _maps(
        self,
        clean: Tensor,
        draws: Sequence[Tensor],
        timestep: int,
        activations: Sequence[Activation],
        prompts: Sequence[str] | None,
    ) -> dict[str, Tensor]:
        """Feature maps of some images, averaged over noise draws."""
        sources = list(dict.fromkeys(part for activation in activations for part in activation.parts or (activation,)))
        conditioning = self.condition(len(clean), prompts)
        grid = (int(clean.shape[-2]), int(clean.shape[-1]))
        total: dict[str, Tensor] = {}
        for noise in draws:
            with Capture(self.denoiser, sources) as captured:
                self.denoise(clean, noise, timestep, conditioning)
            maps = {source.name: as_map(captured.tensors[source.name], source, grid) for source in sources}
            for activation in activations:
                value = _map_of(activation, maps)
                total[activation.name] = total[activation.name] + value if activation.name in total else value
        return total if len(draws) == 1 else {name: value / len(draws) for name, value in total.items()}

    def _noise(self, images: Tensor, shape: tuple[int, ...], seed: int, draw: int) -> Tensor:
        if self.noise_shared:
            return shared_noise(shape, seed, draw).expand(len(images), *shape)
        return noise_of(images, shape, seed, draw)

    def _in_parts(self, count: int, run: Callable[[slice], Part]) -> list[Part]:
        """`run` on parts of a batch: the whole, or as many images at a time as memory holds."""
        while True:
            size = min(count, self._largest_batch or count)
            try:
                return [run(slice(start, min(start + size, count))) for start in range(0, count, size)]
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if size == 1:
                    raise ModelError(
                        f"memory must hold a single image at {self.image_size[0]} x {self.image_size[1]} px, but it "
                        "ran out: lower model.image_size, take a smaller dtype, or set model.offload."
                    ) from error
                self._largest_batch = size // 2
            LOGGER.warning(
                "memory ran out with %d images per batch; continuing with %d (model.batch_size sets this).",
                size,
                self._largest_batch,
            )
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _map_of(activation: Activation, maps: Mapping[str, Tensor]) -> Tensor:
    """The feature map of an activation; the mean of several lies on the finest of their grids."""
    if not activation.parts:
        return maps[activation.name]
    parts = [maps[part.name] for part in activation.parts]
    finest = max((entry.shape[-2:] for entry in parts), key=math.prod)
    enlarged = [
        entry if entry.shape[-2:] == finest else functional.interpolate(entry, finest, mode="bilinear")
        for entry in parts
    ]
    return torch.stack(enlarged).mean(0)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def noise_of(
    images: Float[Tensor, "batch 3 height width"], shape: tuple[int, ...], seed: int, draw: int = 0
) -> Float[Tensor, "batch ..."]:
    """Standard normal noise for each image, drawn on the CPU from its 8-bit content, `seed` and `draw`."""
    contents = (images * 255).round().to("cpu", torch.uint8).contiguous()
    return torch.stack([_normal(image.numpy().tobytes(), shape, seed, draw) for image in contents])


def shared_noise(shape: tuple[int, ...], seed: int, draw: int = 0) -> Float[Tensor, "..."]:
    """Standard normal noise for every image, drawn on the CPU from `seed` and `draw`."""
    return _normal(b"", shape, seed, draw)


def _normal(content: bytes, shape: tuple[int, ...], seed: int, draw: int) -> Tensor:
    salt, person = seed.to_bytes(8, "little"), draw.to_bytes(8, "little")
    digest = hashlib.blake2b(content, digest_size=7, salt=salt, person=person).digest()
    return torch.randn(shape, generator=torch.Generator().manual_seed(int.from_bytes(digest, "little")))
