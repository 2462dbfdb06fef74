"""The examples in docstrings show what really happens."""

from __future__ import annotations

import doctest
import importlib

import pytest
from support import ROOT

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    """Every module of the package with an example in it, by the name it is imported under."""
    found = []
    package = ROOT / "diffsift"
    for folder in (package, *sorted(entry for entry in package.iterdir() if entry.is_dir())):  # links to folders too
        for file in sorted(folder.glob("*.py") if folder == package else folder.rglob("*.py")):
            if ">>> " in file.read_text():
                parts = file.relative_to(ROOT).with_suffix("").parts
                found.append(".".join(part for part in parts if part != "__init__"))
    return found


def test_examples_are_found() -> None:
    """Folders of the front door are links, which a search through folders does not follow by itself."""
    folders = {name.split(".")[1] for name in modules()}
    assert {"backbones", "datasets"} <= folders


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    found = [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]
    assert found, f"the examples of {name} stand where doctest does not look, as in a nested function"
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in found:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
