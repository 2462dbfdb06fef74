"""A short search on the built-in pipeline and data, from Python.

    python examples/select_in_python.py

The same fields as in a YAML file, as a nested dictionary. Repeated, it goes on where it stopped, so with more trials
only the further ones are evaluated.
"""

from __future__ import annotations

import diffsift
from diffsift.demo import PIPELINE

result = diffsift.select(
    {
        "model": {"id": str(PIPELINE)},
        "data": {"kind": "rendered-scenes", "train": 150, "validation": 150, "test": 200},
        "timesteps": [50, 150],
        "study": {"name": "from-python", "trials": 60},
    },
    out="from-python.json",
    report="from-python.html",
)
for row in result.outcome.table:
    print(f"{row.name:26} {row.score:.3f} [{row.low:.3f}, {row.high:.3f}] {row.channels:5d} channels")
print(result.outcome.verdict)
for candidate, weight in result.outcome.found.members:
    print(f"{weight:4.2f} {candidate}")
