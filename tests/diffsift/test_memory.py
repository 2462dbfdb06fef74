"""Keeping freed memory: large blocks that are freed stay with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from diffsift.memory import tune_malloc
if len(sys.argv) > 1 and not tune_malloc():
    sys.exit("no effect")
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(4_000_000)  # 32 MB, given back or kept
before = faults()
for _ in range(5):
    np.ones(4_000_000)
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone has these options")
def test_freed_blocks_are_used_again_without_new_pages() -> None:
    def faults(*arguments: str) -> int:
        command = [sys.executable, "-c", SCRIPT, *arguments]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert 5 * faults("keep") < faults()
