"""Exported callables say what they take, give and raise; functions take no more than six parameters."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from pydantic import BaseModel
from support import ROOT

import diffsift

PACKAGE = ROOT / "diffsift"
FOLDERS = ("backbones", "bank", "datasets", "evaluation", "extraction", "objectives", "search", "spaces", "tracking")

OPEN_FOLDERS = ("common", "runs", "testing")
"""Folders of the front door without a table of public names: every name without an underscore is public."""

MOST_PARAMETERS = 6

ENTRY_POINTS = {
    "diffsift/cli/*.py": {"*"},  # the parameters of a command are its options
    "diffsift/runs/extract.py": {"extract_files"},
    "diffsift/runs/pick.py": {"pick"},
    "diffsift/runs/score.py": {"score_file"},
    "diffsift/runs/select.py": {"resume", "select"},
    "datasets/_mapped.py": {"__init__"},  # MappedDataset: users say how to read a row, one keyword for each part of it
    "datasets/_rendered_scenes.py": {"__init__"},  # RenderedScenes: one keyword for each field of its kind
    "extraction/selection_file.py": {"save_selection"},  # one keyword for each field of the file
}
"""Functions that may take more parameters, by file, as users give them by keyword."""

SECTIONS = ("Args", "Attributes", "Examples", "Raises", "Returns", "Yields")
FIXTURE = type(pytest.fixture(lambda: None))
PRIVATE_ERRORS = ("NotImplementedError", "AssertionError")


def sections_of(docstring: str) -> dict[str, str]:
    """The text of each section of a Google docstring, and that before the first under an empty name."""
    parts = re.split(rf"^({'|'.join(SECTIONS)}):\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries_of(section: str) -> set[str]:
    """The names that a section describes."""
    return set(re.findall(r"^    \*{0,2}(\w+)(?: \([^)]*\))?:", section, flags=re.MULTILINE))


def exported(folder: str) -> Iterator[tuple[str, Any]]:
    """The public names of a folder: those of its stub, or of ``__all__`` where it has none."""
    module = importlib.import_module(f"diffsift.{folder}")
    for name in sorted(module.__all__):
        yield f"{folder}.{name}", getattr(module, name)


def public_modules(folder: str) -> list[str]:
    """The modules of a folder of the front door that do not start with an underscore."""
    files = sorted((PACKAGE / folder).glob("[!_]*.py"))
    return [f"{folder}.{file.stem}" for file in files]


def defined_in(module_name: str) -> Iterator[tuple[str, Any]]:
    """The public functions and classes that a module defines itself."""
    module = importlib.import_module(f"diffsift.{module_name}")
    for name, value in sorted(vars(module).items()):
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__:
            yield f"{module_name}.{name}", value


def callables(name: str, value: Any) -> Iterator[tuple[str, Callable[..., Any], type | None]]:
    """Functions and, of classes, public methods and properties that are defined in the package.

    The tests of a contract are left out: pytest calls them, and each is named after what must hold.
    """
    if inspect.isfunction(value):
        yield name, inspect.unwrap(value), None
    elif inspect.isclass(value) and value.__module__.startswith("diffsift"):
        yield name, value, None
        for attribute, member in vars(value).items():
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if isinstance(member, property) and member.fget is not None:
                function = member.fget
            if not attribute.startswith(("_", "test_")) and inspect.isfunction(inspect.unwrap(function)):
                yield f"{name}.{attribute}", inspect.unwrap(function), value


def docstring_of(function: Callable[..., Any], owner: type | None) -> str:
    """Its docstring, or that of the method it overrides."""
    classes = [] if owner is None else owner.__mro__
    inherited = (vars(entry).get(function.__name__) for entry in classes)
    for member in (function, *(getattr(entry, "fget", entry) for entry in inherited)):
        text = getattr(inspect.unwrap(getattr(member, "__func__", member)), "__doc__", None) if member else None
        if text:
            return text
    return ""


def parameters_of(function: Callable[..., Any]) -> list[str]:
    names = inspect.signature(function).parameters
    return [name for name in names if name not in ("self", "cls")]


def raised_by(function: Callable[..., Any]) -> set[str]:
    """Our errors and the usual built-in ones that stand after ``raise`` in its own lines."""
    source = inspect.getsource(function)
    return set(re.findall(r"\braise (\w+Error)\(", source)) - set(PRIVATE_ERRORS)


def is_protocol(kind: type) -> bool:
    """Whether a class is a protocol itself; ``typing`` gives those an ``__init__`` which nobody calls."""
    return Protocol in kind.__bases__


def complaints_of_class(name: str, kind: type) -> Iterator[str]:
    sections = sections_of(kind.__doc__ or "")
    if not kind.__doc__:
        yield f"{name} has no docstring"
    if issubclass(kind, BaseModel):  # the description of each field is its documentation
        return
    documented = entries_of(sections.get("Args", "")) | entries_of(sections.get("Attributes", ""))
    if is_dataclass(kind):
        annotated = vars(kind).get("__annotations__", {})
        own = [field.name for field in fields(kind) if field.name in annotated and not field.name.startswith("_")]
    elif "__init__" in vars(kind) and not is_protocol(kind):
        own = parameters_of(kind.__init__)
    else:
        own = []
    missing = [field for field in own if field not in documented]
    if missing:
        yield f"{name} does not document {', '.join(missing)}"


def complaints(name: str, function: Any, owner: type | None) -> Iterator[str]:
    """What the docstring of a callable lacks."""
    if inspect.isclass(function):
        if not issubclass(function, BaseException):
            yield from complaints_of_class(name, function)
        return
    sections = sections_of(docstring_of(function, owner))
    if not sections[""].strip():
        yield f"{name} has no docstring"
        return
    member = None if owner is None else vars(owner).get(function.__name__)
    if isinstance(member, FIXTURE):  # pytest gives the arguments, and its name and first line say what it is
        return
    missing = [entry for entry in parameters_of(function) if entry not in entries_of(sections.get("Args", ""))]
    if missing:
        yield f"{name} does not document {', '.join(missing)}"
    is_property = isinstance(member, property)
    returns = inspect.signature(function).return_annotation
    says_itself = is_property or not parameters_of(function)  # one line says what it is
    gives_something = returns not in (None, "None", inspect.Signature.empty)
    if gives_something and not says_itself and not {"Returns", "Yields"} & set(sections):
        yield f"{name} does not say what it returns"
    unsaid = raised_by(function) - set(re.findall(r"\w+Error", sections.get("Raises", "")))
    if unsaid and not is_property:
        yield f"{name} does not say that it raises {', '.join(sorted(unsaid))}"


def all_complaints(names: Iterable[tuple[str, Any]]) -> list[str]:
    return [
        complaint
        for name, value in names
        for entry, function, owner in callables(name, value)
        for complaint in complaints(entry, function, owner)
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_exported_callables_are_documented(folder: str) -> None:
    assert all_complaints(exported(folder)) == []


@pytest.mark.parametrize("module", ["objectives.metrics", "objectives.probes", "objectives.reference"])
def test_public_modules_below_are_documented(module: str) -> None:
    assert all_complaints(exported(module)) == []


def test_the_front_door_is_documented() -> None:
    names = [(name, getattr(diffsift, name)) for name in diffsift.__all__]
    assert all_complaints(names) == []


@pytest.mark.parametrize("folder", OPEN_FOLDERS)
def test_open_folders_are_documented(folder: str) -> None:
    modules = public_modules(folder)
    assert modules
    assert all_complaints(entry for module in modules for entry in defined_in(module)) == []


def test_sections_are_read() -> None:
    text = """One line.

    Args:
        first: a number.
        second: (x, y)
            or more: much.

    Returns:
        This.
    """
    sections = sections_of(text)
    assert sections[""].strip() == "One line."
    assert entries_of(sections["Args"]) == {"first", "second"}
    assert "This." in sections["Returns"]


def test_a_gap_is_seen() -> None:
    def bad(first: int, second: int) -> int:
        """Adds.

        Args:
            first: a number.
        """
        if first < 0:
            raise ValueError("no")
        return first + second

    assert list(complaints("bad", bad, None)) == [
        "bad does not document second",
        "bad does not say what it returns",
        "bad does not say that it raises ValueError",
    ]


def test_a_protocol_has_no_constructor() -> None:
    class Measured(Protocol):
        """What has a size."""

    class Box(Measured):
        """Has one."""

        def __init__(self, size: int) -> None:
            self.size = size

    assert list(complaints("Measured", Measured, None)) == []
    assert list(complaints("Box", Box, None)) == ["Box does not document size"]


def functions_in(file: Path) -> Iterator[tuple[str, int]]:
    """Functions and methods of a file with the number of their parameters, without self and cls."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield node.name, sum(entry.arg not in ("self", "cls") for entry in arguments)


