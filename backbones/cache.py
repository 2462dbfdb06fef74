"""The backbones of a study by name: loaded on demand, and dropped when another needs the memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

import torch

from diffsift.common.reporting import LOGGER

from ._base import Backbone
from ._batches import free_memory, release_memory
from ._loading import load
from .activation import Activation
from .specification import ModelSpecification, owner_of
from .weights import DigestCache

_ROOM = 2.0
"""Free memory needed for another network, as a multiple of its denoiser: for its VAE and its activations too."""


_SMALL = 500_000_000
"""Bytes of a denoiser that may stand beside its copy with random weights: a larger one is quickly loaded again."""


class BackboneCache:
    """Backbones by name. A study may have several, and they need not fit into memory together.

    When a backbone is loaded for the first time, all others are dropped first, because its size is not known yet. From
    then on it is loaded beside others where twice the size of its denoiser is free; otherwise the others are dropped.

    Args:
        digests: remembers digests of weights between runs; by default they are computed.
    """

    def __init__(self, digests: DigestCache | None = None) -> None:
        self._digests = digests
        self._makers: dict[str, Callable[[], Backbone]] = {}
        self._loaded: dict[str, Backbone] = {}
        self._bytes: dict[str, int] = {}
        self._companions: dict[str, str] = {}
        self._trained: dict[str, str] = {}

    def add(self, name: str, make: Callable[[], Backbone], *, beside: str | None = None) -> None:
        """Register how a backbone is made.

        Args:
            name: of the backbone.
            make: loads or builds it; called again after it was dropped.
            beside: the backbone whose networks it uses; both are in memory together.
        """
        self._makers[name] = make
        if beside is not None:
            self._companions[name] = beside

    def add_untrained(self, name: str, trained: str) -> None:
        """Register the network of a backbone with random weights, a control.

        Where the trained one has more than 0.5 GB, or memory does not hold both, it is made in its place. That one is
        dropped then, and loaded again, in place of this one, when it is next asked for.

        Args:
            name: of the backbone with random weights.
            trained: the backbone with networks of its own that it is made of.
        """
        self._trained[name] = trained
        self._makers[name] = partial(self._untrained, name, trained)

    def add_models(
        self,
        models: Mapping[str, ModelSpecification],
        *,
        attention_maps: bool,
        check: Callable[[Backbone], None] = lambda backbone: None,
    ) -> None:
        """Register how models are loaded; models of one pipeline use the same networks.

        Args:
            models: by the names of their backbones.
            attention_maps: whether their attention maps are to be placed.
            check: called with each backbone when it has been loaded; raises an error to refuse it.
        """

        def make(name: str, owner: str) -> Backbone:
            beside = None if owner == name else self[owner]
            backbone = load(models[name], name=name, beside=beside, digests=self._digests)
            check(backbone)
            if attention_maps:
                backbone.place_attention_maps()
            return backbone

        for name in models:
            owner = owner_of(name, models)
            self.add(name, partial(make, name, owner), beside=None if owner == name else owner)

    def network_of(self, name: str) -> str:
        """Whose networks a backbone uses.

        Args:
            name: as registered.

        Returns:
            Its own name where it has networks of its own, as backbones with random weights have.
        """
        while name in self._companions:
            name = self._companions[name]
        return name

    def in_memory(self, name: str) -> bool:
        """Whether a backbone is loaded.

        Args:
            name: as registered.

        Returns:
            False also where its networks are loaded for another backbone.
        """
        return name in self._loaded

    def holds_both(self, trained: str) -> bool:
        """Whether random weights are made beside the trained ones, not in their place.

        Args:
            trained: a backbone with networks of its own; it is loaded where it is not in memory.

        Returns:
            True where its denoiser is small and memory holds it twice.
        """
        device, needed = _weights_device(self[trained]), self._bytes[trained]
        return needed <= _SMALL and needed * _ROOM <= free_memory(device)

    def __getitem__(self, name: str) -> Backbone:
        """A backbone, loaded if it is not in memory.

        Args:
            name: as registered.

        Raises:
            ModelError: it cannot be loaded.
        """
        if name not in self._loaded:
            beside = self._companions.get(name) or self._trained.get(name)
            if beside is None:
                self._make_room(name)
            else:
                self.load(beside)
            backbone = self._makers[name]()
            self._bytes[name] = sum(p.numel() * p.element_size() for p in backbone.denoiser.parameters())
            self._loaded[name] = backbone
        return self._loaded[name]

    def load(self, name: str) -> None:
        """Load a backbone that is not in memory.

        Args:
            name: as registered.
        """
        _ = self[name]

    def each(self, names: Collection[str]) -> Iterator[tuple[Backbone, dict[str, Activation]]]:
        """Iterate over backbones, those in memory first.

        Args:
            names: as registered.

        Yields:
            A backbone, and its activations by name.
        """
        for name in sorted(names, key=lambda name: (name not in self._loaded, list(self._makers).index(name))):
            backbone = self[name]
            yield backbone, {entry.name: entry for entry in backbone.activations()}

    def _make_room(self, name: str) -> None:
        needed = self._bytes.get(name)
        for copy in [copy for copy, trained in self._trained.items() if trained == name]:
            if needed is None or needed > _SMALL:
                self._drop(copy)
        if not self._loaded:
            return
        if needed is None or needed * _ROOM > free_memory(next(iter(self._loaded.values())).device):
            self._loaded.clear()
            release_memory()

    def _untrained(self, name: str, trained: str) -> Backbone:
        """A network with random weights: beside the trained one, or in its place."""
        backbone = self[trained]
        if not self.holds_both(trained) and backbone.free_weights():
            LOGGER.info("%s is made in place of %s, which is loaded again when it is needed.", name, trained)
            self._drop(trained)
        return backbone.untrained(name=name)

    def _drop(self, network: str) -> None:
        """Drop a backbone and those that use its networks."""
        for name in [name for name in self._loaded if self.network_of(name) == network]:
            del self._loaded[name]
        release_memory()


def _weights_device(backbone: Backbone) -> torch.device:
    """Where the weights are: those that are offloaded are on the meta device, and in the CPU's memory."""
    device = next(backbone.denoiser.parameters(), torch.empty(0)).device
    return torch.device("cpu") if device.type == "meta" else device
