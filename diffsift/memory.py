"""Memory that captured tensors live in, on Linux."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's malloc.h: no blocks of their own from the system, nothing given back, and the heap grown in large steps.
_OPTIONS = {-4: 0, -1: 2**31 - 1, -2: 2**29}


def tune_malloc() -> bool:
    """Let this process keep what it frees: passes that capture are then about as fast as passes that do not.

    glibc hands large blocks back to the system when they are freed and gets them anew, page by page. While captured
    tensors live, a pass cannot use their memory again, and getting new pages costs a tenth to a quarter of its time
    on a CPU (`benchmarks/capture_overhead.py`). The command line calls this; a library must not change a process it
    does not own, so in Python it is yours to call, before the first large tensor. The price: memory once used stays
    with the process until it ends.

    Returns:
        Whether it took effect: on Linux with glibc only.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    done = [mallopt(option, value) for option, value in _OPTIONS.items()]
    return all(done)
