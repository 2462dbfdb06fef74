"""Networks with random weights, made without a second network in another type, and room made for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, cast

import torch
from accelerate.hooks import remove_hook_from_module  # type: ignore[import-untyped]
from torch import Tensor, nn

from .weights import HashedNetwork, digest_of

_DIGESTS: dict[tuple[str, ...], str] = {}
"""Digests of random weights by what they follow from: such a network may be made again and again."""


def untrained_network(network: nn.Module, seed: int, device: torch.device) -> HashedNetwork:
    """A network of the same class and configuration with random weights, each in the type of the trained one.

    Args:
        network: of diffusers; its weights are not read and may have been freed.
        seed: of the random weights. They are drawn in the type of the network, so a float32 network gets others than
            one in half precision.
        device: that the weights are made on, if it is a GPU; else they are made on the CPU.

    Returns:
        The network, frozen; equal arguments give equal weights.
    """
    dtype = next(network.parameters()).dtype
    with _drawing(seed, dtype, device):
        fresh = cast("Any", type(network)).from_config(dict(cast("Any", network).config))
    # What a network keeps in another type on purpose, such as float32 norms beside half precision.
    types = {name: tensor.dtype for name, tensor in _tensors(network)}
    for name, tensor in _tensors(fresh):
        if tensor.dtype != types.get(name, tensor.dtype):
            tensor.data = tensor.data.to(types[name])
    key = (type(network).__name__, cast("Any", network).to_json_string(), str(seed), str(dtype), device.type)

    def digest(*modules: nn.Module) -> str:
        if key not in _DIGESTS:
            _DIGESTS[key] = digest_of(*modules)
        return _DIGESTS[key]

    return HashedNetwork(fresh.requires_grad_(False).eval(), digest)


def free_weights(network: nn.Module) -> None:
    """Free the weights of a network; its modules, its configuration and the types of its tensors stay.

    Args:
        network: with or without hooks of accelerate, which hold the weights of an offloaded network; they are removed.
    """
    remove_hook_from_module(network, recurse=True)
    for _, tensor in _tensors(network):
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(network.named_parameters(), network.named_buffers())


@contextmanager
def _drawing(seed: int, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Random numbers of a seed, new tensors in a type and on a GPU; afterwards all is as before."""
    before, on_gpu = torch.get_default_dtype(), device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []), torch.device(device if on_gpu else "cpu"):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
