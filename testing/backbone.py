"""The contract of a backbone."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffsift.backbones import Activation, Backbone, grid_size
from diffsift.errors import ModelError


class BackboneContract:
    """Tests that every `Backbone` must pass.

    Subclass it under a name that pytest collects, and override the fixture `make_backbone`::

        class TestMyBackbone(BackboneContract):
            @pytest.fixture(scope="class")
            def make_backbone(self):
                return lambda: MyBackbone(ModelSpecification(kind="mine", id="mine"), "main")

    Attributes:
        tolerance: how much a feature may differ between batch sizes, absolutely; 1e-4 by default.
    """

    tolerance = 1e-4

    @pytest.fixture(scope="class")
    def make_backbone(self) -> Callable[[], Backbone]:
        """A function that makes a new backbone, the same at each call. Keep it small: all its activations are run."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def backbone(self, make_backbone: Callable[[], Backbone]) -> Backbone:
        """The backbone that most tests use."""
        made = make_backbone()
        made.place_attention_maps()
        return made

    @pytest.fixture
    def images(self, backbone: Backbone) -> Tensor:
        """Three images that are not of the backbone's size."""
        height, width = backbone.image_size
        return torch.rand(3, 3, height + 5, width + 2, generator=torch.Generator().manual_seed(0))

    def test_its_network_is_frozen(self, backbone: Backbone) -> None:
        assert not any(module.training for module in backbone.denoiser.modules())
        assert not any(parameter.requires_grad for parameter in backbone.denoiser.parameters())

    def test_its_catalogue_is_stable_and_has_unique_names(self, backbone: Backbone) -> None:
        known = backbone.activations()
        assert known == backbone.activations()
        assert len({entry.name for entry in known}) == len(known)
        assert readable(backbone)
        assert all(entry.operations is None or 0 <= entry.operations <= 1 for entry in known)

    def test_every_activation_is_captured_as_declared(self, backbone: Backbone, images: Tensor) -> None:
        maps = features(backbone, images)
        with torch.inference_mode():
            clean = backbone.encode(torch.rand(1, 3, *backbone.image_size, device=backbone.device))
        for entry in readable(backbone):
            grid = grid_size((clean.shape[-2], clean.shape[-1]), entry.stride)
            assert tuple(maps[entry.name].shape) == (3, entry.channels, *grid), entry
            assert maps[entry.name].dtype == torch.float32, entry
            assert bool(torch.isfinite(maps[entry.name]).all()), entry

    def test_an_image_has_the_same_features_in_any_batch(self, backbone: Backbone, images: Tensor) -> None:
        together, alone = features(backbone, images), features(backbone, images[1:2])
        for name, found in alone.items():
            assert torch.allclose(together[name][1:2], found, atol=self.tolerance), name

    def test_features_are_repeatable_and_depend_on_the_image(self, backbone: Backbone, images: Tensor) -> None:
        state = torch.get_rng_state()
        once = features(backbone, images)
        assert torch.equal(torch.get_rng_state(), state), "random numbers must not come from the global generator"
        torch.rand(1)
        again = features(backbone, images)
        assert all(torch.equal(once[name], again[name]) for name in once)
        assert any(not torch.equal(found[0], found[1]) for found in once.values())

    def test_hooks_are_removed_after_success_and_after_an_error(self, backbone: Backbone, images: Tensor) -> None:
        before = hooks_of(backbone.denoiser)
        features(backbone, images[:1])
        assert hooks_of(backbone.denoiser) == before
        sources = [part for entry in readable(backbone) for part in entry.parts or (entry,)]
        first = backbone.denoiser.get_submodule(sources[0].module)

        def fail(*_: object) -> None:
            raise ArithmeticError("on purpose")

        failing = first.register_forward_pre_hook(fail)
        try:
            with pytest.raises(ArithmeticError, match="on purpose"):
                features(backbone, images[:1])
        finally:
            failing.remove()
        assert hooks_of(backbone.denoiser) == before

    def test_its_identity_is_json_and_stable(
        self, backbone: Backbone, images: Tensor, make_backbone: Callable[[], Backbone]
    ) -> None:
        before = backbone.identity()
        assert json.loads(json.dumps(before)) == before
        features(backbone, images[:1])
        assert backbone.identity() == before
        assert make_backbone().identity() == before

    def test_timesteps_out_of_range_are_refused(self, backbone: Backbone, images: Tensor) -> None:
        for timestep in (-1, backbone.train_timesteps):
            with pytest.raises(ModelError, match="timestep must be in"):
                list(backbone.capture(images, {timestep: readable(backbone)[:1]}, seed=0))

    def test_without_training_it_is_another_network_with_the_same_catalogue(self, backbone: Backbone) -> None:
        if not backbone.can_be_untrained:
            pytest.skip("this backbone has no form with random weights")
        other = backbone.untrained(name="other", seed=1)
        assert other.name == "other"
        assert [entry.name for entry in other.activations()] == [entry.name for entry in backbone.activations()]
        assert other.identity() != backbone.identity()


def readable(backbone: Backbone) -> list[Activation]:
    """The activations that can be captured.

    Args:
        backbone: whose catalogue is read.

    Returns:
        Those of the catalogue, in its order.
    """
    return [entry for entry in backbone.activations() if not entry.unreadable]


def features(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """All feature maps of images at one timestep, by name.

    Args:
        backbone: to run.
        images: RGB in [0, 1].

    Returns:
        Feature maps in float32: (images, channels, rows, columns).
    """
    ((_, maps),) = backbone.capture(images, {backbone.train_timesteps // 4: readable(backbone)}, seed=0)
    return maps


def hooks_of(network: nn.Module) -> int:
    """The number of forward hooks on all modules of a network.

    Args:
        network: any module.

    Returns:
        Hooks that run before a module and after it, together.
    """
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())
