"""Uncompressed features of a selection at any pixel, from feature maps that are held on their native grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from cachetools import LRUCache
from jaxtyping import Float, Float16, Int
from torch import Tensor

from diffsift.backbones import BackboneCache, FeatureMap
from diffsift.bank import LazySamples
from diffsift.common.context import RunContext
from diffsift.extraction import Standardiser, block_scale, pool, sample_map
from diffsift.spaces import Candidate, Selection

from .._capturing import CapturedMaps

MapsOf: TypeAlias = dict[Candidate, Float[Tensor, "images rows columns channels"]]


class FeatureMaps:
    """Standardised feature maps of images, captured once per candidate; nothing is projected.

    Enlarged to 256 x 256 pixels, the maps of a selection take tens of gigabytes (45 GB for SDXL in the paper). They
    are held in float16 on their native grids and sampled where a head reads them, which gives the same features.

    Args:
        samples: images, by position.
        backbones: backbones by name.
        standardisers: standardiser of each candidate that selections will be made of; projections are not used.
        context: noise seed, batch size and reporter are used.
        memory: bytes of maps that are cached for the next selection.
    """

    def __init__(
        self,
        samples: LazySamples,
        backbones: BackboneCache,
        standardisers: Mapping[Candidate, Standardiser],
        context: RunContext,
        *,
        memory: int = 2_000_000_000,
    ) -> None:
        self.samples, self.context = samples, context
        self._backbones, self._standardisers = backbones, standardisers
        self._cache: LRUCache[Candidate, Float[Tensor, "images rows columns channels"]]
        self._cache = LRUCache(memory, getsizeof=lambda maps: maps.nbytes)

    def of(self, selection: Selection) -> SelectionFeatures:
        """The features of a selection; backbones run for the candidates that are not cached.

        Args:
            selection: candidates with their weights.

        Returns:
            Its fused feature, to be read at any pixel.
        """
        maps = {candidate: self._cache[candidate] for candidate in selection.candidates if candidate in self._cache}
        missing = [candidate for candidate in selection.candidates if candidate not in maps]
        if missing:
            maps |= self._captured(missing)
        for candidate in missing:
            if maps[candidate].nbytes <= self._cache.maxsize:
                self._cache[candidate] = maps[candidate]
        return SelectionFeatures(selection, maps)

    def _captured(self, missing: Sequence[Candidate]) -> MapsOf:
        count, size = len(self.samples), self.context.batch_size
        maps: MapsOf = {}
        with self.context.reporter.progress(count, "features", "image") as bar:
            for start in range(0, count, size):
                batch = [self.samples[index] for index in range(start, min(start + size, count))]
                captured = CapturedMaps(batch, missing, self._backbones, self.context.noise_seed)
                for candidate, standardised in captured.read(self._standardised):
                    if candidate not in maps:
                        maps[candidate] = standardised.new_empty(count, *standardised.shape[1:])
                    maps[candidate][start : start + len(batch)] = standardised
                bar.update(len(batch))
        return maps

    def _standardised(
        self, candidate: Candidate, feature_map: FeatureMap
    ) -> Float16[Tensor, "images rows columns channels"]:
        plain = replace(self._standardisers[candidate], projection=None).to(feature_map.values.device)
        images = (image.permute(1, 2, 0).to(torch.float32) for image in feature_map.values)
        return torch.stack([plain.apply(image).to(torch.float16) for image in images])


class SelectionFeatures:
    """The fused feature of a selection at any pixel of its images, without compression.

    The blocks of `diffsift.spaces` times the square root of all raw channels together: at equal weights every channel
    has unit variance, as the heads' learning rates expect.

    Args:
        selection: candidates with their weights.
        maps: standardised feature maps of each of them.

    Attributes:
        channels: channels of the fused feature.
    """

    def __init__(self, selection: Selection, maps: MapsOf) -> None:
        self.channels = sum(maps[candidate].shape[-1] for candidate in selection.candidates)
        self._blocks = [
            (candidate, maps[candidate], block_scale(weight, maps[candidate].shape[-1]) * self.channels**0.5)
            for candidate, weight in selection.members
        ]

    def at(
        self, images: Int[np.ndarray, "locations"], points: Float[np.ndarray, "locations 2"]
    ) -> Float[Tensor, "locations channels"]:
        """Features at locations of many images: the four cells around each, bilinearly.

        Args:
            images: position of each location's image.
            points: (x, y) in [0, 1] of each location in its image.

        Returns:
            One row per location.
        """
        return torch.cat([factor * _gathered(maps, images, points) for _, maps, factor in self._blocks], dim=1)

    def of_image(self, image: int, points: Float[np.ndarray, "locations 2"]) -> Float[Tensor, "locations channels"]:
        """Features at locations of one image; faster than `at` for many of them.

        Args:
            image: position of the image.
            points: (x, y) in [0, 1].

        Returns:
            One row per location.
        """
        return torch.cat([block for _, block in self._blocks_of(image, points)], dim=1)

    def pooled(self, image: int, points: Float[np.ndarray, "locations 2"]) -> Float[Tensor, "1 channels"]:
        """One feature of an image, pooled over locations.

        Args:
            image: position of the image.
            points: (x, y) in [0, 1].

        Returns:
            One row.
        """
        blocks = self._blocks_of(image, points)
        return torch.cat([pool(block[None], candidate.activation) for candidate, block in blocks], dim=1)

    def _blocks_of(self, image: int, points: Float[np.ndarray, "locations 2"]) -> Iterator[tuple[Candidate, Tensor]]:
        at = torch.from_numpy(points).float()[None]
        for candidate, maps, factor in self._blocks:
            yield candidate, factor * sample_map(maps[image : image + 1].float().permute(0, 3, 1, 2), at)[0]

    def window(
        self, image: int, shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> Float[Tensor, "channels height width"]:
        """Features at the pixels of a window, from one row and column up to, without it, another.

        Args:
            image: position of the image.
            shape: (height, width) of its label.
            rows: first row and the one behind the last; beyond the edge, features are those of the edge.
            columns: likewise.

        Returns:
            Features at the window's pixels.
        """
        y, x = (
            (np.arange(*span) + 0.5).clip(0, edge) / edge for span, edge in zip((rows, columns), shape, strict=True)
        )
        points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)
        return self.of_image(image, points).T.reshape(self.channels, len(y), len(x))


def _gathered(
    maps: Float[Tensor, "images rows columns channels"],
    images: Int[np.ndarray, "locations"],
    points: Float[np.ndarray, "locations 2"],
) -> Float[Tensor, "locations channels"]:
    """`sample_map` for locations that each lie in an image of their own: only the cells that are needed are touched."""
    _, rows, columns, channels = maps.shape
    x = np.clip(points[:, 0].astype(np.float64) * columns - 0.5, 0, columns - 1)
    y = np.clip(points[:, 1].astype(np.float64) * rows - 0.5, 0, rows - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    across, down = x - left, y - top
    cells = np.stack([top * columns + left, top * columns + right, bottom * columns + left, bottom * columns + right])
    factors = np.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across])
    flat = maps.reshape(-1, channels)
    chosen = flat[torch.from_numpy((images * rows * columns + cells).ravel())].float().reshape(4, -1, channels)
    return torch.einsum("kp,kpc->pc", torch.from_numpy(factors).float(), chosen)
