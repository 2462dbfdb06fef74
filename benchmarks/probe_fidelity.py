"""Does the fast probe rank selections as the slow probes of papers do?

On the demo's pipeline and scenes, at timesteps 50 and 200: at least 100 selections of one to four candidates, drawn
evenly over the ranks of a search's history (weak, middling and near the best), scored by the fast probe on the bank and
by every reference probe of the task on uncompressed features at all pixels, with the same folds. Printed per pair:

- Spearman's rank correlation over all selections, and within the quarter that the reference scores highest;
- the regret: the reference's score of its own best selection minus its score of the fast probe's best, in the metric's
  unit, and as a share of the best score.

The fast probe is tried with several penalties, compressions and numbers of sampled locations, and as nearest
neighbours; its row with the specification's defaults is the one that a user gets. "auto" chooses the penalty within the
training images by squared error from moments; "auto by the metric" chooses it by the task's metric on the same inner
folds, at the price of predictions: what the first is to be measured against. The scenes' seed is used nowhere else.

Noise that is left: one pipeline, one set of scenes, one seed of the reference heads. Scores of both probes share their
held-out images, so the images' sampling noise is common to both.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, environment, print_table, write_csv
from scipy.stats import spearmanr
from tqdm import tqdm

from diffsift.bank import ALWAYS_FIT, Bank, folds_by_group
from diffsift.common.reporting import NullReporter
from diffsift.demo import PIPELINE
from diffsift.objectives import Objective, Probe, Score
from diffsift.objectives.reference import ReferenceProbe, ReferenceProbeFactory, reference_kinds
from diffsift.runs.prepare import Prepared, prepare
from diffsift.search import SearchSpace, SubsetGPSampler
from diffsift.spaces import Candidate, Selection
from diffsift.specification import Specification
from diffsift.study_store import StudyStore

IMAGES = {"segmentation": 20, "depth": 60, "classification": 300, "correspondence": 300}
"""Training images, and as many held-out ones: fewer where a reference learns from every pixel."""
PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
COMPRESSIONS = (16, 32, 64, 96)
LOCATIONS = (16, 256)
SEED = 31


def main() -> None:
    options = _options()
    summary: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for task in options.tasks:
        images = options.images or IMAGES[task]
        kinds = [kind for kind in reference_kinds(task) if kind in (options.references or reference_kinds(task))]
        with tempfile.TemporaryDirectory(prefix="diffsift-fidelity-") as temporary:
            prepared, fast = _fast_probes(task, images, Path(temporary), options.fast)
            selections = _selections(prepared, fast["default"], options.evaluations, options.selections)
            if options.references_from:
                kinds, selections, slow = _stored(options.references_from, task, kinds, selections)
            else:
                slow = _slow(prepared, selections, kinds)
            found = [
                {name: probe.score(selection).value for name, probe in fast.items()} | scored
                for selection, scored in tqdm(list(zip(selections, slow, strict=True)), desc="fast", unit="selection")
            ]
        for selection, row in zip(selections, found, strict=True):
            scores.append({"task": task, "selection": selection.key, "members": len(selection.members), **row})
        summary.extend(_compared(task, images, kinds, found))
    cells = [
        (
            f"{row['task']}: {row['fast']}",
            row["reference"],
            f"{row['spearman']:.3f}",
            f"{row['spearman_top_quarter']:.3f}",
            f"{row['regret']:.4f}",
            f"{row['regret_share']:.1%}",
        )
        for row in summary
    ]
    print_table(("fast probe", "reference", "spearman", "top quarter", "regret", "of the best"), cells)
    write_csv(options.out, summary)
    columns = list(dict.fromkeys(key for row in scores for key in row))
    write_csv(
        options.out.with_name(f"{options.out.stem}_selections.csv"),
        [{column: row.get(column) for column in columns} for row in scores],
    )


def _fast_probes(
    task: str, images: int, folder: Path, wanted: Sequence[str] | None
) -> tuple[Prepared, dict[str, Probe]]:
    """The fast probe as a user gets it, and variants of it, or those of them that are wanted."""
    base = {
        "model": {"id": str(PIPELINE), "device": "cpu", "batch_size": 32},
        "data": {"kind": "rendered-scenes", "train": images, "validation": images, "test": 20, "seed": SEED},
        "task": {"kind": task},
        "timesteps": [50, 200],
        "filters": {"rules": "none", "drop": ["unet-*", "*-self-out", "*-cross-out"]},
        "study": {"name": "fidelity"},
    }
    variants: dict[str, dict[str, Any]] = {"default": {}}
    if task != "correspondence":
        variants |= {f"penalty {value:g}": {"probe": {"regularisation": value}} for value in PENALTIES}
        variants["auto"] = {"probe": {"regularisation": "auto"}}
        variants["knn"] = {"probe": {"kind": "knn"}}
    if task in ("segmentation", "depth"):
        variants |= {f"{value} locations": {"bank": {"pixels_per_image": value}} for value in LOCATIONS}
    variants |= {f"{value} channels": {"bank": {"max_channels": value}} for value in COMPRESSIONS}
    probes: dict[str, Probe] = {}
    objectives: dict[str, Objective] = {}
    for name, changed in variants.items():
        if name != "default" and wanted and name not in wanted:
            continue
        specification, store = Specification.parse({**base, **changed}), StudyStore(folder)
        prepared = prepare(specification, store, specification.context(store.workspace, NullReporter()))
        prepared.fill()
        probes[name], objectives[name] = prepared.probe, prepared.objective
        if name == "default":
            first = prepared
    if task != "correspondence" and all(f"penalty {value:g}" in probes for value in PENALTIES):
        inner: Any = InnerBank(first.bank)
        names = [f"penalty {value:g}" for value in PENALTIES]
        probes["auto by the metric"] = ByMetric([(objectives[name].probe(inner), probes[name]) for name in names])
    return first, probes


class InnerBank:
    """The training images of a bank, in the folds that "auto" chooses in."""

    def __init__(self, bank: Bank) -> None:
        development = bank.development
        self._bank, self._images = bank, np.flatnonzero(development.fold == ALWAYS_FIT)
        parts = ("points", "labels", "weights", "training")
        groups = tuple(development.groups[image] for image in self._images)
        self.development = replace(
            development,
            **{name: getattr(development, name)[self._images] for name in parts},
            fold=folds_by_group(groups, 3, seed=0),
            groups=groups,
        )

    def __getitem__(self, candidate: Candidate) -> Any:
        entry = self._bank[candidate]
        return replace(entry, features=entry.features[self._images])


class ByMetric(Probe):
    """Scores by the penalty whose inner score is highest.

    Args:
        probes: for each penalty, the probe of the inner folds and that of the held-out images.
    """

    def __init__(self, probes: Sequence[tuple[Probe, Probe]]) -> None:
        self._probes, self.metric = probes, probes[0][1].metric

    def score(self, selection: Selection) -> Score:
        _, probe = max(self._probes, key=lambda pair: pair[0].score(selection).value)
        return probe.score(selection)

    def held_out(self, selection: Selection) -> Any:
        raise NotImplementedError

    def fit(self, selection: Selection) -> None:
        raise NotImplementedError


def _selections(prepared: Prepared, probe: Probe, evaluations: int, wanted: int) -> list[Selection]:
    """Of a search's history, `wanted` selections evenly over their ranks, as many of each number of members."""
    pool = prepared.pool()
    channels = {candidate: prepared.bank[candidate].standardiser.channels for candidate in pool}
    space = SearchSpace(pool, channels, prepared.specification.limits.model_copy(update={"activations": 4}))
    sampler = SubsetGPSampler(space, seed=SEED)
    history: dict[Selection, float] = {}
    for _ in tqdm(range(evaluations), desc="history", unit="trial"):
        selection, _ = sampler.propose(history)
        history[selection] = probe.score(selection).value
    # A search meets few weak selections of many members: random ones stand beside it.
    generator = np.random.default_rng(SEED)
    for count in (2, 3, 4) * (evaluations // 6):
        drawn = Selection.of([pool[int(i)] for i in generator.choice(len(pool), count, replace=False)])
        history[drawn] = probe.score(drawn).value
    chosen: list[Selection] = []
    for count in (1, 2, 3, 4):
        ranked = sorted((s for s in history if len(s.members) == count), key=history.__getitem__)
        ranks = np.linspace(0, len(ranked) - 1, min(len(ranked), -(-wanted // 4))).round().astype(int)
        chosen.extend(ranked[int(rank)] for rank in np.unique(ranks))
    return chosen


def _slow(prepared: Prepared, selections: Sequence[Selection], kinds: Sequence[str]) -> list[dict[str, float]]:
    """Scores of every selection by reference probes."""
    factory = ReferenceProbeFactory(
        prepared.objective,
        prepared.bank.development,
        prepared.backbones,
        prepared.bank.standardisers(prepared.pool()),
        prepared.context,
    )
    references = {kind: factory.make(kind) for kind in kinds}
    for reference in references.values():
        if isinstance(reference, ReferenceProbe):
            reference.load(selections)
    return [
        {f"reference {kind}": probe.score(selection).value for kind, probe in references.items()}
        for selection in tqdm(selections, desc=prepared.specification.task.kind, unit="selection")
    ]


def _stored(
    file: Path, task: str, kinds: Sequence[str], selections: Sequence[Selection]
) -> tuple[list[str], list[Selection], list[dict[str, float]]]:
    """The selections that an earlier run scored, with the same pipeline and images, and what it wrote down of them."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = {row["selection"]: row for row in csv.DictReader(stream) if row["task"] == task}
    kept = [selection for selection in selections if selection.key in rows]
    print(f"{task}: {file.name} holds {len(kept)} of {len(selections)} selections; the others are left out")
    known = [kind for kind in kinds if kept and rows[kept[0].key].get(f"reference {kind}")]
    scores = [{f"reference {kind}": float(rows[entry.key][f"reference {kind}"]) for kind in known} for entry in kept]
    return known, kept, scores


def _compared(
    task: str, images: int, kinds: Sequence[str], found: Sequence[Mapping[str, float]]
) -> Iterator[dict[str, Any]]:
    names = [name for name in found[0] if not name.startswith("reference ")]
    for kind in kinds:
        slow = np.array([row[f"reference {kind}"] for row in found])
        top = slow >= np.quantile(slow, 0.75)
        for name in [*names, *(f"reference {other}" for other in kinds if other != kind)]:
            scores = np.array([row[name] for row in found])
            regret = slow.max() - slow[scores.argmax()]
            yield {
                "task": task,
                "fast": name,
                "reference": kind,
                "selections": len(found),
                "images": images,
                "spearman": float(spearmanr(scores, slow).statistic),
                "spearman_top_quarter": float(spearmanr(scores[top], slow[top]).statistic),
                "regret": float(regret),
                "regret_share": float(regret / abs(slow.max())),
                "best": float(slow.max()),
                **environment(),
            }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=IMAGES, default=list(IMAGES), help="default: all")
    parser.add_argument("--images", type=int, help="training images, and as many held out (default: by task)")
    parser.add_argument("--references", nargs="+", help="of the task's reference probes (default: all)")
    parser.add_argument(
        "--references-from",
        type=Path,
        help="take the reference scores from ..._selections.csv of an earlier run with the same pipeline and images",
    )
    parser.add_argument("--fast", nargs="+", help="variants of the fast probe beside the default (default: all)")
    parser.add_argument("--evaluations", type=int, default=240, help="of the history (default: %(default)s)")
    parser.add_argument("--selections", type=int, default=104, help="to compare (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "probe_fidelity.csv", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
