"""The abstract backbone: a denoiser with what is needed to run it on an image."""

from __future__ import annotations

import gc
import hashlib
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffsift.errors import ModelError

from ._catalogue import complete
from ._resizing import Resize, content, fit
from .activation import Activation
from .capture import Capture, as_map
from .operations import operations_of


class Backbone(ABC):
    """A denoiser that turns images into activations at chosen noise levels.

    Implementations say how an image becomes the denoiser's clean input (`encode`), what the denoiser is conditioned on
    (`condition`) and how one forward pass is made (`denoise`). Everything else is here.

    Attributes:
        name: what this backbone goes by within a study.
        denoiser: the module whose activations are captured, in eval mode and frozen.
        image_size: (height, width) in pixels that images are resized to.
        train_timesteps: number of noise levels; a timestep is in [0, train_timesteps - 1].
        resize: how images are brought to `image_size`.
        noise_seeds: noise draws that features are averaged over.
        noise_shared: whether all images get the same noise, instead of one each from their content.
    """

    name: str
    denoiser: nn.Module
    image_size: tuple[int, int]
    train_timesteps: int
    resize: Resize = "stretch"
    noise_seeds: int = 1
    noise_shared: bool = False
    _activations: tuple[Activation, ...] = ()
    _most_together: int | None = None

    @abstractmethod
    def encode(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch latent_channels rows columns"]:
        """The denoiser's clean input for images of `image_size` in [0, 1]."""

    @abstractmethod
    def condition(self, batch: int, prompts: Sequence[str] | None = None) -> dict[str, Any]:
        """Keyword arguments of the denoiser that do not depend on the image, for a batch of this size.

        `prompts`, one per image, take the place of the backbone's own.
        """

    @abstractmethod
    def denoise(self, clean: Tensor, noise: Tensor, timestep: int, conditioning: dict[str, Any]) -> None:
        """Add `noise` to `clean` at `timestep` and run the denoiser once; its output is not wanted."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that shapes a feature of this backbone, as JSON: equal exactly when features are equal."""

    def activations(self) -> tuple[Activation, ...]:
        """All activations in the order in which a pass reaches them; those that cannot be captured say why.

        They are read off the denoiser's module tree and completed by three passes, the first time only.

        Raises:
            ModelError: the denoiser has none.
        """
        if not self._activations:
            run, input_size = self._single_passes()
            self._activations = complete(self.denoiser, run, input_size)
        return self._activations

    def operations(self) -> int:
        """Multiply-adds of a whole pass of the denoiser on one image."""
        run, _ = self._single_passes()
        return operations_of(lambda: run(0))

    def activations_in_passes_of(self, other: Backbone) -> tuple[Activation, ...]:
        """The activations, with `operations` counted in whole passes of another backbone, on one image each."""
        whole, unit = self.operations(), other.operations()
        ratio = whole / unit if unit else 0.0
        return tuple(
            replace(entry, operations=None if entry.operations is None or not ratio else entry.operations * ratio)
            for entry in self.activations()
        )

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

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters(), torch.empty(0)).device

    def timestep_of(self, level: int | float) -> int:
        """A noise level as a timestep: whole numbers are timesteps; a fraction is a share of all noise levels.

        With flow matching it is also the share of noise in the noised image.
        """
        return level if isinstance(level, int) else min(round(level * self.train_timesteps), self.train_timesteps - 1)

    def check_timesteps(self, timesteps: Sequence[int]) -> None:
        """Raise `ModelError` for a timestep the scheduler was not trained with."""
        for timestep in timesteps:
            if not 0 <= timestep < self.train_timesteps:
                raise ModelError(f"timestep must be in [0, {self.train_timesteps - 1}], but got {timestep}.")

    @torch.inference_mode()
    def capture(
        self,
        images: Float[Tensor, "batch 3 height width"] | Sequence[Float[Tensor, "3 _ _"]],
        wanted: Mapping[int, Sequence[Activation]],
        *,
        seed: int,
        prompts: Sequence[str] | None = None,
    ) -> Iterator[tuple[int, dict[str, Float[Tensor, "batch channels rows columns"]]]]:
        """Yield (timestep, feature maps by activation name), a pass of the denoiser per noise draw, as deep as needed.

        The noise of an image is drawn from its content (unless all share one) and `seed` alone and is the same at every
        timestep, so an image gives the same features at any place in any batch. When memory runs out, fewer images run
        together from then on.

        Args:
            images: RGB in [0, 1], of any size and, in a list, of any sizes; brought to `image_size` as `resize` says.
            wanted: activations by timestep.
            seed: of the noise, 0 or above.
            prompts: one per image, instead of the backbone's own.

        Raises:
            ModelError: a timestep is out of range, memory does not even hold one image, or prompts are not understood.
        """
        self.check_timesteps(list(wanted))
        if prompts is not None and len(prompts) != len(images):
            raise ModelError(f"prompts must be one for each of {len(images)} images, but got {len(prompts)}.")
        if not wanted:
            return
        fitted, boxes = fit(images, self.image_size, self.resize, self.device)
        clean = torch.cat(self._in_parts(len(fitted), lambda part: self.encode(fitted[part])))
        noise = [self._noise(fitted, tuple(clean.shape[1:]), seed, draw).to(clean) for draw in range(self.noise_seeds)]
        for timestep, activations in wanted.items():

            def maps(part: slice, t: int = timestep, entries: Sequence[Activation] = activations) -> dict[str, Tensor]:
                draws = [draw[part] for draw in noise]
                return self._maps(clean[part], draws, t, entries, None if prompts is None else prompts[part])

            parts = self._in_parts(len(clean), maps)
            yield timestep, {name: content(torch.cat([part[name] for part in parts]), boxes) for name in parts[0]}

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
            found = {source.name: as_map(captured.tensors[source.name], source, grid) for source in sources}
            for activation in activations:
                value = _averaged(activation, found)
                total[activation.name] = total[activation.name] + value if activation.name in total else value
        return total if len(draws) == 1 else {name: value / len(draws) for name, value in total.items()}

    def _noise(self, images: Tensor, shape: tuple[int, ...], seed: int, draw: int) -> Tensor:
        if self.noise_shared:
            return shared_noise(shape, seed, draw).expand(len(images), *shape)
        return noise_of(images, shape, seed, draw)

    def _in_parts(self, count: int, run: Callable[[slice], Any]) -> list[Any]:
        """`run` on parts of a batch: the whole, or what memory holds."""
        while True:
            size = min(count, self._most_together or count)
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
                self._most_together = size // 2
            warnings.warn(
                f"memory ran out with {size} images at once: {self._most_together} run together from now on "
                "(model.batch_size sets it).",
                stacklevel=2,
            )
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _averaged(activation: Activation, found: Mapping[str, Tensor]) -> Tensor:
    """The feature map of an activation; of one that averages several, on the finest of their grids."""
    if not activation.parts:
        return found[activation.name]
    maps = [found[part.name] for part in activation.parts]
    finest = max((entry.shape[-2:] for entry in maps), key=math.prod)
    enlarged = [
        entry if entry.shape[-2:] == finest else functional.interpolate(entry, finest, mode="bilinear")
        for entry in maps
    ]
    return torch.stack(enlarged).mean(0)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def noise_of(
    images: Float[Tensor, "batch 3 height width"], shape: tuple[int, ...], seed: int, draw: int = 0
) -> Float[Tensor, "..."]:
    """Standard normal noise of `shape` for each image, drawn on the CPU from its 8-bit content, `seed` and `draw`."""
    contents = (images * 255).round().to("cpu", torch.uint8).contiguous()
    return torch.stack([_normal(image.numpy().tobytes(), shape, seed, draw) for image in contents])


def shared_noise(shape: tuple[int, ...], seed: int, draw: int = 0) -> Float[Tensor, "..."]:
    """Standard normal noise of `shape` for any image, drawn on the CPU from `seed` and `draw`."""
    return _normal(b"", shape, seed, draw)


def _normal(content: bytes, shape: tuple[int, ...], seed: int, draw: int) -> Tensor:
    salt, person = seed.to_bytes(8, "little"), draw.to_bytes(8, "little")
    digest = hashlib.blake2b(content, digest_size=7, salt=salt, person=person).digest()
    return torch.randn(shape, generator=torch.Generator().manual_seed(int.from_bytes(digest, "little")))


def digest_of(*modules: nn.Module) -> str:
    """Thirty-two hexadecimal digits over names, types and values of all parameters and buffers."""
    hasher = hashlib.blake2b(digest_size=16)
    for module in modules:
        for name, tensor in module.state_dict().items():
            hasher.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()
