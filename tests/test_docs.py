"""What the documentation says of files, commands and fields is so."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel
from support import ROOT

from diffsift import Specification, load_specification
from diffsift.cli.app import app
from diffsift.datasets import DATASETS
from diffsift.objectives import (
    ClassificationSpecification,
    CorrespondenceSpecification,
    DepthSpecification,
    NormalsSpecification,
)
from diffsift.specification import _RUNTIME_FIELDS

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
TEMPLATE = ROOT / "diffsift" / "templates" / "specification.yaml"
SMALLEST = {"model": {"id": "m"}, "data": {"kind": "rendered-scenes"}, "study": {"name": "s"}}
DATA_PARTS = {f"data: {kind}": DATASETS[kind] for kind in DATASETS.names()}
TASK_PARTS = {
    "task: depth": DepthSpecification,
    "task: normals": NormalsSpecification,
    "task: classification": ClassificationSpecification,
    "task: correspondence": CorrespondenceSpecification,
}
KINDS = {**DATA_PARTS, **TASK_PARTS}


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchor_of(heading: str) -> str:
    """The anchor that repository pages give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    broken = []
    for link in links:
        target, _, anchor = link.partition("#")
        if target.startswith("https://"):
            continue
        file = page.parent / target if target else page
        if not file.is_file():
            broken.append(link)
        elif anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), flags=re.MULTILINE)
            if anchor not in map(anchor_of, headings):
                broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_python_compiles(page: Path) -> None:
    for block in code_blocks(page, "python"):
        compile(block, page_name(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_yaml_is_a_specification(page: Path) -> None:
    for block in code_blocks(page, "yaml"):
        Specification.parse(yaml.safe_load(block), source=page_name(page))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_and_options_exist(page: Path) -> None:
    """Every line of shell that calls diffsift, and every `diffsift ...` within the text."""
    lines = [line for block in code_blocks(page, "sh") for line in block.splitlines()]
    lines += re.findall(r"`(diffsift [^`\n]+)`", page.read_text())
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    unknown = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if not words or Path(words[0]).name != "diffsift" or words[1].startswith("-"):
            continue
        command = commands.get(words[1])
        if hasattr(command, "commands"):  # a group, such as `diffsift bank`
            command = command.commands.get(words[2])
        known = {option for entry in getattr(command, "params", []) for option in entry.opts}
        known |= {"-h", "--help"}
        if command is None or any(word.startswith("-") and word not in known for word in words[2:]):
            unknown.append(line)
    assert unknown == []


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=page_name)
def test_example_specifications_load(file: Path) -> None:
    specification = load_specification(file)
    assert specification.data.kind != "folder" or specification.data.images.is_absolute()


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.py")), ids=page_name)
def test_examples_are_listed_and_compile(file: Path) -> None:
    compile(file.read_text(), page_name(file), "exec")
    assert f"({file.name})" in (ROOT / "examples" / "README.md").read_text()


def documented_fields() -> dict[str, dict[str, tuple[str, str]]]:
    """(default, resume) of every field in docs/specification.md, by the heading it stands under."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for section in (ROOT / "docs" / "specification.md").read_text().split("\n## ")[1:]:
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (yes|no) \|", section, flags=re.MULTILINE)
        found[section.splitlines()[0].strip()] = {name: (default, resume) for name, default, resume in rows}
    return found


def real_parts() -> dict[str, type[BaseModel]]:
    smallest = Specification.parse(SMALLEST)
    parts = {name: type(getattr(smallest, name)) for name in Specification.model_fields if name not in ("data",)}
    return {name: part for name, part in parts.items() if issubclass(part, BaseModel)} | KINDS


def test_specification_page_has_every_part() -> None:
    assert set(documented_fields()) == set(real_parts()) | {"timesteps", "further_models", "further_data", "protocol"}


@pytest.mark.parametrize("part", sorted(real_parts()))
def test_specification_page_tells_fields_defaults_and_resume(part: str) -> None:
    fields = real_parts()[part].model_fields
    documented = documented_fields()[part]
    assert list(documented) == list(fields)
    runtime = _RUNTIME_FIELDS.get(part.partition(":")[0], ())
    for name, field in fields.items():
        default, resume = documented[name]
        if field.is_required() or (part in KINDS and name == "kind"):
            assert default == "required", name
        else:
            assert plain(yaml.safe_load(default.strip("`"))) == plain(field.default), name
        assert resume == ("yes" if name in runtime else "no"), name


def test_specification_page_tells_timesteps() -> None:
    default, resume = documented_fields()["timesteps"]["timesteps"]
    assert yaml.safe_load(default.strip("`")) == plain(Specification.model_fields["timesteps"].default)
    assert resume == "no"


def test_template_shows_defaults() -> None:
    """`diffsift init` writes a file that loads, and what is commented out in it are the defaults, all of them."""
    text = TEMPLATE.read_text()
    given = Specification.parse(yaml.safe_load(text))
    uncommented = yaml.safe_load(re.sub(r"^(\s*)# (?=\s*\w+:( |$))", r"\1", text, flags=re.MULTILINE))
    assert Specification.parse(uncommented) == given
    for part, fields in real_parts().items():
        if part not in {*DATA_PARTS, *TASK_PARTS} - {"data: folder"}:
            assert set(uncommented[part.partition(":")[0]]) == set(fields.model_fields), part


def plain(value: Any) -> Any:
    """What a value is in YAML: tuples are lists."""
    return json.loads(json.dumps(value))


def test_figures_are_those_of_the_stored_results() -> None:
    script = ROOT / "benchmarks" / "figures.py"
    subprocess.run([sys.executable, script, "--check"], check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_names_in_code_are_there(page: Path) -> None:
    names = re.findall(r"`(diffsift(?:\.\w+)+)(?:\(\))?`", page.read_text())
    entry_points = {f"diffsift.{group}" for group in ("filters", "loggers", "probes", "samplers")}
    missing = [name for name in dict.fromkeys(names) if name not in entry_points and not _is_there(name)]
    assert missing == []


def _is_there(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True
