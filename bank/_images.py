"""Images of a development set: as tensors, and what names their records."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ._records import DIGEST_BYTES
from .development import DevelopmentSet
from .specification import BankSpecification


def image_digests(development: DevelopmentSet) -> list[bytes]:
    """Per image, what shapes its record beside the entry's key: its pixels, its prompt and its points.

    Names, labels and folds are left out, so data sets share the records of the images that they share.
    """
    digests = []
    for index in range(len(development.samples)):
        sample = development.samples[index]
        about = f"{sample.image.shape}:{sample.prompt!r}:{development.points[index].shape}"
        hasher = hashlib.blake2b(about.encode(), digest_size=DIGEST_BYTES)
        hasher.update(np.ascontiguousarray(sample.image).data)
        hasher.update(np.ascontiguousarray(development.points[index]).data)
        digests.append(hasher.digest())
    return digests


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
        return image_digests(self.development)

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

        They may where all are training images, and where of each data set there are at least half as many as a new fit
        would take.
        """
        if not self.training.issuperset(fit):
            return False
        part = self.development.part
        least = np.bincount(part[self.positions(self.fresh_fit)], minlength=part[-1] + 1)
        return bool((2 * np.bincount(part[self.positions(fit)], minlength=part[-1] + 1) >= least).all())

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
