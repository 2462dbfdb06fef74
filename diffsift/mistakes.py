"""What is wrong with a specification, in words: each message names the field, what must hold and what was got."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from diffsift.errors import did_you_mean

FieldPath = tuple[str, ...]
"""Names of fields from the specification to a value; positions in lists count as names."""

FieldsAt = Callable[[FieldPath], Sequence[str]]
"""Names of the fields that a mapping at a path may have."""

_SIZE_HINT = "; write [height, width] in px, such as [512, 512]"

_DTYPES = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32"}
"""Names that people have for types."""

_CONDITIONS = {
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of names",
    "too_short": "must hold at least {min_length}",
    "too_long": "must hold at most {max_length}",
    "path_type": "must be a path",
}
"""What must hold, by pydantic's types of errors."""

_SHORT = reprlib.Repr()  # of a value of any size: it looks at its first parts alone
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 12
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 100

_MOST = 50
"""Mistakes that are explained: a list of thousands of wrong values needs no more."""

_LEVEL = "must be a whole number of at least 0, or a fraction of noise levels between 0 and 1"
_STUDY_NAME = "must be letters, digits, dots, dashes and underscores, at most 100, and begin with a letter or digit"
_SHORT_NAMES = "must use names of lower-case letters, digits, dots, dashes and underscores that begin with a letter"


@dataclass(frozen=True)
class _Mistake:
    """One error.

    Attributes:
        path: of the field; empty where several fields together are wrong.
        text: the condition, such as ``must be a number``, or what is wrong with the field, said in full.
        value: what was got.
        hint: what to do about it, with its punctuation.
        is_type: whether the value is of a wrong type, so that another branch of a union may fit it.
    """

    path: FieldPath
    text: str
    value: Any
    hint: str = ""
    is_type: bool = False

    def __str__(self) -> str:
        name = ".".join(self.path)
        if any(part.isdecimal() for part in self.path):  # a position in a list
            name += " (counted from 0)"
        if not name:  # it names the fields itself
            sentence = self.text
        elif self.text.startswith("is ") or ", but " in self.text:
            sentence = f"{name} {self.text}" if self.text.startswith(("is ", "must ")) else f"{name}: {self.text}"
        elif self.text.startswith("must "):
            sentence = f"{name} {self.text}, but {shown(self.value)}{self.hint}"
        else:
            sentence = f"{name}: {self.text}, but {shown(self.value)}"
        return sentence if sentence.endswith(("?", ".")) else f"{sentence}."


def explain(error: ValidationError, values: Any, fields_at: FieldsAt) -> list[str]:
    """The errors of a validation, one message for each field.

    Args:
        error: of pydantic.
        values: what was validated.
        fields_at: names of the fields that a mapping at a path may have.

    Returns:
        Sentences, in the order of the specification. A value that fits no branch of a union gives one of them.
    """
    found = [_mistake(entry, values, fields_at) for entry in error.errors()[:_MOST]]
    paths = {mistake.path for mistake in found}
    # In a union, the branch that came furthest is the one that was meant.
    furthest = [m for m in found if not any(len(p) > len(m.path) > 0 and p[: len(m.path)] == m.path for p in paths)]
    grouped: dict[FieldPath, list[_Mistake]] = {}
    for mistake in furthest:
        grouped.setdefault(mistake.path, []).append(mistake)
    return list(dict.fromkeys(line for mistakes in grouped.values() for line in _lines(mistakes)))


def shown(value: Any) -> str:
    """What was got, shortened."""
    if value is None:
        return "is empty"
    text = _SHORT.repr(value)
    return f"got {text if len(text) <= 80 else text[:77] + '...'}"


def _lines(mistakes: list[_Mistake]) -> list[str]:
    """Messages about one field."""
    meant = [mistake for mistake in mistakes if not mistake.is_type] or mistakes
    if len(meant) == 1 or not all(mistake.is_type for mistake in meant):
        return [str(mistake) for mistake in meant]
    conditions = dict.fromkeys(mistake.text.removeprefix("must be ") for mistake in meant)
    return [str(_Mistake(meant[0].path, f"must be {' or '.join(conditions)}", meant[0].value))]


