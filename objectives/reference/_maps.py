"""Uncompressed features of a selection at any pixel, from feature maps that are kept on their native grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffsift.backbones import BackboneCache
from diffsift.bank.development import LazySamples
from diffsift.common.context import RunContext
from diffsift.datasets import Sample
from diffsift.extraction import Standardiser, block_scale, pool, sample_map
from diffsift.spaces import Candidate, Selection

from .._dense import captured

MapsOf = dict[Candidate, Float[Tensor, "images rows columns channels"]]


class FeatureMaps:
    """Standardised feature maps of images, captured once per candidate; nothing is projected.

    Enlarged to 256 x 256 pixels, the maps of a selection take tens of gigabytes (45 GB for SDXL in the paper). They
    are kept in float16 on their native grids and sampled where a head asks for them, which gives the same features.

    Args:
        samples: images, by position.
        backbones: backbones by name.
        statistics: standardiser of each candidate that will be asked for; their projections are not used.
        context: noise seed, batch size and reporter are used.
        memory: bytes of maps that are kept for the next selection.
    """

    def __init__(
        self,
        samples: LazySamples,
        backbones: BackboneCache,
        statistics: Mapping[Candidate, Standardiser],
        context: RunContext,
        *,
        memory: int = 2_000_000_000,
    ) -> None:
        self._samples, self._backbones, self._statistics = samples, backbones, statistics
        self._context, self._memory = context, memory
        self._kept: MapsOf = {}

    def of(self, selection: Selection) -> SelectionFeatures:
        """The features of a selection, running the backbones for candidates that are not kept."""
        missing = [candidate for candidate in selection.candidates if candidate not in self._kept]
        if missing:
            self._capture(missing)
        for candidate in selection.candidates:  # the last used are the last to go
            self._kept[candidate] = self._kept.pop(candidate)
        found = SelectionFeatures(selection, {entry: self._kept[entry] for entry in selection.candidates})
        while len(self._kept) > 1 and sum(maps.nbytes for maps in self._kept.values()) > self._memory:
            del self._kept[next(iter(self._kept))]
        return found

    def _capture(self, missing: Sequence[Candidate]) -> None:
        count = len(self._samples)
        size = self._context.batch_size
        with self._context.reporter.progress(count, "features", "image") as bar:
            for start in range(0, count, size):
                indices = range(start, min(start + size, count))
                batch: list[Sample] = [self._samples[index] for index in indices]
                for candidate, feature_map in captured(batch, missing, self._backbones, self._context.noise_seed):
                    known = self._statistics[candidate]
                    plain = Standardiser(known.mean, known.scale, None)
                    standardised = plain.apply(feature_map.permute(0, 2, 3, 1)).to(torch.float16)
                    if candidate not in self._kept:
                        self._kept[candidate] = standardised.new_empty(count, *standardised.shape[1:])
                    self._kept[candidate][indices.start : indices.stop] = standardised
                bar.update(len(batch))


class SelectionFeatures:
    """The fused feature of a selection at any pixel of its images, without compression.

    The blocks of `diffsift.spaces` times the square root of all raw channels together: at equal weights every channel
    has unit variance, as the heads' learning rates expect.

    Attributes:
        channels: of the fused feature.
    """

    def __init__(self, selection: Selection, maps: MapsOf) -> None:
        self.channels = sum(maps[candidate].shape[-1] for candidate in selection.candidates)
        self._blocks = [
            (candidate, maps[candidate], block_scale(weight, maps[candidate].shape[-1]) * self.channels**0.5)
            for candidate, weight in selection.members
        ]

    def at(
        self, images: Int[np.ndarray, "places"], points: Float[np.ndarray, "places 2"]
    ) -> Float[Tensor, "places channels"]:
        """Features at places, each (x, y) in [0, 1] of an image of its own: the four cells around it, bilinearly."""
        return torch.cat([factor * _gathered(maps, images, points) for _, maps, factor in self._blocks], dim=1)

    def of_image(self, image: int, points: Float[np.ndarray, "places 2"]) -> Float[Tensor, "places channels"]:
        """Features at places of one image; faster than `at` for many of them."""
        return torch.cat([block for _, block in self._blocks_of(image, points)], dim=1)

    def pooled(self, image: int, points: Float[np.ndarray, "places 2"]) -> Float[Tensor, "1 channels"]:
        """One feature of an image, pooled over places."""
        blocks = self._blocks_of(image, points)
        return torch.cat([pool(block[None], candidate.activation) for candidate, block in blocks], dim=1)

    def _blocks_of(self, image: int, points: np.ndarray) -> Iterator[tuple[Candidate, Tensor]]:
        at = torch.from_numpy(points).float()[None]
        for candidate, maps, factor in self._blocks:
            yield candidate, factor * sample_map(maps[image : image + 1].float().permute(0, 3, 1, 2), at)[0]

    def window(
        self, image: int, shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> Float[Tensor, "channels height width"]:
        """Features at the pixels of a window, from one row and column up to, without it, another.

        Args:
            image: by position.
            shape: (height, width) of its label.
            rows: may lie beyond the edge, where the features are those of the edge.
            columns: likewise.
        """
        y, x = (
            (np.arange(*span) + 0.5).clip(0, edge) / edge for span, edge in zip((rows, columns), shape, strict=True)
        )
        points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)
        return self.of_image(image, points).T.reshape(self.channels, len(y), len(x))


def _gathered(maps: Tensor, images: np.ndarray, points: np.ndarray) -> Float[Tensor, "places channels"]:
    """`sample_map` for places that each lie in an image of their own: only the cells that are needed are touched."""
    _, rows, columns, channels = maps.shape
    x = np.clip(points[:, 0].astype(np.float64) * columns - 0.5, 0, columns - 1)
    y = np.clip(points[:, 1].astype(np.float64) * rows - 0.5, 0, rows - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    across, down = x - left, y - top
    cells = np.stack([top * columns + left, top * columns + right, bottom * columns + left, bottom * columns + right])
    shares = np.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across])
    flat = maps.reshape(-1, channels)
    chosen = flat[torch.from_numpy((images * rows * columns + cells).ravel())].float().reshape(4, -1, channels)
    return torch.einsum("kp,kpc->pc", torch.from_numpy(shares).float(), chosen)
