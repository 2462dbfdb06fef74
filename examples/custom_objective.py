"""A task of one's own: segmentation scored by pixel accuracy instead of mean IoU.

python examples/custom_objective.py
"""

from __future__ import annotations

from typing import Any

from diffsift.common.files import digest
from diffsift.datasets import open_dataset, searched_on
from diffsift.objectives import (
    Evaluation,
    EvaluationProtocol,
    SingleDatasetObjective,
    dense_outputs,
    register_objective,
)
from diffsift.objectives.metrics import Accuracy, confusion


class PixelAccuracy(SingleDatasetObjective):
    """The part of all pixels that gets its true class."""

    def __init__(self, data: Any, task: Any, bank: Any, probe: Any) -> None:
        super().__init__(open_dataset(data, "segmentation"), task, bank, probe, Accuracy(), task.folds)

    @property
    def protocol(self) -> EvaluationProtocol:
        return EvaluationProtocol(
            task="pixel-accuracy",
            metric=f"pixel accuracy over {len(self.class_names)} classes",
            averaging="over all pixels of the split",
            resolution="all pixels",
            sampling="sampled locations",
            data=digest(self.dataset.identity()),
            search=searched_on(self.dataset, self.folds),
        )

    def evaluate(self, batch: Any, maps: Any, fitted: Any) -> dict[str, list[Evaluation]]:
        evaluations = {}
        for name, outputs in dense_outputs(batch.samples, maps, fitted).items():
            pairs = zip(batch.samples, (scores.argmax(0).numpy() for scores in outputs), strict=True)
            evaluations[name] = [
                Evaluation(confusion(sample.label.ravel(), predicted.ravel(), None, len(self.class_names)))
                for sample, predicted in pairs
            ]
        return evaluations


# A package that is installed does this with an entry point of the group diffsift.objectives instead.
register_objective("pixel-accuracy", PixelAccuracy)

if __name__ == "__main__":
    import diffsift
    from diffsift.demo import PIPELINE

    values = {"model": {"id": str(PIPELINE)}, "data": {"kind": "rendered-scenes", "train": 40, "test": 20}}
    study = {"name": "pixel-accuracy", "trials": 20}
    result = diffsift.select({**values, "task": {"kind": "pixel-accuracy"}, "study": study})
    print(result.outcome.found)
