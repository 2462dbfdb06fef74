"""The specification: every mistake is named by its field, and the template is a specification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT

from diffsift import load_specification
from diffsift.errors import SpecificationError
from diffsift.specification import Specification

DATA = {"kind": "folder", "images": "images", "labels": "labels", "classes": 3}
VALUES: dict[str, Any] = {"model": {"id": "a/b"}, "data": DATA, "study": {"name": "horses"}}
PATHS = {"images", "labels"}  # relative to the file
TEMPLATE = ROOT / "diffsift" / "templates" / "specification.yaml"


def changed(part: str, **fields: Any) -> dict[str, Any]:
    return {**VALUES, part: {**VALUES.get(part, {}), **fields}}


MISTAKES: dict[str, tuple[Any, str]] = {
    "unknown part": ({**VALUES, "modle": {}}, "modle is not a field; did you mean 'model'"),
    "unknown field": (changed("study", trails=3), "study.trails is not a field; did you mean 'trials'"),
    "unknown field of the data": (changed("data", imags="a"), "data.imags is not a field; did you mean 'images'"),
    "missing part": ({"model": {"id": "a/b"}, "data": DATA}, "study must be given, but is missing"),
    "missing field": (changed("study") | {"model": {}}, "model.id must be given, but is missing"),
    "wrong kind": (
        changed("data", kind="folders"),
        "data.kind must be one of ade20k, .*, digit-scenes, folder, .*, voc, but got 'folders'",
    ),
    "no kind": (
        {**VALUES, "data": {"images": "a"}},
        "data.kind must be one of ade20k, .*, digit-scenes, folder, .*, voc, but got nothing",
    ),
    "out of range": (changed("study", trials=0), r"study.trials must be at least 1, but got 0"),
    "wrong type": (changed("bank", max_channels="many"), r"bank.max_channels must be a whole number, but got 'many'"),
    "bad name": (changed("study", name="my study"), r"study.name must be letters, digits, .*, but got 'my study'"),
    "fractions": (changed("data", fractions=[0.5, 0.0, 0.4]), "shares that sum to 1"),
    "no timesteps": ({**VALUES, "timesteps": []}, "timesteps must hold at least 1, but got"),
    "a timestep twice": ({**VALUES, "timesteps": [50, 50]}, r"timesteps must differ, but got \[50, 50\]"),
    "unknown sampler": (changed("study", sampler="grid"), "study.sampler must be 'sift', .* but got 'grid'"),
    "a fraction that is none": (
        {**VALUES, "timesteps": [0.05, 2.5]},
        "timesteps.1 must be a whole number from 0 on, or a share of noise levels above 0 and below 1, but got 2.5",
    ),
    "a list": ([1, 2], "must be a mapping of fields, but is a list"),
    "nothing": (None, "must be a mapping of fields, but is a NoneType"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_by_field(mistake: str) -> None:
    values, message = MISTAKES[mistake]
    with pytest.raises(SpecificationError, match=message):
        Specification.parse(values)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(SpecificationError, match=r"(?s)probe\.balance.*study\.trials"):
        Specification.parse(changed("study", trials=0) | {"probe": {"balance": 2}})


@pytest.mark.parametrize("part", ["model", "data", "study", "bank"])
def test_a_part_that_is_no_mapping_is_refused(part: str) -> None:
    with pytest.raises(SpecificationError, match=part):
        Specification.parse({**VALUES, part: 3})


RUNTIME = [
    ("model", {"device": "cuda"}),
    ("model", {"batch_size": 2}),
    ("bank", {"budget_gb": 2.5}),
    ("study", {"trials": 7, "timeout": 3.0, "storage": "sqlite:///a.db"}),
    ("tracking", {"mlflow": False, "child_runs": 3}),
]
IDENTITY = [
    ("model", {"dtype": "float16"}),
    ("model", {"prompt": "a horse"}),
    ("model", {"noise_seed": 1}),
    ("data", {"classes": 4}),
    ("study", {"seed": 1}),
    ("study", {"sampler": "tpe"}),
    ("bank", {"pixels_per_image": 8}),
    ("limits", {"activations": 2}),
    ("filters", {"rules": "none"}),
]


@pytest.mark.parametrize(("part", "fields"), RUNTIME)
def test_runtime_fields_leave_the_identity_alone(part: str, fields: dict[str, Any]) -> None:
    assert Specification.parse(changed(part, **fields)).identity() == Specification.parse(VALUES).identity()


@pytest.mark.parametrize(("part", "fields"), IDENTITY)
def test_other_fields_are_the_identity(part: str, fields: dict[str, Any]) -> None:
    assert Specification.parse(changed(part, **fields)).identity() != Specification.parse(VALUES).identity()


def test_runtime_fields_can_be_replaced() -> None:
    specification = Specification.parse(VALUES).with_runtime(trials=12, timeout=None)
    assert (specification.study.trials, specification.study.timeout) == (12, None)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump({**changed("data", split_file="/elsewhere/split.json"), "model": {"id": "model"}}))
    found = load_specification(file)
    assert found.data.kind == "folder"
    assert found.data.images == tmp_path / "images"
    assert found.data.split_file == Path("/elsewhere/split.json")
    assert found.model.id == str(tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "message"), [(b"a: [", "must be YAML"), (b"\xff\xfe\x00", "must be YAML"), (b"", "mapping")]
)
def test_files_that_are_no_specification_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecificationError, match=rf"spec\.yaml.*{message}"):
        load_specification(file)
    with pytest.raises(SpecificationError, match=r"nowhere\.yaml cannot be read"):
        load_specification(tmp_path / "nowhere.yaml")


def test_the_template_is_a_specification_and_shows_the_defaults(tmp_path: Path) -> None:
    plain = load_specification(TEMPLATE)
    file = tmp_path / "spec.yaml"
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()[2:]
    file.write_text("\n".join(line.replace("# ", "", 1) if line.lstrip().startswith("#") else line for line in lines))
    everything = load_specification(file)
    assert everything.model_dump(exclude={"data"}) == plain.model_dump(exclude={"data"})
    assert everything.data.model_dump(exclude=PATHS) == plain.data.model_dump(exclude=PATHS)
