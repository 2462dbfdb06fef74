"""What holds for every test: no network, few threads, a workspace and random numbers of its own."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Read when the libraries are imported, so it must stand before any test module imports them.
os.environ.update(
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",  # tests run in several processes
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)

import numpy as np
import pytest
from jaxtyping import config
from support import ROOT, tiny

if TYPE_CHECKING:
    from diffsift.backbones import PipelineBackbone


def pytest_collection_finish() -> None:
    """Spare the garbage collector what the imports made: each search would look through all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(autouse=True)
def _own_workspace_and_randomness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests apart, so that they pass in any order and leave nothing behind in the working directory."""
    monkeypatch.setenv("DIFFSIFT_WORKSPACE", str(tmp_path / "workspace"))
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (libraries under test still read the global state)


@pytest.fixture(autouse=True)
def _unchecked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Annotations are not checked in tests that are marked so: they pass wrong types or shapes on purpose."""
    config.update("jaxtyping_disable", request.node.get_closest_marker("unchecked") is not None)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Stable Diffusion with random weights. Not to be changed."""
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    tiny.pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with twelve images and their labels. Not to be changed."""
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def tiny_backbone(tiny_pipeline: Path) -> PipelineBackbone:
    """The tiny pipeline, loaded, with its attention maps. Not to be changed."""
    from diffsift.backbones import ModelSpecification, load

    backbone = load(ModelSpecification(id=str(tiny_pipeline), device="cpu"))
    backbone.place_attention_maps()
    return backbone
