"""A bank without images or models, whose best candidate is known: for tests of probes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from diffsift.bank import DevelopmentSet, Entry, Features
from diffsift.extraction import Standardiser
from diffsift.spaces import Candidate

INFORMATIVE, PARTIAL, NOISE = (Candidate("main", name, 50) for name in ("informative-out", "partial-out", "noise-out"))
"""Candidates that decide the targets, hold half of what decides them, and hold nothing."""


class SyntheticBank:
    """Random features of three candidates, and targets that one of them decides, in three folds.

    Args:
        task: segmentation, depth and normals have a target per location, classification has one per image.
        images: number of images; groups are pairs of them.
        locations: locations per image.
        seed: seed of features and targets.
    """

    def __init__(
        self,
        task: Literal["segmentation", "depth", "normals", "classification"] = "segmentation",
        *,
        images: int = 36,
        locations: int = 12,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        rows = 1 if task == "classification" else locations
        latent = rng.standard_normal((images, rows, 4))
        if task == "depth":
            labels = (10 + latent @ [1.0, -1.0, 0.5, 0.5]).clip(1).astype(np.float32)
        elif task == "normals":
            vectors = latent[..., :3] + [0.0, 0.0, 2.0]
            labels = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)
        else:
            classes = (latent[..., 0] > 0) + 2 * (latent[..., 1] > 0)
            labels = classes.astype(np.int64 if task == "classification" else np.uint8)
        pairs = np.arange(images) // 2
        self.development = DevelopmentSet(
            samples=[],
            points=rng.random((images, locations, 2), dtype=np.float32),
            labels=labels,
            weights=np.ones((images, rows), np.float32),
            fold=pairs % 3,
            training=np.ones(images, bool),
            groups=tuple(f"pair{pair}" for pair in pairs),
            class_names=() if task in ("depth", "normals") else tuple("abcd"),
            identity={"synthetic": task, "seed": seed},
            pooled=task == "classification",
        )
        channels = {
            INFORMATIVE: latent @ rng.standard_normal((4, 6)),
            PARTIAL: latent[..., :1] @ rng.standard_normal((1, 6)),
            NOISE: rng.standard_normal((images, rows, 6)),
        }
        self._entries = {}
        for candidate, values in channels.items():
            stored = (values / values.std((0, 1)) + 0.1 * rng.standard_normal(values.shape)).astype(np.float16)
            features = Features(stored, np.arange(images))
            standardiser = Standardiser(torch.zeros(6), torch.ones(6), None)
            self._entries[candidate] = Entry(candidate, features, standardiser, stored.nbytes, candidate.activation)

    def __getitem__(self, candidate: Candidate) -> Entry:
        return self._entries[candidate]
