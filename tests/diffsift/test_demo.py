"""The demo's specifications, and the pipelines that ship with diffsift."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from diffusers import DiffusionPipeline

from diffsift.backbones import ModelSpecification, load
from diffsift.demo import PIPELINES, TRIALS, demo_specification
from diffsift.errors import SpecificationError


def test_every_demo_is_a_study_of_its_own() -> None:
    demos = [
        demo_specification(task=task, model=model, seed=seed, trials=7)
        for task, model, seed in product(TRIALS, (*PIPELINES, "both"), (0, 3))
    ]
    assert len({specification.study.name for specification in demos}) == len(demos)
    assert {specification.study.trials for specification in demos} == {7}


@pytest.mark.parametrize("task", TRIALS)
def test_a_demo_is_of_its_task_and_seed(task: str) -> None:
    specification = demo_specification(task=task, seed=3)
    assert (specification.task.kind, specification.study.trials) == (task, TRIALS[task])
    assert specification.study.seed == specification.data.seed == 3


@pytest.mark.parametrize(
    ("model", "folders"), [("unet", ["unet"]), ("transformer", ["transformer"]), ("both", ["unet", "transformer"])]
)
def test_a_demo_searches_on_its_models(model: str, folders: list[str]) -> None:
    models = demo_specification(model=model).models.values()
    assert [entry.id for entry in models] == [str(PIPELINES[folder]) for folder in folders]


def test_what_the_demo_lacks_is_refused_with_what_it_has() -> None:
    with pytest.raises(SpecificationError, match=r"task must be one of segmentation, depth.* but got 'depht'"):
        demo_specification(task="depht")
    with pytest.raises(SpecificationError, match=r"model must be one of unet, transformer, both, but got 'dit'"):
        demo_specification(model="dit")


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_are_plain_pipelines_of_diffusers(name: str) -> None:
    pipeline = DiffusionPipeline.from_pretrained(PIPELINES[name], torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("red sphere and blue box", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (64, 64, 3)
    activations = load(ModelSpecification(id=str(PIPELINES[name]), device="cpu")).activations()
    assert len(activations) > 50


def test_weights_are_small() -> None:
    files = [file for folder in PIPELINES.values() for file in folder.rglob("*.safetensors")]
    assert sum(file.stat().st_size for file in files) <= 16_000_000
