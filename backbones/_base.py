"""The abstract backbone: a network with what is needed to run it on an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffsift.errors import ModelError

from ._batches import BatchLimit, Part
from ._catalogue import complete_by_running
from ._latents import LatentCache
from ._noise import noise_of, shared_noise
from ._resizing import Images, Resize, resize_images
from .activation import Activation, ActivationsByTimestep
from .capture import Capture
from .operations import operations_of
from .reading import PassReading, Reader, whole_map


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
        latents: remembers what `encode` returned; None (the default) where encoding costs nothing.
    """

    name: str
    denoiser: nn.Module
    image_size: tuple[int, int]
    train_timesteps: int
    resize: Resize = "stretch"
    noise_seeds: int = 1
    noise_shared: bool = False
    latents: LatentCache | None = None
    _activations: tuple[Activation, ...] = ()
    _places_maps: bool = False

    @abstractmethod
    def encode(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch latent_channels rows columns"]:
        """The denoiser's clean input.

        Args:
            images: RGB in [0, 1], of `image_size`, on `device`.

        Returns:
            The denoiser's input for each image before noise is added, on `device`: latents of a VAE on their coarser
            grid, or pixels.

        Raises:
            ModelError: the encoded images do not have the channels that the denoiser takes.
        """

    def encoded_together(self) -> int | None:
        """How many images `encode` is given at a time; None, the default, for a whole batch."""
        return None

    def denoised_together(self, rows: int, columns: int) -> int | None:
        """How many images of a batch `denoise` is given at a time.

        Args:
            rows: of the denoiser's input.
            columns: of the denoiser's input.

        Returns:
            A number, or None, the default, for all of them.
        """
        return None

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

        It is read off the denoiser's module tree and completed by one pass or two, the first time only.

        Returns:
            All activations; those that cannot be captured give the reason in `Activation.unreadable`, as attention maps
            do unless `place_attention_maps` was called.

        Raises:
            ModelError: the denoiser has none.
        """
        if not self._activations:
            run, input_size = self._single_passes()
            self._activations = complete_by_running(self.denoiser, run, input_size, attention_maps=self._places_maps)
        return self._activations

    def place_attention_maps(self) -> None:
        """Have `activations` place attention maps as well, so that they can be captured.

        That takes a further pass of a U-Net, and few features are attention maps: so it is done on demand.
        """
        if not self._places_maps:
            self._places_maps, self._activations = True, ()

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

    def free_weights(self) -> bool:
        """Free the denoiser's weights where memory does not hold another network beside them.

        Afterwards only `untrained` is called. Override it where that does not need the weights.

        Returns:
            Whether they were freed; by default they are not.
        """
        return False

    def operations(self) -> int:
        """Operations of a whole pass on one image, two for each multiply-add; 0 where they cannot be counted."""
        run, _ = self._single_passes()
        return operations_of(lambda: run(0))

    def activations_in_passes_of(self, other: Backbone) -> tuple[Activation, ...]:
        """The catalogue with `Activation.operations` in whole passes of another backbone.

        Args:
            other: the backbone whose whole pass on one image is the unit, such as this one at a smaller image size.

        Returns:
            The catalogue in its order. Operations are shares of the other backbone's whole pass; None where they are
            not known.
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
        images: Images,
        wanted: ActivationsByTimestep,
        *,
        seed: int | Sequence[int],
        prompts: Sequence[str] | None = None,
        read: Reader = whole_map,
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Run the denoiser on images and yield what a reader keeps of their feature maps, timestep by timestep.

        There is one pass for each timestep and noise draw, only as deep as needed. The noise of an image is drawn from
        its content (unless all share one) and `seed` alone and is the same at every timestep, so an image has the same
        features in any batch. When memory runs out, fewer images run together.

        Args:
            images: RGB in [0, 1], or 0 to 255 in 8 bits, of any size and, in a list, of different sizes.
            wanted: activations by timestep; their names are unique within a timestep.
            seed: of the noise, 0 or above; one for all images, or one for each.
            prompts: one per image, in place of the backbone's own.
            read: called with each feature map inside the pass; what it returns is all that is kept. By default that is
                the whole map in float32: (batch, channels, rows, columns).

        Yields:
            A timestep, and by the name of the activation, or names that `read` gave, what it returned: one row per
            image, on `device`.

        Raises:
            ModelError: a timestep is out of range, memory does not hold even one image, or prompts cannot be encoded.
            CaptureError: an activation cannot be captured as declared.
        """
        self.check_timesteps(list(wanted))
        if prompts is not None and len(prompts) != len(images):
            raise ModelError(f"prompts must be one for each of {len(images)} images, but got {len(prompts)}.")
        if not wanted:
            return
        seeds = [seed] * len(images) if isinstance(seed, int) else list(seed)
        # Left before each yield: what the caller does with the maps is not inference.
        with torch.inference_mode():
            resized, boxes = resize_images(images, self.image_size, self.resize, self.device)
            clean = self._clean(resized)
            noise = [self._noise(resized, clean, seeds, draw) for draw in range(self.noise_seeds)]
            del resized
        for timestep, activations in wanted.items():

            def run(part: slice, t: int = timestep, entries: Sequence[Activation] = activations) -> dict[str, Tensor]:
                inside = None if boxes is None else boxes[part]
                reading = PassReading(entries, read, timestep=t, images=part, boxes=inside)
                own = None if prompts is None else prompts[part]
                return self._passes(reading, clean[part], [draw[part] for draw in noise], own)

            with torch.inference_mode():
                together = self.denoised_together(int(clean.shape[-2]), int(clean.shape[-1]))
                parts = self._run_in_parts(self._denoised, len(clean), run, most=together)
                whole = parts.pop(0) if len(parts) == 1 else _joined(parts)
            yield timestep, whole

    def _single_passes(self) -> tuple[Callable[[int], None], tuple[int, int]]:
        """What runs the denoiser once on one of two images, and the rows and columns of its input."""
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            clean = self._random_inputs(generator)
            noise = torch.randn(clean[:1].shape, generator=generator).to(clean)

        def run(image: int) -> None:
            timestep = self.train_timesteps // 4
            self.denoise(clean[image : image + 1], noise, timestep, self.condition(1))

        return run, (int(clean.shape[-2]), int(clean.shape[-1]))

    def _random_inputs(self, generator: torch.Generator) -> Float[Tensor, "2 latent_channels rows columns"]:
        """Two clean inputs that differ everywhere."""
        images = torch.rand(2, 3, *self.image_size, generator=generator).to(self.device)
        return torch.cat([self.encode(image[None]) for image in images])

    def _passes(
        self, reading: PassReading, clean: Tensor, draws: Sequence[Tensor], prompts: Sequence[str] | None
    ) -> dict[str, Tensor]:
        """What is read of some images, averaged over noise draws."""
        conditioning = self.condition(len(clean), prompts)
        grid = (int(clean.shape[-2]), int(clean.shape[-1]))
        total: dict[str, Tensor] = {}
        for noise in draws:
            with Capture(self.denoiser, reading.sources, take=lambda source, t: reading.take(source, t, grid)):
                self.denoise(clean, noise, reading.timestep, conditioning)
            found = reading.finished()
            total = {name: total[name] + value for name, value in found.items()} if total else found
        return total if len(draws) == 1 else {name: value / len(draws) for name, value in total.items()}

    def _clean(self, images: Tensor) -> Tensor:
        """Encode images, each different one once."""

        def encoded(images: Tensor) -> Tensor:
            together = self.encoded_together()
            parts = self._run_in_parts(
                self._encoded, len(images), lambda part: self.encode(images[part]), most=together
            )
            return torch.cat(parts)

        return encoded(images) if self.latents is None else self.latents.of(images, encoded)

    def _noise(self, images: Tensor, clean: Tensor, seeds: Sequence[int], draw: int) -> Tensor:
        shape = tuple(clean.shape[1:])
        drawn = shared_noise(shape, seeds, draw) if self.noise_shared else noise_of(images, shape, seeds, draw)
        return drawn.to(clean)

    @cached_property
    def _encoded(self) -> BatchLimit:
        return BatchLimit("encoding images")

    @cached_property
    def _denoised(self) -> BatchLimit:
        return BatchLimit("running the denoiser")

    def _run_in_parts(
        self, limit: BatchLimit, count: int, run: Callable[[slice], Part], *, most: int | None = None
    ) -> list[Part]:
        try:
            return limit.run(count, run, most=most)
        except MemoryError as error:
            raise ModelError(
                f"memory must hold a single image at {self.image_size[0]} x {self.image_size[1]} px, but it ran out: "
                "lower model.image_size, take a smaller model.dtype, or set model.vae_tiling or model.offload."
            ) from error


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The rows of all parts by name; each part's own are let go of on the way."""
    return {name: torch.cat([part.pop(name) for part in parts]) for name in list(parts[0])}
