"""The specification: every mistake is named by its field, and the template is a specification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
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


def test_paths_of_python_are_taken_where_folders_are_named() -> None:
    data = {**DATA, "images": Path("/a/images"), "labels": Path("/a/labels"), "split_file": Path("/a/split.json")}
    model = {"id": Path("/a/model"), "lora": Path("/a/lora.safetensors")}
    found = Specification.of({**VALUES, "model": model, "data": data, "further_models": {"b": {"id": Path("/b")}}})
    assert (found.model.id, found.model.lora) == ("/a/model", "/a/lora.safetensors")
    assert found.further_models["b"].id == "/b"
    assert found.identity()["model"]["id"] == "/a/model"
    assert found.identity()["data"]["images"] == "/a/images"


MISTAKES: dict[str, tuple[Any, str]] = {
    "unknown part": ({**VALUES, "modle": {}}, "modle is not a field; did you mean 'model'"),
    "unknown field": (changed("study", trails=3), "study.trails is not a field; did you mean 'trials'"),
    "a field of a part at the top": (
        {**VALUES, "trials": 50},
        r"trials is not a field; did you mean 'study\.trials'\?",
    ),
    "a field of several parts at the top": ({**VALUES, "seed": 1}, "did you mean 'data.seed' or .* 'study.seed'"),
    "a field of another part": (changed("study", device="cpu"), "study.device is not .* did you mean 'model.device'"),
    "unknown field of the data": (changed("data", imags="a"), "data.imags is not a field; did you mean 'images'"),
    "missing part": ({"model": {"id": "a/b"}, "data": DATA}, "study must be given, but is missing"),
    "missing field": (changed("study") | {"model": {}}, "model.id must be given, but is missing"),
    "wrong kind": (
        changed("data", kind="folders"),
        "data.kind must be one of ade20k, .*, rendered-scenes, .*, but got 'folders'; did you mean 'folder'",
    ),
    "no kind": (
        {**VALUES, "data": {"images": "a"}},
        "data.kind must be one of ade20k, .*, rendered-scenes, .*, voc, but is empty",
    ),
    "a kind that was removed": (
        changed("data", kind="digit-scenes"),
        "data.kind is 'digit-scenes', the built-in data of an older version, .* install the version that made it",
    ),
    "out of range": (changed("study", trials=0), r"study.trials must be at least 1, but got 0"),
    "wrong type": (changed("bank", max_channels="many"), r"bank.max_channels must be a whole number, but got 'many'"),
    "bad name": (changed("study", name="my study"), r"study.name must be letters, digits, .*, but got 'my study'"),
    "fractions": (changed("data", fractions=[0.5, 0.0, 0.4]), "train, validation and test and sum to 1"),
    "no timesteps": ({**VALUES, "timesteps": []}, "timesteps must hold at least 1, but got"),
    "a timestep twice": ({**VALUES, "timesteps": [50, 50]}, r"timesteps must differ, but got \[50, 50\]"),
    "unknown sampler": (changed("study", sampler="grid"), "study.sampler must be 'sift', .* but got 'grid'"),
    "a fraction that is none": (
        {**VALUES, "timesteps": [0.05, 2.5]},
        r"timesteps.1 \(counted from 0\) must be a whole number .*, or a fraction .*, but got 2.5",
    ),
    "a list": ([1, 2], r"must be a mapping of fields, but got \[1, 2\]"),
    "nothing": (None, "must be a mapping of fields, but is empty"),
    "text for a model": ({**VALUES, "model": "a/b"}, r"model must be a mapping of fields \(id, .*, but got 'a/b'"),
    "an empty part": ({**VALUES, "bank": None}, r"bank must be a mapping of fields \(.*\), but is empty"),
    "text for a task": ({**VALUES, "task": "depth"}, r"task must be a mapping of fields \(kind, .*, but got 'depth'"),
    "text for data": ({**VALUES, "data": "images"}, r"data must be a mapping of fields .*kind.*, but got 'images'"),
    "text for a further model": (
        {**VALUES, "further_models": {"b": "c/d"}},
        r"further_models\.b must be a mapping of fields \(id, .*, but got 'c/d'",
    ),
    "a name that is none": (
        {**VALUES, "further_models": {"B C": {"id": "c/d"}}},
        "further_models must use names of lower-case letters, .*, but got 'B C'",
    ),
    "neither number nor list": (
        changed("data", classes="leaf"),
        r"data\.classes must be a whole number or a list, but got 'leaf'\.",
    ),
    "too few classes": (changed("data", classes=1), r"data\.classes must be at least 2, but got 1\."),
    "YAML's no": (
        changed("data", classes=[False, "horse"]),
        r"data\.classes\.0 \(counted from 0\) must be text, but got False; YAML reads yes, no, .* quote the word",
    ),
    "a number for a name": (changed("data", classes=[1, "horse"]), r"must be text, but got 1; quote it: '1'"),
    "two shares of three": (
        changed("data", fractions=[0.5, 0.5]),
        r"data\.fractions must hold 3 values, but got \[0\.5, 0\.5\]",
    ),
    "fractions that do not sum to 1": (
        changed("data", fractions=[0.5, 0.0, 0.4]),
        r"data\.fractions must be those of train, validation and test",
    ),
    "one timestep": ({**VALUES, "timesteps": 50}, r"timesteps must be a list, but got 50; write \[50\]"),
    "a device": (
        changed("model", id="a/b", device="gpu"),
        r"model\.device must be auto, cpu, cuda, cuda:1 or mps, but got 'gpu'; did you mean 'cuda'\?",
    ),
    "an unknown task": (
        {**VALUES, "task": {"kind": "segmentatoin"}},
        r"task\.kind must be .* did you mean 'segmentation'",
    ),
    "an unknown choice": (
        {**VALUES, "task": {"kind": "depth", "score": "rsme"}},
        r"task\.score must be 'rmse', .*; did you mean 'rmse'\?",
    ),
    "several fields together": (
        changed("study", sampler="tpe", warm_start=["a"]),
        r"study\.warm_start needs the sampler sift, but it is tpe\.",
    ),
    "a field under its old name": (changed("study", confirm=0), r"study\.rerank must be at least 1, but got 0"),
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
    ("data", {"allow_absent_classes": True}),
    ("bank", {"budget_gb": 2.5}),
    ("study", {"trials": 7, "timeout": 3.0, "storage": "sqlite:///a.db"}),
    ("tracking", {"mlflow": False, "child_runs": 3}),
]
IDENTITY = [
    ("model", {"dtype": "float16"}),
    ("model", {"prompt": "a horse"}),
    ("model", {"noise_seed": 1}),
    ("data", {"classes": 4}),
    ("data", {"exif": "ignore"}),
    ("data", {"label_suffix": "_mask"}),
    ("data", {"palette": [[0, 0, 0], [255, 255, 255], [9, 9, 9]]}),
    ("study", {"seed": 1}),
    ("study", {"sampler": "tpe"}),
    ("bank", {"pixels_per_image": 8}),
    ("limits", {"activations": 2}),
    ("filters", {"rules": "none"}),
]


@pytest.mark.parametrize(("part", "fields"), RUNTIME)
def test_runtime_fields_leave_the_identity_alone(part: str, fields: dict[str, Any]) -> None:
    assert Specification.parse(changed(part, **fields)).identity() == Specification.parse(VALUES).identity()


@pytest.mark.parametrize("kind", ["folder", "list", "depth-folder"])
def test_fields_that_older_versions_lacked_are_no_part_of_the_identity_at_their_defaults(kind: str) -> None:
    data = {
        "folder": DATA,
        "list": {"file": "a.csv", "answers": "depth"},
        "depth-folder": {"root": "a"},
    }[kind]
    values = {**VALUES, "data": {"kind": kind, **data}, "further_data": {"other": {"kind": kind, **data}}}
    found = Specification.parse(values).identity()
    new = {"label_suffix", "palette", "exif", "depth_limit", "allow_absent_classes"}
    assert not new & set(found["data"])
    assert found["further_data"]["other"] == found["data"]


@pytest.mark.parametrize(("part", "fields"), IDENTITY)
def test_other_fields_are_the_identity(part: str, fields: dict[str, Any]) -> None:
    assert Specification.parse(changed(part, **fields)).identity() != Specification.parse(VALUES).identity()


def test_runtime_fields_can_be_replaced() -> None:
    specification = Specification.parse(VALUES).with_runtime(trials=12, timeout=None)
    assert (specification.study.trials, specification.study.timeout) == (12, None)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_message_speaks_of_the_validator(mistake: str) -> None:
    with pytest.raises(SpecificationError) as error:
        Specification.parse(MISTAKES[mistake][0])
    for word in ("Input should", "constrained", "tuple[", "dictionary", "instance of", "Specification"):
        assert word not in str(error.value)
    assert str(error.value).endswith((".", "?"))


def test_fields_of_older_versions_are_read_with_a_note() -> None:
    old = Specification.parse(changed("study", confirm=3, confirm_probe="mlp"))
    assert (old.study.rerank, old.study.rerank_probe) == (3, "mlp")
    assert old.notes == (
        "study.confirm is now called study.rerank",
        "study.confirm_probe is now called study.rerank_probe",
    )
    assert old.with_runtime(trials=3).notes == old.notes
    assert Specification.parse(VALUES).notes == ()


def test_the_template_is_a_specification_and_shows_the_defaults(tmp_path: Path) -> None:
    plain = load_specification(TEMPLATE)
    file = tmp_path / "spec.yaml"
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()[2:]
    file.write_text("\n".join(line.replace("# ", "", 1) if line.lstrip().startswith("#") else line for line in lines))
    everything = load_specification(file)
    assert everything.model_dump(exclude={"data"}) == plain.model_dump(exclude={"data"})
    assert everything.data.model_dump(exclude=PATHS) == plain.data.model_dump(exclude=PATHS)
