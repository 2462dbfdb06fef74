"""Counts what the CPU's allocator of torch hands out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch.autograd.profiler import profile


@dataclass
class Allocations:
    """What was allocated within a block.

    Attributes:
        peak: most bytes that were allocated at a time beyond those at the start.
        left: bytes that were allocated at the end beyond those at the start.
        largest: bytes of the largest single allocation.
    """

    peak: int = 0
    left: int = 0
    largest: int = 0


@contextmanager
def counted() -> Iterator[Allocations]:
    """Count the allocations of a block, also those inside operations; the result is filled in when the block ends."""
    found = Allocations()
    with profile(profile_memory=True) as profiler:
        yield found
    results = profiler.kineto_results
    assert results is not None
    for event in sorted(
        (entry for entry in results.events() if entry.name() == "[memory]"), key=lambda e: e.start_ns()
    ):
        found.left += event.nbytes()
        found.peak = max(found.peak, found.left)
        found.largest = max(found.largest, event.nbytes())
