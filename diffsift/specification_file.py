"""Specifications in files: reading YAML, fields set on the command line, and the schema that editors use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from diffsift.common.yaml_files import load_yaml
from diffsift.errors import SpecificationError
from diffsift.specification import Specification

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_CHARACTERS = 1_000_000
_MOST_VALUES = 20_000
_DEEPEST = 50


def load_specification(path: str | Path, changes: Sequence[str] = ()) -> Specification:
    """Read a YAML specification. Paths in it are relative to the file.

    Args:
        path: of the file.
        changes: fields to set instead, such as ``study.trials=5``; the value is YAML.

    Returns:
        The specification with resolved paths.

    Raises:
        SpecificationError: the file cannot be read or parsed, or a field is wrong.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecificationError(f"{file} must be YAML, as text in UTF-8, but is not: {error}.") from error
    except OSError as error:
        raise SpecificationError(f"{file} cannot be read: {error.strerror}.") from error
    values = _read_yaml(text, f"{file} must be YAML, but")
    for change in changes:
        _set_field(values, change)
    return Specification.parse(values, source=str(file)).with_resolved_paths(file.resolve().parent)


def _read_yaml(text: str, what: str) -> Any:
    """The values of a YAML text.

    Raises:
        SpecificationError: it is none, or would be far larger than any specification; the message begins with `what`.
    """
    if len(text) > _MOST_CHARACTERS:
        raise SpecificationError(f"{what} has {len(text)} characters: at most {_MOST_CHARACTERS} are read.")
    try:
        _refuse_size(text)
        values = load_yaml(text)
        if _count(values, set()) > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values, counting each alias (*name) in full")
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # PyYAML raises others than its own for malformed dates and the like.
        said = (
            str(error).replace(' in "<unicode string>",', " in")
            if isinstance(error, yaml.YAMLError | ValueError)
            else ""
        )
        raise SpecificationError(f"{what} cannot be parsed: {said[:300] or 'a value is malformed'}") from error
    return values


def _refuse_size(text: str) -> None:
    """Refuse deep nesting, which would end the process in the loader, and what would take it a minute.

    Raises:
        ValueError: there are too many values, or they are nested too deeply.
    """
    depth = values = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        values += isinstance(event, yaml.ScalarEvent)
        if depth > _DEEPEST:
            raise ValueError(f"lists and mappings are nested more than {_DEEPEST} deep")
        if values > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values")


def _count(value: Any, above: set[int]) -> int:
    """How many values there are in nested lists and mappings; no further than a few more than are allowed.

    Args:
        value: of YAML, in which aliases are one object in several places.
        above: identities of the lists and mappings that hold `value`.

    Raises:
        ValueError: a list or mapping holds itself.
    """
    if not isinstance(value, dict | list | set):
        return 1
    if id(value) in above:
        raise ValueError("an alias (*name) leads into itself")
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
    total = 1
    for part in parts:
        total += _count(part, {*above, id(value)})
        if total > _MOST_VALUES:
            break
    return total


def _set_field(values: Any, change: str) -> None:
    """Set a field of a nested mapping, as ``part.field=value`` says.

    Raises:
        SpecificationError: it has another form, or leads into something that is no mapping.
    """
    path, equals, text = change.partition("=")
    *parts, field = path.strip().split(".")
    value = _read_yaml(text, f"the value of --set {change[:100]} must be YAML, but")
    if not equals or not all((*parts, field)):
        raise SpecificationError(f"--set must be of the form study.trials=5, but got {change[:100]!r}.")
    for part in parts:
        values = values.setdefault(part, {}) if isinstance(values, dict) else None
    if isinstance(values, list):
        whole = ".".join(parts)
        raise SpecificationError(
            f"--set {change[:100]} must name no position: set the list as a whole, such as --set '{whole[:50]}=[1, 2]'."
        )
    if not isinstance(values, dict):
        raise SpecificationError(f"--set {change[:100]} must name a field of a mapping, but {'.'.join(parts)} is none.")
    values[field] = value


def json_schema() -> dict[str, Any]:
    """The JSON schema of a specification file, for editors.

    Returns:
        A schema in which the parts that have kinds (data, tasks) may match more than one of them.
    """
    schema: dict[str, Any] = _with_any_of(Specification.model_json_schema())
    return {**schema, "title": "diffsift specification"}


def _with_any_of(schema: Any) -> Any:
    # A registered task has any name, so the built-in ones match twice: "one of" would refuse them.
    if isinstance(schema, list):
        return [_with_any_of(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {"anyOf" if key == "oneOf" else key: _with_any_of(value) for key, value in schema.items()}
