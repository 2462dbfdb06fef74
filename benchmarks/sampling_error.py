"""How far is the mean IoU of sampled, weighted locations from that of all pixels?

On the demo's pipeline and scenes at timestep 50, for several selections and numbers of locations per image
(`bank.pixels_per_image`, drawn anew for each of several seeds): a head is fit on sampled locations of the training
scenes, as in a trial, and scored twice on the same held-out scenes: at their sampled locations with weighted counts, as
in a trial, and at all of their pixels. Printed per number of held-out scenes and of locations:

- the mean and the largest absolute difference over selections and seeds, and the mean difference with its sign (bias);
- the standard error that the probe gives for it (a bootstrap over locations), as the root of the mean square, and the
  root of the mean square of the differences beside it;
- the score at all pixels: what heads gain from more training locations.

Noise that is left: one pipeline, one set of scenes; a training scene's locations and a held-out scene's are drawn with
the same seed.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, environment, print_table, write_csv
from tqdm import tqdm

from diffsift.bank import Bank, DevelopmentSet, Entry
from diffsift.common.context import RunContext
from diffsift.common.reporting import NullReporter
from diffsift.datasets import RenderedScenes, Samples, Split
from diffsift.demo import PIPELINE
from diffsift.objectives import FittedSelection, ProbeSpecification, RidgeProbe
from diffsift.runs.prepare import Prepared, prepare
from diffsift.spaces import Candidate, Selection
from diffsift.specification import Specification
from diffsift.study_store import StudyStore

SEED = 53
"""Of the scenes; used nowhere else."""
ACTIVATIONS = (
    "up-level0-repeat1-res-out",
    "up-level1-repeat1-res-out",
    "up-level2-repeat0-res-out",
    "mid-repeat1-res-out",
)


class TestedOnValidation(RenderedScenes):
    """Scenes whose test split is the validation split again, so that it can be scored at all pixels."""

    def split(self, name: Split) -> Samples:
        return super().split("validation" if name == "test" else name)


class TrainingAlone:
    """A bank without its held-out images: what the heads of a trial are fit on."""

    def __init__(self, bank: Bank) -> None:
        whole, count = bank.development, int(bank.development.training.sum())
        self._bank, self._count = bank, count
        cut = {name: getattr(whole, name)[:count] for name in ("points", "labels", "weights", "fold", "training")}
        self._development = replace(whole, samples=[whole.samples[index] for index in range(count)], **cut)

    @property
    def development(self) -> DevelopmentSet:
        return self._development

    def __getitem__(self, candidate: Candidate) -> Entry:
        entry = self._bank[candidate]
        return replace(entry, features=entry.features.part(0, self._count))


def main() -> None:
    options = _options()
    rows: list[dict[str, Any]] = []
    runs = [(scenes, pixels, seed) for scenes in options.scenes for pixels in options.pixels for seed in options.seeds]
    for scenes, pixels, seed in tqdm(runs, desc="runs", unit="run"):
        with tempfile.TemporaryDirectory(prefix="diffsift-sampling-") as folder:
            prepared = _prepared(scenes, pixels, seed, Path(folder))
            rows.extend({"scenes": scenes, "pixels": pixels, "seed": seed, **row} for row in _measured(prepared))
    cells = []
    for scenes in options.scenes:
        for pixels in options.pixels:
            found = [row for row in rows if (row["scenes"], row["pixels"]) == (scenes, pixels)]
            gap = np.array([row["sampled"] - row["all_pixels"] for row in found])
            error = np.array([row["standard_error"] for row in found])
            everywhere = np.mean([row["all_pixels"] for row in found])
            numbers = (np.abs(gap).mean(), np.abs(gap).max(), gap.mean(), _root(gap), _root(error), everywhere)
            cells.append((f"{scenes} scenes, {pixels} locations", *(f"{number:.4f}" for number in numbers)))
    print_table(("", "mean |gap|", "largest", "bias", "rms gap", "standard error", "score"), cells)
    write_csv(options.out, [{**row, **environment()} for row in rows])


def _prepared(scenes: int, pixels: int, seed: int, folder: Path) -> Prepared:
    values = {
        "model": {"id": str(PIPELINE), "device": "cpu", "batch_size": 32},
        "timesteps": [50],
        "filters": {"rules": "none", "keep": list(ACTIVATIONS)},
        "limits": {"activations": 2},
        "bank": {"pixels_per_image": pixels, "seed": seed},
        "study": {"name": "sampling"},
    }
    data = TestedOnValidation(train=scenes, validation=scenes, test=1, seed=SEED)
    specification, store = Specification.of(values, data), StudyStore(folder)
    prepared = prepare(specification, store, specification.context(store.workspace, NullReporter()))
    for model in prepared.models.values():
        wanted = {t: [a for a in entries if a.name in ACTIVATIONS] for t, entries in prepared.wanted(model).items()}
        prepared.bank.fill(prepared.backbone(model.name), wanted)
    return prepared


def _measured(prepared: Prepared) -> list[dict[str, Any]]:
    """Per selection, its score as a trial estimates it, at all pixels, and the standard error given for it."""
    bank, probe = prepared.bank, prepared.probe
    trained = RidgeProbe(TrainingAlone(bank), ProbeSpecification())
    singles = [Candidate("main", name, 50) for name in ACTIVATIONS]
    pairs = [[singles[i], singles[j]] for i in range(len(singles)) for j in range(i)]
    selections = [Selection.of(members) for members in [*([single] for single in singles), *pairs, singles]]
    fitted = [
        FittedSelection(
            selection.key,
            selection,
            trained.fit(selection),
            bank.standardisers(selection.candidates),
        )
        for selection in selections
    ]
    result = prepared.objective.test(fitted, prepared.backbones, RunContext(batch_size=32))
    return [
        {
            "selection": str(selection),
            "sampled": probe.score(selection).value,
            "all_pixels": prepared.objective.metric.value(result.results[selection.key]),
            "standard_error": probe.sampling_error(selection),
        }
        for selection in selections
    ]


def _root(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, nargs="+", default=[30, 120], help="held out, and as many to fit on")
    parser.add_argument("--pixels", type=int, nargs="+", default=[16, 64, 256, 1024], help="locations per image")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the locations")
    parser.add_argument("--out", type=Path, default=RESULTS / "sampling_error.csv", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
