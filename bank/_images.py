"""The images of a development set by what names their records."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from .development import DevelopmentSet, digests_of
from .specification import BankSpecification


class ImageSet:
    """The images of a development set by digest, and which of them statistics are fit on.

    Args:
        development: the images and locations.
        specification: how many images statistics are fit on, and the seed of their choice.
    """

    def __init__(self, development: DevelopmentSet, specification: BankSpecification) -> None:
        self.development, self.specification = development, specification

    def __len__(self) -> int:
        return len(self.digests)

    @cached_property
    def digests(self) -> list[bytes]:
        """Of all images, in order; see `image_digest`."""
        return list(self.development.digests or digests_of(self.development.samples, self.development.points))

    @cached_property
    def training(self) -> frozenset[str]:
        """Digests in hexadecimal of the images that statistics may be fit on."""
        return frozenset(self.digests[image].hex() for image in np.flatnonzero(self.development.training))

    @cached_property
    def fresh_fit(self) -> tuple[str, ...]:
        """Digests in hexadecimal of the images that statistics of a new entry are fit on, in the order of the set."""
        training = np.flatnonzero(self.development.training)
        order = np.random.default_rng([self.specification.seed, 1]).permutation(training)
        order = self.development.in_turn(order)
        return tuple(self.digests[image].hex() for image in np.sort(order[: self.specification.fit_images]))

    def represented_by(self, fit: Sequence[str]) -> bool:
        """Whether statistics that are fit on these images may be used here.

        They may if all are training images, and if each data set has at least half as many among them as a new fit
        would take of it.
        """
        if not self.training.issuperset(fit):
            return False
        member = self.development.member
        least = np.bincount(member[self.positions(self.fresh_fit)], minlength=member[-1] + 1)
        return bool((2 * np.bincount(member[self.positions(fit)], minlength=member[-1] + 1) >= least).all())

    @cached_property
    def distinct(self) -> list[int]:
        """Images without those whose digest an earlier one has."""
        return sorted(self._first_of.values())

    def positions(self, fit: Sequence[str]) -> list[int]:
        """The images of digests in hexadecimal."""
        return [self._first_of[bytes.fromhex(digest)] for digest in fit]

    def of(self, images: Sequence[int]) -> list[bytes]:
        """The digests of some images."""
        return [self.digests[image] for image in images]

    @cached_property
    def _first_of(self) -> dict[bytes, int]:
        return {digest: image for image, digest in reversed(list(enumerate(self.digests)))}
