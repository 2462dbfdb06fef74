"""The properties of one candidate, accumulated image by image: memory does not grow with the number of images.

The input is x[s, i, p, c]: noise seeds s (S of them), images i (n), locations p, channels c.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ._granularity import Spectrum
from ._locality import Locality
from ._noise import NoiseShare
from ._outliers import OutlierEnergy
from ._position import PositionShare


@dataclass(frozen=True)
class Properties:
    """The measured properties of one candidate.

    Attributes:
        diffusion_noise: share of the variance that is due to the noise draw, in [0, 1].
        granularity: mean spatial frequency of the content that does not depend on the noise, relative to white content
            on the same grid; 0 is constant, 1 as fine as the grid allows.
        over_refinement: share of that content in the finer half of the grid's frequencies, relative to white content.
        locality: share of the similarity between locations that is explained by their distance, in [0, 1].
        position: share of the content's variance that is the same at a location in all images, in [0, 1].
        increment_noise: like `over_refinement`, for the activation including its noise.
        outliers: share of the energy in the 1 % of channels with the most, beyond their share of channels; in [0, 1].
    """

    diffusion_noise: float
    granularity: float
    over_refinement: float
    locality: float
    position: float
    increment_noise: float
    outliers: float


class Statistics:
    """Accumulates the statistics of one candidate, on the device of what is added."""

    def __init__(self) -> None:
        self._noise, self._position = NoiseShare(), PositionShare()
        self._spectrum, self._locality, self._outliers = Spectrum(), Locality(), OutlierEnergy()

    def add(self, window: Float[Tensor, "seeds chosen rows columns"], energy: Float[Tensor, "seeds channels"]) -> None:
        """Add an image.

        Args:
            window: of its feature maps under at least two noise seeds, as `window_of` returns it.
            energy: of all channels, as `energy_of` returns it.

        Raises:
            ValueError: there are fewer than two seeds.
        """
        if len(window) < 2:
            raise ValueError(f"properties must be measured under at least two noise seeds, but got {len(window)}.")
        if window.device.type == "mps":  # has no float64
            window, energy = window.cpu(), energy.cpu()
        self._outliers.add(energy.double())
        part = torch.nan_to_num(window, posinf=0.0, neginf=0.0).double()
        self._noise.add(part)
        self._position.add(part)
        self._spectrum.add(part)
        self._locality.add(part)

    def result(self) -> Properties:
        """The properties over all images so far.

        Raises:
            ValueError: there are fewer than two images.
        """
        noise, variance = self._noise.result()
        granularity, refined, refined_with_noise = self._spectrum.result(variance)
        return Properties(
            diffusion_noise=noise,
            granularity=granularity,
            over_refinement=refined,
            locality=self._locality.result(),
            position=self._position.result(self._noise.total),
            increment_noise=refined_with_noise,
            outliers=self._outliers.result(),
        )