def files_by_folder() -> dict[str, list[Path]]:
    """Python files by the folder of the package that they lie in."""
    folders = {folder: sorted((ROOT / folder).rglob("*.py")) for folder in FOLDERS}
    own = {folder: sorted((PACKAGE / folder).rglob("*.py")) for folder in ("cli", *OPEN_FOLDERS)}
    return {**folders, **own, "diffsift": sorted(PACKAGE.glob("*.py"))}


def is_entry_point(file: Path, function: str) -> bool:
    return any(file.match(pattern) and (function in names or "*" in names) for pattern, names in ENTRY_POINTS.items())


@pytest.mark.parametrize("folder", files_by_folder())
def test_functions_take_few_parameters(folder: str) -> None:
    """Public entry points, whose parameters are given by keyword, are exempt."""
    found = [
        f"{file.relative_to(ROOT)}: {name} takes {count}"
        for file in files_by_folder()[folder]
        for name, count in functions_in(file)
        if count > MOST_PARAMETERS and not is_entry_point(file, name)
    ]
    assert found == []


@pytest.mark.parametrize("pattern", ENTRY_POINTS)
def test_entry_points_need_their_exemption(pattern: str) -> None:
    long = {name for file in ROOT.glob(pattern) for name, count in functions_in(file) if count > MOST_PARAMETERS}
    assert long
    assert ENTRY_POINTS[pattern] in ({"*"}, long)
