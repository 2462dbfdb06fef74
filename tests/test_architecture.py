"""The rules of the house, read off the source: who imports whom, how long files are, where code may connect to."""

from __future__ import annotations

import ast
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import ROOT

FRONT_DOOR = "diffsift"
FLOORS: tuple[set[str], ...] = (
    {"common"},
    {"backbones"},
    {"spaces"},
    {"datasets", "extraction", "tracking"},
    {"bank"},
    {"objectives"},
    {"search", "evaluation"},
    {FRONT_DOOR},
    {"testing"},
)
"""From the bottom to the top: a folder imports from floors below its own, never from its own or from above."""
MAY_IMPORT: dict[str, set[str]] = {
    folder: set().union(*FLOORS[:floor]) for floor, folders in enumerate(FLOORS) for folder in sorted(folders)
}
MAY_IMPORT["tracking"] = {"common", "spaces"}
MAY_IMPORT["common"] = {"tracking"}  # for the annotation of `Reporter.trial` alone
LEAVES = {"errors", "common"}
"""What every folder may import, below the front door."""
NOT_IN_THE_WHEEL = {"tests", "examples", "benchmarks", "docs"}
MOST_LINES = 400
# Loopback, and names that are written down but never connected to: an XML namespace and where papers are cited.
KNOWN_HOSTS = {"127.0.0.1", "www.w3.org", "arxiv.org", "doi.org"}


@dataclass(frozen=True)
class Import:
    """One imported name: ``from module import name``, or ``import module`` with an empty name."""

    file: Path
    line: int
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}{'.' + self.name if self.name else ''}"


def files_of(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def module_of(file: Path) -> str:
    """The name a file goes by in Python: search/study.py is diffsift.search.study."""
    parts = list(file.with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts if parts[0] == FRONT_DOOR else [FRONT_DOOR, *parts])


def imports_of(source: str, file: Path) -> list[Import]:
    """Every import in a file, wherever it stands, with relative ones resolved. `file` is relative to the root."""
    package = module_of(file.parent / "__init__.py").split(".")
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(file, node.lineno, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
            found += [Import(file, node.lineno, module, alias.name) for alias in node.names]
    return found


def complaint(found: Import) -> str | None:
    """Why an import breaks the rules, or None."""
    importer, target = found.file.parts[0], found.module.split(".")
    if target[0] in MAY_IMPORT.keys() - {FRONT_DOOR}:
        return f"{found}; write diffsift.{found.module}."
    if target[0] in NOT_IN_THE_WHEEL:
        return f"{found}, which is not part of the package."
    if target[0] != FRONT_DOOR:
        return None
    path = [*target, *([found.name] if found.name else [])][1:]
    if path in ([], ["__version__"]) or path[0] in LEAVES:
        return None
    home = path[0] if path[0] in MAY_IMPORT else FRONT_DOOR
    if home != importer and home not in MAY_IMPORT[importer]:
        return f"{found}; {importer} may import only {', '.join(sorted(MAY_IMPORT[importer])) or 'diffsift.errors'}."
    here = module_of(found.file.parent / "__init__.py")
    for depth, part in enumerate(path):
        owner = folder_of([FRONT_DOOR, *path[:depth]])
        if part.startswith("_") and not part.startswith("__") and not f"{here}.".startswith(f"{owner}."):
            return f"{found}, but {part} is private to {owner}."
    return None


def folder_of(module: list[str]) -> str:
    """The package a module lies in, or the module itself where it is a package."""
    on_disk = ROOT.joinpath(*(module[1:] if len(module) > 1 and module[1] in MAY_IMPORT else module))
    return ".".join(module if on_disk.is_dir() else module[:-1])


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_downwards_and_leave_privates_alone(folder: str) -> None:
    files = files_of(folder)
    assert files
    complaints = []
    for file in files:
        relative = file.relative_to(ROOT)
        complaints += [complaint(found) for found in imports_of(file.read_text(), relative)]
    assert [text for text in complaints if text] == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("tracking/ledger.py", "from diffsift.search import study"),
        ("tracking/ledger.py", "def late():\n    import diffsift.objectives.bank"),
        ("backbones/capture.py", "from diffsift.spaces.selection import Selection"),
        ("backbones/capture.py", "from ..spaces import selection"),
        ("spaces/pool.py", "from diffsift import select"),
        ("spaces/pool.py", "from diffsift.specification import Specification"),
        ("search/study.py", "from diffsift.objectives._bank import Bank"),
        ("search/study.py", "from diffsift.objectives.bank import _write"),
        ("search/study.py", "from objectives import bank"),
        ("diffsift/cli.py", "from tests import conftest"),
    ],
)
def test_the_rules_catch(file: str, source: str) -> None:
    assert any(complaint(found) for found in imports_of(source, Path(file)))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("tracking/ledger.py", "from diffsift.spaces.selection import Selection"),
        ("backbones/capture.py", "from diffsift.errors import CaptureError"),
        ("backbones/__init__.py", "from ._loading import load"),
        ("objectives/probes/ridge.py", "from .._gram import blocks"),
        ("search/study.py", "from ._sampler import sampler\nimport optuna"),
        ("diffsift/cli.py", "from diffsift.job import select"),
        ("tracking/report.py", "from diffsift import __version__"),
    ],
)
def test_the_rules_allow(file: str, source: str) -> None:
    assert not any(complaint(found) for found in imports_of(source, Path(file)))


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository that git does not ignore, committed or not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("the files of the repository are known only in a git checkout")
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def test_files_stay_short() -> None:
    files = tracked("*.py")
    assert files
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_code_and_templates_name_no_host_to_connect_to() -> None:
    """Models come from a folder or through diffusers; pages of the report load nothing from elsewhere."""
    files = [file for folder in MAY_IMPORT for file in tracked(f"{folder}/*.py", f"{folder}/*.j2", f"{folder}/*.yaml")]
    files += tracked("pyproject.toml", "constraints.txt", "Makefile", ".ci/*")
    assert files
    named = {
        (str(file.relative_to(ROOT)), host)
        for file in files
        for host in re.findall(r"(?:https?:|[\"'(])//([a-z0-9-]+\.[a-z0-9.-]+)", file.read_text())
    }
    assert {(name, host) for name, host in named if host not in KNOWN_HOSTS} == set()


def test_installing_names_no_package_index() -> None:
    for file in tracked("pyproject.toml", "constraints.txt", "Makefile", ".ci/*"):
        assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host", file.read_text()), file
