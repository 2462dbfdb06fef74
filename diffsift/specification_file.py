"""Specifications in files: reading YAML, fields set on the command line, and the schema that editors use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from diffsift.common.yaml_files import load_yaml
from diffsift.errors import SpecificationError
from diffsift.specification import Specification


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
        values = load_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecificationError(f"{file} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = str(error).replace('"<unicode string>"', f'"{file.name}"')
        raise SpecificationError(f"{file} must be YAML, but cannot be parsed: {said}") from error
    for change in changes:
        _set_field(values, change)
    return Specification.parse(values, source=str(file)).with_resolved_paths(file.resolve().parent)


def _set_field(values: Any, change: str) -> None:
    """Set a field of a nested mapping, as ``part.field=value`` says.

    Raises:
        SpecificationError: it has another form, or leads into something that is no mapping.
    """
    path, equals, text = change.partition("=")
    *parts, field = path.strip().split(".")
    try:
        value = load_yaml(text)
    except yaml.YAMLError as error:
        raise SpecificationError(f"the value of --set {change} must be YAML, but cannot be parsed: {error}") from error
    if not equals or not all((*parts, field)):
        raise SpecificationError(f"--set must be of the form study.trials=5, but got {change!r}.")
    for part in parts:
        values = values.setdefault(part, {}) if isinstance(values, dict) else None
    if not isinstance(values, dict):
        raise SpecificationError(f"--set {change} must name a field of a mapping, but {'.'.join(parts)} is none.")
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
