"""Specifications in files: paths, fields set from outside, and what is no specification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import diffsift
from diffsift import load_specification
from diffsift.errors import SpecificationError
from diffsift.specification import Specification, with_stored_paths
from diffsift.specification_file import json_schema

DATA = {"kind": "folder", "images": "images", "labels": "labels", "classes": 3}
VALUES: dict[str, Any] = {"model": {"id": "a/b"}, "data": DATA, "study": {"name": "horses"}}


def changed(part: str, **fields: Any) -> dict[str, Any]:
    return {**VALUES, part: {**VALUES.get(part, {}), **fields}}


def written(file: Path, values: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(values))
    return file


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


def test_a_field_that_stands_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(VALUES) + "study: {name: other}\n")
    with pytest.raises(SpecificationError, match=r"'study' must stand once in a mapping, but is in line \d+ and again"):
        load_specification(file)
    with pytest.raises(SpecificationError, match="'a' must stand once"):
        load_specification(written(file, VALUES), ["filters={a: 1, a: 2}"])


def test_a_specification_that_moves_stays_the_same(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    values = {**VALUES, "model": {"id": "model"}}
    here = load_specification(written(tmp_path / "spec.yaml", values))
    data = {**DATA, "images": "../images", "labels": "../labels"}
    there = load_specification(
        written(tmp_path / "m" / "spec.yaml", {**values, "model": {"id": "../model"}, "data": data})
    )
    assert there.identity() == here.identity()
    assert ".." not in str(there.identity())


def test_paths_of_a_mapping_are_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found: Any = Specification.of(VALUES).data
    assert found.images == tmp_path.resolve() / "images"


def test_paths_that_older_versions_stored_unresolved_are_the_same(tmp_path: Path) -> None:
    new = Specification.of(changed("data", images=str(tmp_path / "images"))).identity()
    old = Specification.parse(changed("data", images=str(tmp_path / "m" / ".." / "images"))).identity()
    assert old["data"]["images"] != new["data"]["images"]
    assert with_stored_paths(new, old)["data"]["images"] == old["data"]["images"]
    other = {**old, "data": {**old["data"], "images": str(tmp_path / "others")}}
    assert with_stored_paths(new, other)["data"]["images"] == new["data"]["images"]


def test_fields_are_set_from_outside(tmp_path: Path) -> None:
    file = written(tmp_path / "spec.yaml", VALUES)
    found = load_specification(file, ["study.trials=5", "timesteps=[50, 0.2]", "bank.seed=3", "data.classes=[a, b]"])
    assert (found.study.trials, found.study.name, found.timesteps) == (5, "horses", (50, 0.2))
    assert found.bank.seed == 3
    assert found.data.model_dump()["classes"] == ("a", "b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("study.trails=5", r"spec\.yaml: study\.trails is not a field; did you mean 'trials'"),
        ("stdy.trials=5", r"stdy is not a field; did you mean 'study'"),
        ("study.trials", "must be of the form study.trials=5, but got 'study.trials'"),
        ("study..trials=1", "must be of the form"),
        ("model.id.name=1", "must name a field of a mapping, but model.id is none"),
        ("study.trials={", "must be YAML"),
    ],
)
def test_fields_that_cannot_be_set_are_named(tmp_path: Path, change: str, message: str) -> None:
    file = written(tmp_path / "spec.yaml", VALUES)
    with pytest.raises(SpecificationError, match=message):
        load_specification(file, [change])


def test_select_takes_the_path_of_a_file(tmp_path: Path) -> None:
    file = written(tmp_path / "spec.yaml", changed("study", trials=0))
    for path in (file, str(file)):
        with pytest.raises(SpecificationError, match=r"spec\.yaml: study\.trials must be at least 1"):
            diffsift.select(path)


def test_the_schema_knows_every_field_and_refuses_others() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(Specification.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["model", "data", "study"]
    assert "trials" in schema["$defs"]["StudySpecification"]["properties"]
    assert "oneOf" not in str(schema)


BOMB = "\n".join(
    ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    + [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "{a: " * 3000 + "}" * 3000, "nested more than 50 deep"),
        ("[" * 100_000, "nested more than 50 deep"),
        (f"{BOMB}\nmodel: {{id: *i}}", "more than 20000 values"),
        ("a: &a [*a]", "leads into itself"),
        ("timesteps: [" + "5, " * 400_000 + "]", "at most 1000000 are read"),
        ("model: {id: !!timestamp soon}", "a value is malformed"),
        ("model: {id: 2001-99-99}", "month must be in"),
        ("? [a, b]\n: 3", "cannot be parsed"),
        ("a: " + "9" * 200_000, "cannot be parsed"),
    ],
    ids=["braces", "brackets", "aliases", "loop", "long", "date", "month", "key", "number"],
)
def test_texts_that_would_take_a_parser_down_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    with pytest.raises(SpecificationError, match=message) as refusal:
        load_specification(file)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "dift", "task": ["a"]},
        {"task": {"kind": ["a"]}},
        {"task": {"kind": {"a": 1}}},
        {"data": {"kind": {"a": 1}}},
        {"model": {"id": "x" * 100_000}},
        {"model": {"id": "a\0b"}},
        {"model": {"id": "~nobody-of-this-name/model"}},
        {"model": {"id": "a/b", "lora": "y" * 100_000}},
        {"data": {**DATA, "images": "x" * 100_000}},
        {"timesteps": ["x"] * 19_000},
        {"timesteps": "x" * 100_000},
        {"x" * 100_000: 1},
    ],
    ids=lambda change: str(change)[:40],
)
def test_wrong_values_end_in_messages_of_bounded_length(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(SpecificationError) as refusal:
        load_specification(written(tmp_path / "spec.yaml", {**VALUES, **change}))
    assert len(str(refusal.value)) < 2000
