"""Protocols by name, against the constants that papers give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import tiny
from support.reporters import Recorder

from diffsift.errors import SpecificationError
from diffsift.runs.prepare import prepare
from diffsift.specification import Specification
from diffsift.study_store import StudyStore

SCENES = {"kind": "rendered-scenes"}


def parsed(protocol: str, **parts: Any) -> Specification:
    values = {"protocol": protocol, "model": {"id": "m"}, "data": SCENES, "study": {"name": "s"}, **parts}
    return Specification.parse(values)


def test_label_scarce_segmentation() -> None:
    data = {"kind": "ddpm-segmentation", "root": "x", "classes": 21}
    found = parsed("ddpm-segmentation", data=data, further_data={"cat": {**data, "preset": "cat-15", "classes": 15}})
    assert found.task.kind == "segmentation"
    assert found.timesteps == (50, 150, 250)
    assert found.model.noise_shared
    assert [entry.label_edge for entry in found.data_sets.values()] == [256, 256]  # type: ignore[union-attr]


def test_zero_shot_correspondence() -> None:
    found = parsed("dift", data={"kind": "spair", "root": "x"}, further_models={"b": {"id": "n"}})
    assert found.timesteps == (261,)
    task: Any = found.task
    assert (task.kind, task.threshold, task.normalise, task.average) == ("correspondence", 0.1, "box", "point")
    for model in found.models.values():
        assert (model.image_size, model.resize, model.noise_seeds) == ((768, 768), "stretch", 8)
    assert found.data.category_prompt  # type: ignore[union-attr]


def test_depth() -> None:
    task: Any = parsed("probe3d").task
    assert (task.kind, task.score, task.alignment) == ("depth", "rmse", "none")
    assert parsed("probe3d").timesteps == (50, 150, 300)  # it says nothing of noise levels


def test_what_is_given_wins() -> None:
    found = parsed("dift", timesteps=[100], task={"threshold": 0.05}, model={"id": "m", "noise_seeds": 2})
    assert found.timesteps == (100,)
    assert (found.task.kind, found.task.threshold) == ("correspondence", 0.05)  # type: ignore[union-attr]
    assert (found.model.noise_seeds, found.model.image_size) == (2, (768, 768))
    again = Specification.parse(found.model_dump(mode="json"))  # as a study is taken up again
    assert again == found


def test_a_task_of_another_protocol_is_refused() -> None:
    with pytest.raises(SpecificationError, match=r"dift is one of task\.kind correspondence, but task\.kind is depth"):
        parsed("dift", task={"kind": "depth"})


def test_an_unknown_protocol_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecificationError, match=r"protocol must be 'ddpm-segmentation', 'dift' or 'probe3d', but got"):
        parsed("difft")


def test_departures_are_said(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path) -> None:
    recorder, store = Recorder(), StudyStore(tmp_path)

    def prepared() -> None:
        specification = Specification.parse(values)
        prepare(specification, store, specification.context(store.workspace, recorder))

    values = tiny.specification(tiny_pipeline, tiny_data, protocol="ddpm-segmentation", filters={"rules": "none"})
    prepared()
    assert recorder.lines[0] == "protocol    ddpm-segmentation, but timesteps are [50, 300], not [50, 150, 250]"
    values.pop("timesteps")
    prepared()
    assert "protocol    ddpm-segmentation" in recorder.lines
