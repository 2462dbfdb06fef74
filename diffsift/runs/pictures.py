"""Pictures for the report: activations as colours, and predictions beside labels."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diffsift.backbones import BackboneCache, activation_named
from diffsift.common.context import RunContext
from diffsift.datasets import image_tensors, prompts_of
from diffsift.evaluation import RowName
from diffsift.objectives import SplitResults
from diffsift.tracking import ActivationPicture, Outcome, PredictionPicture, ReportPictures

_KEPT_SHOWN = 6
_DROPPED_SHOWN = 6


def report_pictures(
    backbones: BackboneCache, outcome: Outcome, result: SplitResults, context: RunContext
) -> ReportPictures:
    """A few kept and dropped activations of the first test image, and predictions of the selection found.

    Of several models the first that the selection uses is shown.

    Args:
        backbones: hold the models that the selection uses.
        outcome: what the search found.
        result: samples and predictions of the test split.
        context: its noise seed is used.

    Returns:
        The pictures; predictions are left out where the selection found was not tested.
    """
    image = result.samples[0].image
    backbone = backbones[outcome.found.candidates[0].backbone]
    known = backbone.activations()
    shown = _activations_to_show(outcome, backbone.name, {entry.name for entry in known if not entry.unreadable})
    timestep = outcome.found.candidates[0].timestep
    wanted = {timestep: [activation_named(name, known) for name, _ in shown]}
    pictures = []
    batch, prompts = image_tensors([image]), prompts_of(result.samples[:1])
    for _, maps in backbone.capture(batch, wanted, seed=context.noise_seed, prompts=prompts):
        pictures = [ActivationPicture(name, timestep, kept, principal_colors(maps[name][0])) for name, kept in shown]
    predictions = []
    if RowName.FOUND in result.predictions:
        predictions = [
            PredictionPicture(sample.image, sample.label, predicted)
            for sample, predicted in zip(result.samples, result.predictions[RowName.FOUND], strict=True)
        ]
    return ReportPictures(image=image, activations=pictures, predictions=predictions)


def principal_colors(feature_map: Float[Tensor, "channels rows columns"]) -> UInt8[np.ndarray, "rows columns 3"]:
    """The three leading principal components of standardised channels as red, green and blue, each over its range.

    Args:
        feature_map: values of one activation on one image, on any device.

    Returns:
        Colours from 0 to 255. The range of a component goes from its 1st to its 99th percentile.
    """
    channels, rows, columns = feature_map.shape
    # An activation that the bank rejected may be shown: what is not finite in it counts as zero.
    flat = torch.nan_to_num(feature_map.reshape(channels, -1).T.double().cpu(), posinf=0.0, neginf=0.0)
    deviation = flat.std(0) if len(flat) > 1 else torch.zeros_like(flat[0])  # one location has none
    flat = (flat - flat.mean(0)) / deviation.clamp(min=1e-8)
    left, values, _ = torch.linalg.svd(flat, full_matrices=False)
    colors = torch.zeros(rows * columns, 3, dtype=torch.double)
    count = min(3, values.shape[0])
    colors[:, :count] = left[:, :count] * values[:count]
    low, high = colors.quantile(0.01, dim=0), colors.quantile(0.99, dim=0)
    scaled = ((colors - low) / (high - low).clamp(min=1e-8)).clamp(0, 1)
    return (scaled * 255).round().to(torch.uint8).reshape(rows, columns, 3).numpy()


def _activations_to_show(outcome: Outcome, backbone: str, readable: set[str]) -> list[tuple[str, bool]]:
    """The selection's own activations first, then kept and dropped ones spread over the network."""
    chosen = list(dict.fromkeys(c.activation for c in outcome.found.candidates if c.backbone == backbone))
    decisions = [entry for entry in outcome.decisions if entry.backbone == backbone]
    kept = [entry.name for entry in decisions if entry.kept and entry.name not in chosen]
    dropped = [entry.name for entry in decisions if not entry.kept and entry.name in readable]
    return [
        *((name, True) for name in (chosen + _spread(kept, max(0, _KEPT_SHOWN - len(chosen))))),
        *((name, False) for name in _spread(dropped, _DROPPED_SHOWN)),
    ]


def _spread(names: list[str], count: int) -> list[str]:
    if count == 0 or not names:
        return []
    positions = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[int(position)] for position in positions]
