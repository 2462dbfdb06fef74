"""Raw features of the images that statistics are fit on, on disk until that is done.

Up to `_PLAIN` channels are stored as they are, in float32. More are stored in half the bytes: of each image and
channel, the mean m and the largest distance r from it in float32, and (x - m) / r in float16. So values of any size
fit, and a value is off by 1/2048 of its distance from the mean, whatever that is: less than 0.0005 standard deviations
(root mean square over samples). Values that are not finite stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32
from torch import Tensor

from ._records import Records

_PLAIN = 1280
"""Most channels that are stored in float32."""

_HEAD = 4
"""Rows in float16 that hold two rows in float32: the mean of each channel, and the largest distance from it."""


class RawFeatures:
    """Raw features of one candidate, by the digest of the image.

    Args:
        folder: of the entry.
        points: locations per image.
        channels: of the activation.
    """

    def __init__(self, folder: Path, points: int, channels: int) -> None:
        self._halved = channels > _PLAIN
        shape = (points + _HEAD if self._halved else points, channels)
        self._records = Records(folder, "raw", shape, "float16" if self._halved else "float32")

    def whole(self, digests: Sequence[bytes]) -> Bool[np.ndarray, "digests"]:
        """Whether each image's features are there, undamaged."""
        return self._records.whole(digests)

    def write(
        self, digests: Sequence[bytes], positions: Sequence[int], raw: Float32[Tensor, "images points channels"]
    ) -> None:
        """Store features of some images, also values that are not finite: these are for the fit to find.

        Args:
            digests: of the images.
            positions: see `Records.write`.
            raw: their features.
        """
        values = _halved(raw) if self._halved else raw.numpy()
        self._records.write(digests, positions, values, only_finite=False)

    def read(self, digests: Sequence[bytes]) -> Float32[Tensor, "images points channels"]:
        """Features of some images; they must be there."""
        stored = self._records.features(digests)[:]
        return _restored(stored) if self._halved else torch.from_numpy(stored.copy())

    def delete(self) -> None:
        self._records.delete()


def raw_bytes(images: int, points: int, channels: int) -> int:
    """Bytes on disk of the raw features of so many images."""
    return images * channels * (2 * (points + _HEAD) if channels > _PLAIN else 4 * points)


def _halved(raw: Float32[Tensor, "images points channels"]) -> Float16[np.ndarray, "images rows channels"]:
    finite = torch.isfinite(raw)
    known = raw if bool(finite.all()) else raw.where(finite, torch.nan)
    mean = known.nanmean(1, keepdim=True).nan_to_num()
    reach = (known - mean).abs().nan_to_num().amax(1, keepdim=True)
    reach = torch.where(reach > 0, reach, 1)
    head = torch.cat([mean, reach], dim=1).numpy().view(np.float16).reshape(len(raw), _HEAD, -1)
    return np.concatenate([head, ((raw - mean) / reach).to(torch.float16).numpy()], axis=1)


def _restored(stored: Float[np.ndarray, "images rows channels"]) -> Float32[Tensor, "images points channels"]:
    images, _, channels = stored.shape
    head = torch.from_numpy(stored[:, :_HEAD].copy().view(np.float32).reshape(images, 2, channels))
    values = torch.from_numpy(stored[:, _HEAD:].astype(np.float32))
    return values.mul_(head[:, 1:]).add_(head[:, :1])
