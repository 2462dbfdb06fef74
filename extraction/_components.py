"""Leading principal components of standardised features, in the form that costs least.

Notation: A (n samples x C channels), standardised; the components are the leading eigenvectors of A'A.

- Primal, up to `EXACT` channels: eigenvectors of A'A (C x C), in float64.
- Dual, up to `EXACT` samples of more channels: eigenvectors U of AA' (n x n), in float64; the components are the
  directions of A'U.
- Block Krylov, where both are more, and more than four times the components: Rayleigh-Ritz over the span of (AA')^j A G
  for j = 0 ... 8, G random with a quarter as many columns as components (Musco and Musco, Randomized block Krylov
  methods, NeurIPS 2015). Products are in float32, the small parts in float64. No matrix has both sides as long as A's.

The first two are exact. The third explains at least 0.999 of the variance that the exact components explain where
standard deviations along them fall as i^-0.5 or faster, as those of networks do. In white noise, where no direction
is worth more than another, it explains 0.95.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Literal

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

EXACT = 1280
"""Most channels, or samples, of an eigendecomposition; that of a side of 1280 takes 0.7 s of a core."""

_BLOCKS, _FEWEST = 9, 16
"""Blocks of a Krylov space, and fewest columns of a block."""

_AT_ONCE = 4_000_000
"""Values that are in float64 at once."""


def moments(
    features: Float[Tensor, "samples channels"],
) -> tuple[Float64[Tensor, "channels"], Float64[Tensor, "channels"]]:
    """Mean and standard deviation of each channel, in float64.

    Args:
        features: raw values in any type.

    Returns:
        Means and deviations.
    """
    means, deviations = [], []
    for part in _split(features, len(features), dim=1):
        exact = part.to(torch.float64)
        means.append(exact.mean(0))
        deviations.append(exact.std(0, correction=0))
    return torch.cat(means), torch.cat(deviations)


def leading_components(
    features: Float[Tensor, "samples channels"],
    mean: Float64[Tensor, "channels"],
    scale: Float64[Tensor, "channels"],
    count: int,
    *,
    overwrite: bool = False,
) -> Float64[Tensor, "channels components"]:
    """The leading principal components of standardised features.

    Args:
        features: raw values, in float32 or float64.
        mean: of each channel.
        scale: 1 / standard deviation of each channel.
        count: of the components, below the number of channels.
        overwrite: use the memory of `features`, which saves a copy.

    Returns:
        Orthonormal columns, that of the largest variance first, as many as there are samples where these are fewer than
        `count`. Equal features give equal components: the entry of each that is largest in size is positive.
    """
    samples, channels = features.shape
    form = form_of(samples, channels, count)
    if form == "primal":
        found = _primal(features, mean, scale, count)
    elif form == "dual":
        found = torch.linalg.qr(_dual(features, mean, scale, count))[0]
    else:
        a = features.to(torch.float32, copy=not overwrite)
        found = torch.linalg.qr(_krylov(a.sub_(mean.to(a)).mul_(scale.to(a)), count))[0]
    # Eigenvectors are defined up to their sign: fix it, so that equal statistics give equal projections.
    return found * torch.sign(found.gather(0, found.abs().argmax(0, keepdim=True)))


def form_of(samples: int, channels: int, count: int) -> Literal["primal", "dual", "Krylov"]:
    """In which form so many components are computed; see the module.

    Args:
        samples: rows of the features.
        channels: columns of the features.
        count: of the components.

    Returns:
        Its name.
    """
    # Where a Krylov space would hold more than half of all directions, it costs no less than all of them.
    exact = max(EXACT, 4 * count)
    if channels <= exact:
        return "primal"
    return "dual" if samples <= exact else "Krylov"


def fit_bytes(samples: int, channels: int, count: int) -> int:
    """Memory that `moments` and `leading_components` take beside the features, whose own they overwrite.

    Args:
        samples: rows of the features.
        channels: columns of the features.
        count: of the components; none are computed where there are no more channels.

    Returns:
        Bytes at most.
    """
    part = 8 * max(samples, channels, min(samples * channels, _AT_ONCE))
    if channels <= count:
        return part
    at_once = 3 * part
    form = form_of(samples, channels, count)
    if form == "primal":
        return at_once + 3 * 8 * channels**2
    components = 3 * 8 * channels * count
    if form == "dual":
        return at_once + 3 * 8 * samples**2 + components
    return at_once + 4 * (samples + channels) * _BLOCKS * _block(count) + components


def _primal(
    a: Float[Tensor, "samples channels"],
    mean: Float64[Tensor, "channels"],
    scale: Float64[Tensor, "channels"],
    count: int,
) -> Float64[Tensor, "channels components"]:
    return _eigenvectors(((part.to(torch.float64) - mean) * scale for part in _split(a, a.shape[1], dim=0)), count)


def _dual(
    a: Float[Tensor, "samples channels"],
    mean: Float64[Tensor, "channels"],
    scale: Float64[Tensor, "channels"],
    count: int,
) -> Float64[Tensor, "channels components"]:
    """Components times the deviations along them: QR makes them orthonormal, those without variance too."""

    def parts() -> Iterator[Float64[Tensor, "part samples"]]:
        for part in zip(*(_split(whole, len(a), dim=-1) for whole in (a, mean, scale)), strict=True):
            yield ((part[0].to(torch.float64) - part[1]) * part[2]).T

    vectors = _eigenvectors(parts(), count)
    return torch.cat([part @ vectors for part in parts()])


def _krylov(a: Float32[Tensor, "samples channels"], count: int) -> Float64[Tensor, "channels components"]:
    """As `_dual` gives them, from an orthonormal basis Q of the Krylov space: A'Q times the eigenvectors of Q'AA'Q."""
    samples, channels = a.shape
    block = _block(count)
    basis, seen = a.new_empty(samples, _BLOCKS * block), a.new_empty(channels, _BLOCKS * block)
    start = torch.randn(channels, block, generator=torch.Generator().manual_seed(0))
    for number in range(_BLOCKS):
        own = slice(number * block, (number + 1) * block)
        before = basis[:, : own.start]
        added = a @ (seen[:, own.start - block : own.start] if number else start)
        for _ in range(2):  # once is not enough where little is left of a block
            added = torch.linalg.qr(added - before @ (before.T @ added))[0]
        basis[:, own], seen[:, own] = added, a.T @ added
    vectors = _eigenvectors((part.to(torch.float64) for part in _split(seen, seen.shape[1], dim=0)), count)
    return (seen @ vectors.to(torch.float32)).to(torch.float64)


def _block(count: int) -> int:
    """Columns of a block: a quarter of the components."""
    return max(_FEWEST, -(-count // 4))


def _eigenvectors(parts: Iterable[Float64[Tensor, "_ columns"]], count: int) -> Float64[Tensor, "columns leading"]:
    """The leading eigenvectors of A'A, from some rows of A at a time."""
    vectors: Tensor = torch.linalg.eigh(reduce(torch.add, (part.T @ part for part in parts)))[1]
    return vectors[:, -count:].flip(1)


def _split(whole: Tensor, length: int, *, dim: int) -> tuple[Tensor, ...]:
    """Rows or columns of so many values, as many of them together as may be in float64 at once."""
    return torch.split(whole, max(1, _AT_ONCE // length), dim)
