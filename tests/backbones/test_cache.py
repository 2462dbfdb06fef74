"""Backbones by name: whose networks they use; random weights beside the trained ones, or in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models import modeling_utils
from support.tiny_pipelines import backbone_of, build
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from diffsift.backbones import (
    Backbone,
    BackboneCache,
    LatentControl,
    ModelSpecification,
    PipelineBackbone,
    _untrained,
    cache,
    load,
)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Made:
    """A cache of a model, a variant of it, its latents, and both with random weights; models that were loaded."""

    def __init__(self, make: Callable[[], PipelineBackbone]) -> None:
        self.loaded: list[PipelineBackbone] = []
        self.cache = BackboneCache()

        def main() -> PipelineBackbone:
            self.loaded.append(make())
            return self.loaded[-1]

        variant = ModelSpecification(id="tiny", image_size=(32, 32))
        self.cache.add("main", main)
        self.cache.add("large", lambda: load(variant, name="large", beside=self.cache["main"]), beside="main")
        self.cache.add("latents", lambda: LatentControl(self.main), beside="main")
        self.cache.add_untrained("random", "main")
        self.cache.add(
            "random-large", lambda: load(variant, name="random-large", beside=self.cache["random"]), beside="random"
        )

    @property
    def main(self) -> Any:
        return self.cache["main"]


def tiny(**fields: Any) -> PipelineBackbone:
    return backbone_of(build("SD 1.5"), image_size=(16, 16), **fields)


def features(backbone: Backbone, images: Tensor) -> Tensor:
    wanted = [entry for entry in backbone.activations() if not entry.unreadable][-1:]
    ((_, maps),) = backbone.capture(images, {50: wanted}, seed=0)
    return maps.popitem()[1]


def test_it_knows_whose_networks_a_backbone_uses() -> None:
    made = Made(tiny)
    names = ("main", "large", "latents", "random", "random-large")
    assert [made.cache.network_of(name) for name in names] == ["main", "main", "main", "random", "random"]


def test_random_weights_stand_beside_the_model_where_memory_holds_both(images: Tensor) -> None:
    made = Made(tiny)
    random = made.cache["random"]
    assert made.cache.in_memory("main")
    assert len(made.loaded) == 1
    assert not torch.allclose(features(random, images), features(made.main, images), atol=1e-2)


@pytest.mark.parametrize("offload", [None, torch.device("cpu")], ids=["on the device", "offloaded"])
@pytest.mark.parametrize(("free", "small"), [(1000, 10**9), (10**12, 1000)], ids=["without room", "large"])
def test_without_room_they_are_made_in_place_of_the_model(
    free: int, small: int, offload: torch.device | None, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = features(tiny().untrained(), images)
    made = Made(lambda: tiny(offload=offload))
    identity, trained = made.main.identity(), features(made.main, images)
    made.cache.load("large")
    made.cache.load("latents")
    monkeypatch.setattr(cache, "free_memory", lambda device: free)
    monkeypatch.setattr(cache, "_SMALL", small)
    held: list[int] = []
    from_config = type(made.main.denoiser).from_config

    def counted(*args: Any, **options: Any) -> Any:
        held.append(sum(tensor.numel() for tensor in made.loaded[0].denoiser.state_dict().values()))
        return from_config(*args, **options)

    monkeypatch.setattr(type(made.main.denoiser), "from_config", counted)
    random = made.cache["random"]
    assert held == [0]  # the model's weights are gone before there are others
    assert [name for name in ("main", "large", "latents", "random") if made.cache.in_memory(name)] == ["random"]
    assert torch.allclose(features(random, images), expected, atol=1e-6)
    assert features(made.cache["random-large"], images).shape[-1] == 2 * expected.shape[-1]
    # The model is loaded again when it is needed, and is what it was.
    assert len(made.loaded) == 1
    assert made.main.identity() == identity
    assert len(made.loaded) == 2
    assert torch.allclose(features(made.main, images), trained, atol=1e-6)
    assert not made.cache.in_memory("random")


def test_backbones_that_cannot_free_their_weights_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(tiny)
    monkeypatch.setattr(PipelineBackbone, "free_weights", Backbone.free_weights)
    monkeypatch.setattr(cache, "free_memory", lambda device: 0)
    made.cache.load("random")
    assert made.cache.in_memory("main")
    assert next(made.main.denoiser.parameters()).numel()


def test_random_weights_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[nn.Module] = []
    compute = _untrained.digest_of

    def counted(*modules: nn.Module) -> str:
        hashed.extend(modules)
        return compute(*modules)

    monkeypatch.setattr(_untrained, "digest_of", counted)
    monkeypatch.setattr(_untrained, "_DIGESTS", {})
    first, again = tiny().untrained(), tiny().untrained()
    assert first.identity() == again.identity() == again.identity()
    assert first.identity()["denoiser"] == compute(again.denoiser)
    assert len(hashed) == 1
    assert tiny().untrained(seed=1).identity() != first.identity()
    assert len(hashed) == 2


class _Floats(TorchDispatchMode):
    """The most values of a float32 tensor that an operation returned."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.dtype == torch.float32:
            self.most = max(self.most, found.numel())
        return found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_random_weights_are_made_in_the_models_type(
    dtype: torch.dtype, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(modeling_utils.logger, "warning", lambda text, *_: warned.append(text))
    pipeline = build("SD 1.5")
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        nn.Module.to(part, dtype)
    backbone = backbone_of(pipeline, image_size=(16, 16))
    largest = max(parameter.numel() for parameter in backbone.denoiser.parameters())
    with _Floats() as floats:
        random = backbone.untrained()
    assert floats.most < largest
    assert {tensor.dtype for tensor in random.denoiser.state_dict().values()} == {dtype}
    assert features(random, images).isfinite().all()
    assert torch.get_default_dtype() == torch.float32
    assert not [text for text in warned if "kept in float32" in text]


def test_tensors_that_a_network_keeps_in_another_type_stay_so() -> None:
    network = nn.Module.to(build("SD 1.5").unet, torch.bfloat16)
    network.conv_out.to(torch.float32)
    fresh = _untrained.untrained_network(network, 0, torch.device("cpu")).module
    types = {name: tensor.dtype for name, tensor in fresh.state_dict().items()}
    assert types == {name: tensor.dtype for name, tensor in network.state_dict().items()}
    assert set(types.values()) == {torch.bfloat16, torch.float32}


def test_float32_weights_are_those_of_the_seed() -> None:
    backbone = tiny()
    before = torch.random.get_rng_state()
    found = backbone.untrained(seed=5).denoiser.state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(5)
    expected = type(backbone.denoiser).from_config(backbone.config).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
