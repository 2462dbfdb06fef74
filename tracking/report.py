"""The report: one HTML file with all a finished search says, readable without a network or scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffsift.common.files import write_atomically
from diffsift.errors import StudyError

from ._figures import curve_figure, front_figure, score_figure
from ._pictures import IGNORED, class_colour, colour_labels, colour_normals, colour_values, png_uri
from .records import ActivationDecision, FinalRow, Outcome

__all__ = ["ActivationPicture", "PredictionPicture", "ReportPictures", "write_report"]

Pixels = npt.NDArray[Any]
_STAGES = {"in": "Input", "down": "Down", "mid": "Middle", "up": "Up"}


@dataclass(frozen=True)
class ActivationPicture:
    """An activation on one image, as colours.

    Attributes:
        name: of the activation.
        timestep: at which it was taken.
        kept: whether the filters kept it.
        rgb: its first three principal components: uint8 (height, width, 3).
    """

    name: str
    timestep: int
    kept: bool
    rgb: Pixels


@dataclass(frozen=True)
class PredictionPicture:
    """A test image with its label and what was predicted for it.

    Attributes:
        image: (height, width, 3), uint8 or 0 to 1.
        label: (height, width); class ids, of which 255 is ignored, or, as floats, values, of which NaN is unknown. Both
            are drawn grey. Or (height, width, 3): normals, NaN where unknown.
        prediction: like `label`.
    """

    image: Pixels
    label: Pixels
    prediction: Pixels


@dataclass(frozen=True)
class ReportPictures:
    """What the report shows besides tables; parts that are empty are left out.

    Attributes:
        image: that all `activations` were taken from: (height, width, 3), uint8 or 0 to 1.
        activations: pictures of kept and dropped activations.
        predictions: test images.
    """

    image: Pixels | None = None
    activations: Sequence[ActivationPicture] = ()
    predictions: Sequence[PredictionPicture] = ()


def write_report(outcome: Outcome, pictures: ReportPictures, path: Path) -> None:
    """Write the report as one self-contained HTML file, replacing an older one in one step.

    Args:
        outcome: of the search.
        pictures: shown besides the tables.
        path: of the file; its folder is made.

    Raises:
        StudyError: the file cannot be written.
        ValueError: a picture has the wrong shape.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("diffsift.tracking"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = _score
    environment.filters["gain"] = _gain
    page = environment.get_template("report.html.j2").render(**_content(outcome, pictures))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page)
    except OSError as error:
        raise StudyError(
            f"the report {path} cannot be written: {error.strerror or error}; make its folder writable, or free space."
        ) from error


def _content(outcome: Outcome, pictures: ReportPictures) -> dict[str, Any]:
    """Everything the template asks for."""
    return {
        "outcome": outcome,
        "found_row": next((row for row in outcome.table if row.gain is None), None),
        "rival": _strongest_rival(outcome.table),
        "best_trial": max(outcome.trials, key=lambda trial: trial.score, default=None),
        "score_figure": score_figure(outcome.table, outcome.metric) if outcome.table else None,
        "curve_figure": curve_figure(outcome.trials, outcome.maximised or outcome.metric) if outcome.trials else None,
        "front_figures": [
            (cost, front_figure(outcome.trials, outcome.front, cost, outcome.maximised or outcome.metric))
            for cost in (outcome.front_costs if outcome.front else ())
        ],
        "kept_count": sum(decision.kept for decision in outcome.decisions),
        "reasons": _reasons(outcome.decisions),
        "stages": _stages(outcome.decisions),
        "picture_source": None if pictures.image is None else png_uri(pictures.image),
        "picture_groups": _picture_groups(pictures.activations),
        "predictions": [_prediction(picture) for picture in pictures.predictions],
        "measures": list(dict.fromkeys(name for row in outcome.measures.values() for name in row)),
        "legend": _legend(outcome.class_names, pictures.predictions),
    }


def _strongest_rival(table: Sequence[FinalRow]) -> FinalRow | None:
    return min((row for row in table if row.gain is not None), key=lambda row: row.gain or 0.0, default=None)


def _reasons(decisions: Sequence[ActivationDecision]) -> list[tuple[str, int]]:
    """Why activations were dropped, most frequent first."""
    return Counter(decision.reason or "no reason given" for decision in decisions if not decision.kept).most_common()


def _stages(decisions: Sequence[ActivationDecision]) -> list[dict[str, Any]]:
    """The decisions by stage, in the order of execution."""
    ordered = sorted(decisions, key=lambda decision: decision.depth)
    order = list(dict.fromkeys(decision.stage for decision in ordered))
    ordered.sort(key=lambda decision: order.index(decision.stage))  # stable: a stage's parts keep their order
    ordered.sort(key=lambda decision: (decision.backbone != "main", decision.backbone))
    groups = [
        (backbone, stage, list(group))
        for (backbone, stage), group in groupby(ordered, key=lambda decision: (decision.backbone, decision.stage))
    ]
    return [
        {
            "title": ("" if backbone == "main" else f"{backbone}: ") + _STAGES.get(stage, stage),
            "rows": rows,
            "kept": sum(row.kept for row in rows),
        }
        for backbone, stage, rows in groups
    ]


def _picture_groups(activations: Sequence[ActivationPicture]) -> list[dict[str, Any]]:
    groups = []
    for kept, title in ((True, "Kept"), (False, "Dropped")):
        pictures = [
            {"name": picture.name, "timestep": picture.timestep, "uri": png_uri(picture.rgb)}
            for picture in activations
            if picture.kept is kept
        ]
        if pictures:
            groups.append({"title": title, "pictures": pictures})
    return groups


def _prediction(picture: PredictionPicture) -> dict[str, str]:
    """A scene's three pictures; the prediction is grey too where the label says to ignore."""
    label, prediction = np.asarray(picture.label), np.asarray(picture.prediction)
    if label.ndim == 3:
        return {
            "image": png_uri(picture.image),
            "label": png_uri(colour_normals(label)),
            "prediction": png_uri(colour_normals(prediction)),
        }
    if label.dtype.kind == "f":
        low, high = (float(np.nanmin(label)), float(np.nanmax(label))) if np.isfinite(label).any() else (0.0, 1.0)
        return {
            "image": png_uri(picture.image),
            "label": png_uri(colour_values(label, low, high)),
            "prediction": png_uri(colour_values(prediction, low, high)),
        }
    shown = np.where(label == IGNORED, IGNORED, prediction) if label.shape == prediction.shape else prediction
    return {
        "image": png_uri(picture.image),
        "label": png_uri(colour_labels(label)),
        "prediction": png_uri(colour_labels(shown)),
    }


def _legend(class_names: Sequence[str], predictions: Sequence[PredictionPicture]) -> list[tuple[str, str]]:
    """Name and colour of each class that occurs in the pictures."""
    seen = {
        int(index)
        for picture in predictions
        for part in (picture.label, picture.prediction)
        if np.asarray(part).dtype.kind != "f"
        for index in np.unique(part)
    }
    names = dict(enumerate(class_names)) | {IGNORED: "ignored"}
    return [
        (names.get(index, f"class {index}"), "rgb({}, {}, {})".format(*class_colour(index))) for index in sorted(seen)
    ]


def _score(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _gain(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
