"""The contract of backbones, met by pipelines of every family, the controls, and the example of the documentation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.examples import load_example
from support.tiny_pipelines import FAMILIES, backbone_of, build

from diffsift.backbones import Backbone, LatentControl, ModelSpecification, PixelControl, load
from diffsift.testing.backbone import BackboneContract, readable

SIZES = {"DDPM": None, "DiT": None}
"""Pipelines that know no other size than the model's own."""


class TestPipelines(BackboneContract):
    @pytest.fixture(scope="class", params=FAMILIES)
    def make_backbone(self, request: pytest.FixtureRequest) -> Callable[[], Backbone]:
        return lambda: backbone_of(build(request.param), image_size=SIZES.get(request.param, (16, 16)))

    def test_there_are_many_activations(self, backbone: Backbone) -> None:
        assert len(readable(backbone)) >= 10


class TestVariants(BackboneContract):
    @pytest.fixture(scope="class")
    def make_backbone(self) -> Callable[[], Backbone]:
        model = ModelSpecification(id="tiny", image_size=(16, 32), noise_seeds=2, noise_shared=True, resize="pad")
        return lambda: backbone_of(build("SD 1.5")).varied(model, name="variant")


class TestControls(BackboneContract):
    @pytest.fixture(scope="class", params=[PixelControl, LatentControl])
    def make_backbone(self, request: pytest.FixtureRequest) -> Callable[[], Backbone]:
        return lambda: request.param(backbone_of(build("SD 1.5")))


class TestExample(BackboneContract):
    @pytest.fixture(scope="class")
    def make_backbone(self) -> Callable[[], Backbone]:
        load_example("custom_backbone")
        return lambda: load(ModelSpecification(kind="noisy-conv", id="mine", options={"width": 4}))
