"""The backbones of a study by name: loaded when they are asked for, and out of memory when another needs the room."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import cast

import psutil
import torch

from ._base import Backbone
from ._loading import load
from ._pipeline import PipelineBackbone
from .activation import Activation
from .specification import ModelSpecification, owner_of

_ROOM = 2.0
"""Free memory that another backbone must leave, as a multiple of its denoiser: for its VAE and for what it computes."""


class BackboneCache:
    """Backbones by name. A study may have several, and they need not fit into memory together.

    A backbone that was never loaded has the memory to itself: how large it is shows only then. From then on it stays
    beside others where there is room for `_ROOM` times its denoiser, and else the others go first.
    """

    def __init__(self) -> None:
        self._makers: dict[str, Callable[[], Backbone]] = {}
        self._loaded: dict[str, Backbone] = {}
        self._bytes: dict[str, int] = {}
        self._companions: dict[str, str] = {}

    def add(self, name: str, make: Callable[[], Backbone], *, beside: str | None = None) -> None:
        """Say how the backbone `name` is loaded; `beside`: the one whose parts it shares, so that both stay or go."""
        self._makers[name] = make
        if beside is not None:
            self._companions[name] = beside

    def add_models(
        self, models: Mapping[str, ModelSpecification], *, check: Callable[[Backbone], None] = lambda backbone: None
    ) -> None:
        """Say how models are loaded, by the names of their backbones; those of one pipeline share it.

        `check` is given each backbone when it was loaded.
        """

        def make(name: str, owner: str) -> Backbone:
            beside = None if owner == name else cast("PipelineBackbone", self[owner])
            backbone = load(models[name], name=name, beside=beside)
            check(backbone)
            return backbone

        for name in models:
            owner = owner_of(name, models)
            self.add(name, partial(make, name, owner), beside=None if owner == name else owner)

    def __getitem__(self, name: str) -> Backbone:
        if name not in self._loaded:
            beside = self._companions.get(name)
            if beside is None:
                self._make_room(name)
            else:
                self.load(beside)
            backbone = self._makers[name]()
            self._bytes[name] = sum(p.numel() * p.element_size() for p in backbone.denoiser.parameters())
            self._loaded[name] = backbone
        return self._loaded[name]

    def load(self, name: str) -> None:
        """Have a backbone in memory."""
        _ = self[name]

    def each(self, names: Collection[str]) -> Iterator[tuple[Backbone, dict[str, Activation]]]:
        """The named backbones one after another, those in memory first, with their activations by name."""
        for name in sorted(names, key=lambda name: (name not in self._loaded, list(self._makers).index(name))):
            backbone = self[name]
            yield backbone, {entry.name: entry for entry in backbone.activations()}

    def _make_room(self, name: str) -> None:
        if not self._loaded:
            return
        needed = self._bytes.get(name)
        if needed is None or needed * _ROOM > _free_memory(next(iter(self._loaded.values())).device):
            self._loaded.clear()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
