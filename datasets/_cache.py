"""Loaded samples in memory, so that several passes over the data decode each image once."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from ._samples import Sample

CACHED_BYTES = 512 * 2**20
"""Bytes of images and labels that a data set holds in memory at most."""


class SampleCache:
    """Samples by name: the first ones that are loaded, as many as fit.

    Data are read in passes, from the first sample to the last. Where not all samples fit, a cache that throws out the
    least recently used one would have thrown out each sample before its turn comes again; one that keeps the first
    ones serves them in every pass.

    Args:
        limit: bytes of images and labels together.
    """

    def __init__(self, limit: int = CACHED_BYTES) -> None:
        self._samples: dict[str, Sample] = {}
        self._free, self._lock = limit, Lock()

    def get(self, name: str, load: Callable[[str], Sample]) -> Sample:
        """The sample of a name, loaded if it is not in memory. Its arrays are read-only."""
        known = self._samples.get(name)
        if known is not None:
            return known
        sample = load(name)
        for array in (sample.image, sample.label):
            array.flags.writeable = False
        size = sample.image.nbytes + sample.label.nbytes
        with self._lock:
            if name not in self._samples and size <= self._free:
                self._samples[name] = sample
                self._free -= size
        return sample
