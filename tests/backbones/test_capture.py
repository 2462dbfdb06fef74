"""Capture: exact values, hooks that go away, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffsift.backbones import Activation, Capture, PipelineBackbone, as_map
from diffsift.errors import CaptureError


def tap(module: str, name: str = "") -> Activation:
    return Activation(name or module, "res-out", "up", 0, 0, 4, 1, "tokens", module)


def hooks_in(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.shared(self.shared(x)))


class _Lists(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


def test_hooks_go_away_on_success_early_stop_and_error(network: nn.Sequential) -> None:
    x = torch.ones(1, 4)
    kept = network[0].register_forward_hook(lambda *_: None)
    for stop_early in (True, False):
        with Capture(network, [tap("0"), tap("1")], stop_early=stop_early) as captured:
            assert hooks_in(network) == 3
            network(x)
        assert set(captured.tensors) == {"0", "1"}
        assert hooks_in(network) == 1
    with pytest.raises(ZeroDivisionError), Capture(network, [tap("2")]):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="shape"), Capture(network, [tap("2")]):
        network(torch.ones(1, 3))
    with pytest.raises(CaptureError), Capture(network, [tap("0"), tap("9")]):
        pass
    assert hooks_in(network) == 1
    kept.remove()


def test_values_are_those_of_the_modules_bit_for_bit(tiny_backbone: PipelineBackbone) -> None:
    known = [entry for entry in reversed(tiny_backbone.activations()) if entry.port != "attention"]
    one_of_each = {entry.kind: entry for entry in known}.values()
    assert len(one_of_each) == 15
    modules = dict(tiny_backbone.denoiser.named_modules())
    received: dict[str, Tensor] = {}
    returned: dict[str, Tensor] = {}

    def note(path: str, args: tuple[Tensor, ...], output: object) -> None:
        received[path] = args[0] if args else torch.empty(0)
        first = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
        assert isinstance(first, Tensor)
        returned[path] = first

    handles = [
        modules[path].register_forward_hook(lambda _, args, output, path=path: note(path, args, output))
        for path in {entry.module for entry in one_of_each}
    ]
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 8, 8).unbind(0)
    try:
        with torch.inference_mode(), Capture(tiny_backbone.denoiser, list(one_of_each), stop_early=False) as captured:
            tiny_backbone.denoise(clean, noise, 100, tiny_backbone.condition(1))
    finally:
        for handle in handles:
            handle.remove()
    for entry in one_of_each:
        expected = (received if entry.port == "input" else returned)[entry.module]
        assert torch.equal(captured.tensors[entry.name], expected), entry.name


def test_nothing_runs_after_the_last_activation(network: nn.Sequential) -> None:
    ran: list[str] = []
    network[1].register_forward_hook(lambda *_: ran.append("1"))
    network[2].register_forward_hook(lambda *_: ran.append("2"))
    with Capture(network, [tap("0")]):
        network(torch.ones(1, 4))
        pytest.fail("the block must end with the forward pass")
    assert ran == []
    with Capture(network, [tap("1"), tap("0")]):
        network(torch.ones(1, 4))
    assert ran == ["1"]


def test_a_compiled_denoiser_is_refused(network: nn.Sequential) -> None:
    with pytest.raises(CaptureError, match="may be compiled"):
        Capture(torch.compile(network), [tap("0")])  # type: ignore[arg-type]
    network.compile()
    with pytest.raises(CaptureError, match="may be compiled"):
        Capture(network, [tap("0")])


def test_an_unknown_module_is_named_with_the_closest(network: nn.Sequential) -> None:
    network.add_module("attention", nn.Identity())
    with pytest.raises(CaptureError, match=r"module 'attentoin', which .* did you mean 'attention'"):
        Capture(network, [tap("attentoin")]).__enter__()


def test_a_module_that_runs_twice_or_never_is_refused() -> None:
    model = _Twice()
    model.idle = nn.Linear(4, 4)
    for wanted, message in ((["shared", "last"], "shared ran 2 times"), (["idle", "last"], "idle ran 0 times")):
        with pytest.raises(CaptureError, match=message), Capture(model, [tap(name) for name in wanted]):
            model(torch.ones(1, 4))


def test_only_tensors_can_be_captured() -> None:
    model = nn.Sequential(_Lists())
    with (
        pytest.raises(CaptureError, match=r"must be tensor 1 of the output of 0, which has 1"),
        Capture(model, [replace(tap("0"), item=1)]),
    ):
        model(torch.ones(1, 4))


def test_what_cannot_be_captured_is_refused_with_the_reason() -> None:
    text = replace(tap("0"), unreadable="does not depend on the image")
    with pytest.raises(CaptureError, match=r"cannot be captured: does not depend on the image"):
        Capture(nn.Sequential(nn.Linear(1, 1)), [text]).__enter__()


def test_as_map_cuts_off_text_and_shared_columns() -> None:
    joint = torch.arange(2 * 9 * 4.0).reshape(2, 9, 4)
    last = as_map(joint, replace(tap("0"), tokens="last"), (2, 3))
    assert torch.equal(last, joint[:, 3:].transpose(1, 2).reshape(2, 4, 2, 3))
    first = as_map(joint, replace(tap("0"), tokens="first", columns=(1, 3), channels=2), (2, 3))
    assert torch.equal(first, joint[:, :6, 1:3].transpose(1, 2).reshape(2, 2, 2, 3))
    rows = torch.randn(2, 2, 3, 4)
    assert torch.equal(as_map(rows, replace(tap("0"), layout="map-last"), (2, 3)), rows.permute(0, 3, 1, 2))


def test_as_map_gives_maps_and_refuses_another_shape() -> None:
    tokens = torch.arange(24, dtype=torch.float16).reshape(1, 6, 4)
    feature_map = as_map(tokens, tap("0"), (2, 3))
    assert feature_map.dtype == torch.float16
    assert torch.equal(feature_map[0, :, 1, 2], tokens[0, 5].float())
    with pytest.raises(CaptureError, match=r"declared as \(1, 4, 4\), but 0 gave \(1, 6, 4\)"):
        as_map(tokens, tap("0"), (2, 2))
    with pytest.raises(CaptureError, match="declared as"):
        as_map(tokens, replace(tap("0"), layout="map"), (2, 3))
