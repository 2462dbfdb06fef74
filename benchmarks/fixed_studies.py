"""Fixed studies as hashes: a change that should alter no result leaves every line as it was.

    python benchmarks/fixed_studies.py

Each study is run anew on the built-in pipeline and data. A line names the study and gives the SHA-256 of all that
it decided: each trial's selection, score and fold scores in order, bit for bit, and each row of the final table.
Compare the output of two commits on the same machine with the same versions of torch and numpy: elsewhere the last
bits differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import diffsift
from diffsift.demo import PIPELINE

DATA = {"kind": "rendered-scenes", "train": 60, "validation": 60, "test": 30}
STUDIES: dict[str, dict[str, Any]] = {
    "segmentation": {"study": {"trials": 60}},
    "segmentation, cross-validated": {"data": {**DATA, "validation": 0}, "study": {"trials": 25}},
    "depth": {"task": {"kind": "depth"}, "study": {"trials": 40}},
    "classification": {"task": {"kind": "classification"}, "study": {"trials": 30}},
    "correspondence": {"task": {"kind": "correspondence", "resolution": 8}, "study": {"trials": 30}},
    "two objectives": {"study": {"trials": 30, "objectives": ["score", "channels"]}},
    "nearest neighbours": {"probe": {"kind": "knn", "exemplars": 512}, "study": {"trials": 20}},
    "tpe": {"study": {"trials": 25, "sampler": "tpe"}},
    "nsga2": {"study": {"trials": 25, "sampler": "nsga2"}},
    "random": {"study": {"trials": 25, "sampler": "random"}},
    "joint": {"joint": {"noise_seeds": [2]}, "study": {"trials": 20}},
}


def main() -> None:
    for name, fields in STUDIES.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            digest = run(fields, Path(folder))
        print(f"{name:30} {digest}", flush=True)


def run(fields: dict[str, Any], folder: Path) -> str:
    """The hash of one study."""
    specification = {
        "model": {"id": str(PIPELINE), "device": "cpu", "batch_size": 20},
        "data": DATA,
        "timesteps": [50, 200],
        "filters": {"rules": "none", "drop": ["unet-*", "*-self-out", "*-cross-out", "down-*"]},
        "tracking": {"mlflow": False},
        "bank": {"max_channels": 48},
        **fields,
    }
    specification["study"] = {"name": "fixed", "seed": 3, **fields["study"]}
    result = diffsift.select(specification, workspace=folder / "workspace", out=folder / "selection.json")
    outcome = result.outcome
    decided: list[Any] = [
        [record.selection.to_json(), record.score.hex(), [score.hex() for score in record.fold_scores]]
        for record in outcome.trials
    ]
    decided += [[row.selection.to_json(), row.score.hex(), row.low.hex(), row.high.hex()] for row in outcome.table]
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    main()