def _mistake(entry: Any, values: Any, fields_at: FieldsAt) -> _Mistake:
    kind, value, context = entry["type"], entry["input"], entry.get("ctx", {})
    path = _path(entry["loc"], values, named=kind == "missing")
    name = ".".join(path)
    if kind == "extra_forbidden":
        return _Mistake(path, f"is not a field{_meant(path, fields_at)}", value)
    if kind == "missing":
        if isinstance(entry["loc"][-1], int):  # a list that is too short
            return _Mistake(path[:-1], f"must hold {entry['loc'][-1] + 1} values", value)
        return _Mistake(path, "must be given, but is missing", value)
    if kind.startswith("union_tag"):
        given = value.get("kind") if isinstance(value, dict) else None
        tags = sorted(re.findall(r"'([^']+)'", context.get("expected_tags", ""))) or list(fields_at((*path, "kind")))
        return _Mistake((*path, "kind"), f"must be one of {', '.join(tags)}", given, _close(given, tags))
    if kind in ("model_type", "model_attributes_type"):
        fields = ", ".join(fields_at(path)[:4])
        return _Mistake(path, f"must be a mapping of fields ({fields}, ...)", value)
    if entry["loc"][-1:] == ("[key]",):
        return _Mistake(path[:-1], _SHORT_NAMES, path[-1])
    if path[:1] == ("timesteps",) and len(path) > 1:
        return _Mistake(path[:2], _LEVEL, value)
    if path == ("study", "name") and kind == "string_pattern_mismatch":
        return _Mistake(path, _STUDY_NAME, value)
    if kind in _CONDITIONS:
        text = _CONDITIONS[kind].format(**context)
        hint = _SIZE_HINT if path[-1:] == ("image_size",) else _hint(kind, value, text)
        return _Mistake(path, text, value, hint, kind.endswith(("_type", "_parsing")))
    text = entry["msg"].removeprefix("Value error, ")
    field, _, rest = text.partition(" ")
    if path and field in fields_at(path):
        return (
            _Mistake((*path, field), rest, value) if rest.startswith("must") else _Mistake((), f"{name}.{text}", value)
        )
    if path and field.split(".")[0] == path[0]:  # it names the field itself
        return _Mistake((), text, value)
    names = re.findall(r"[\w-]+", text.partition("must be one of")[2].partition("(")[0])
    return _Mistake(path, text, value, _close(value, names))


def _path(loc: Iterable[Any], values: Any, *, named: bool) -> FieldPath:
    """The part of an error's location that is the user's: pydantic adds the branches of unions.

    Args:
        loc: the location.
        values: what was validated, in which the user's part leads somewhere.
        named: whether the last part names a field that is missing.
    """
    parts, path = list(loc), []
    for number, part in enumerate(parts):
        inside = part in values if isinstance(values, dict) else isinstance(values, list | tuple)
        if inside and (isinstance(values, dict) or isinstance(part, int)):
            path.append(str(part))
            values = values[part] if isinstance(values, dict) or part < len(values) else None
        elif named and number == len(parts) - 1:
            path.append(str(part))
    return tuple(path)


def _hint(kind: str, value: Any, text: str) -> str:
    if kind == "literal_error":
        names = re.findall(r"'([^']+)'", text)
        return _close(_DTYPES.get(str(value), value) if "float16" in names else value, names)
    if kind == "tuple_type" and isinstance(value, str | int | float):
        return f"; write [{value}]"
    if kind == "string_type" and isinstance(value, bool):
        return "; YAML reads yes, no, on and off as true and false: quote the word ('no')"
    if kind == "string_type" and isinstance(value, int | float):
        return f"; quote it: '{value}'"
    return ""


def _meant(path: FieldPath, fields_at: FieldsAt) -> str:
    """The field that was meant: one of this name in another part, unless the same part has one that is close."""
    name = path[-1]
    close = did_you_mean(name, fields_at(path[:-1]))
    parts = [part for part in fields_at(()) if not part.startswith("further_")]  # these have the fields of one part
    elsewhere = [f"{part}.{name}" for part in parts if name in fields_at((part,))]
    if elsewhere and (len(path) == 1 or (len(path) == 2 and "did you mean" not in close)):
        return f"; did you mean {' or '.join(map(repr, elsewhere))}?"
    return close


def _close(value: Any, names: Iterable[str]) -> str:
    close = get_close_matches(str(value), list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
