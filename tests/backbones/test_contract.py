"""Every image denoiser that diffusers exports: what is declared is what is captured, on square and other images."""

from __future__ import annotations

import re
from functools import cache, partial

import pytest
import torch
from support import ROOT, denoisers
from support.denoiser_classes import NOT_IMAGES, exported_denoisers
from support.denoisers import DENOISERS
from torch import Tensor, nn

from diffsift.backbones import (
    Activation,
    Capture,
    as_map,
    grid_size,
    operation_shares,
    place_image_tokens,
    read_activations,
    record_pass,
)

EXCEPTIONS: dict[str, str] = {}
"""Denoisers that do not meet the contract, with the call that fails."""

COVERED = sorted(set(DENOISERS) - set(EXCEPTIONS))
QUERY_KINDS = {"self-q", "cross-q"}
BLOCK_KINDS = {"block-out", "res-out", "vit-out"}


@cache
def network_of(name: str) -> nn.Module:
    return denoisers.build(name)


def image_of(name: str, columns: int, seed: int = 0) -> Tensor:
    case = DENOISERS[name]
    shape = (case.batch, case.channels, case.rows, columns)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def placed(name: str, columns: int) -> tuple[Activation, ...]:
    network, case = network_of(name), DENOISERS[name]
    arguments = [case.arguments(image_of(name, columns, seed)) for seed in (0, 1)]
    known = read_activations(network)
    first, second = (record_pass(network, partial(network, **given), known) for given in arguments)
    return place_image_tokens(known, (first, second), (case.rows, columns), batch=case.batch)


def run(name: str, columns: int) -> None:
    with torch.inference_mode():
        network_of(name)(**DENOISERS[name].arguments(image_of(name, columns)))


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def widths(name: str) -> tuple[int, int]:
    rows = DENOISERS[name].rows
    return rows, rows * 3 // 2


def test_every_exported_denoiser_is_named() -> None:
    exported = exported_denoisers()
    assert exported == set(DENOISERS) | set(NOT_IMAGES)
    assert not set(DENOISERS) & set(NOT_IMAGES)


def test_the_readme_says_how_many() -> None:
    assert len(EXCEPTIONS) <= 0.1 * len(DENOISERS)
    readme = (ROOT / "README.md").read_text()
    assert re.search(r"(\d+) of (\d+) image\s+denoisers", readme).groups() == (str(len(COVERED)), str(len(DENOISERS)))


@pytest.mark.parametrize("name", COVERED)
def test_what_is_declared_is_captured(name: str) -> None:
    network, case = network_of(name), DENOISERS[name]
    for columns in widths(name):
        readable = [entry for entry in placed(name, columns) if not entry.unreadable]
        kinds = {entry.kind for entry in readable}
        assert kinds & BLOCK_KINDS
        assert kinds & QUERY_KINDS
        with Capture(network, readable, stop_early=False) as captured:
            run(name, columns)
        for entry in readable:
            feature_map = as_map(captured.tensors[entry.name], entry, (case.rows, columns))
            grid = grid_size((case.rows, columns), entry.stride)
            assert tuple(feature_map.shape) == (case.batch, entry.channels, *grid), entry
            assert bool(torch.isfinite(feature_map).all())
            if entry.port == "attention":
                assert float(feature_map.min()) >= 0
                assert float(feature_map.sum(1).max()) <= 1 + 1e-4
        assert hooks(network) == 0


@pytest.mark.parametrize("name", COVERED)
def test_values_are_the_modules_own(name: str) -> None:
    network, (columns, _) = network_of(name), widths(name)
    one_of_each = {
        entry.kind: entry for entry in placed(name, columns) if entry.port != "attention" and not entry.unreadable
    }
    modules, own = dict(network.named_modules()), dict[str, list[object]]()
    handles = []
    for entry in one_of_each.values():
        values = own.setdefault(entry.name, [])
        if entry.port == "input":
            handles.append(
                modules[entry.module].register_forward_pre_hook(
                    lambda _, args, kwargs, values=values: values.append(
                        args[0] if args else next(iter(kwargs.values()))
                    ),
                    with_kwargs=True,
                )
            )
        else:
            handles.append(
                modules[entry.module].register_forward_hook(lambda _, args, out, values=values: values.append(out))
            )
    run(name, columns)
    for handle in handles:
        handle.remove()
    with Capture(network, list(one_of_each.values()), stop_early=False) as captured:
        run(name, columns)
    for entry in one_of_each.values():
        (value,) = own[entry.name]
        if isinstance(value, tuple):
            value = [part for part in value if isinstance(part, Tensor)][entry.item]
        assert isinstance(value, Tensor)
        assert torch.equal(captured.tensors[entry.name], value), entry


@pytest.mark.parametrize("name", COVERED)
def test_no_hook_is_left_behind(name: str) -> None:
    network, (columns, _) = network_of(name), widths(name)
    readable = [entry for entry in placed(name, columns) if not entry.unreadable]
    ran: list[str] = []
    watchers = [
        module.register_forward_hook(lambda *_, path=path: ran.append(path))
        for path, module in network.named_modules()
        if not any(True for _ in module.children())
    ]
    before = hooks(network)
    with Capture(network, readable, stop_early=False):
        run(name, columns)
    whole, ran[:] = len(ran), []
    with Capture(network, readable[:1]) as captured:
        run(name, columns)
    assert list(captured.tensors) == [readable[0].name]
    assert 0 < len(ran) < whole
    assert hooks(network) == before
    last = network.get_submodule(readable[-1].module)
    failing = last.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ArithmeticError("on purpose")))
    with pytest.raises(ArithmeticError, match="on purpose"), Capture(network, readable, stop_early=False):
        run(name, columns)
    failing.remove()
    assert hooks(network) == before
    for watcher in watchers:
        watcher.remove()


@pytest.mark.parametrize("name", COVERED)
def test_operations_are_counted(name: str) -> None:
    columns, _ = widths(name)
    readable = [entry for entry in placed(name, columns) if not entry.unreadable]
    shares = operation_shares(network_of(name), lambda: run(name, columns), readable)
    assert set(shares) == {entry.name for entry in readable}
    in_order = [shares[entry.name] for entry in readable]
    assert in_order == sorted(in_order)
    assert 0 <= in_order[0] < in_order[-1] <= 1
    assert hooks(network_of(name)) == 0
