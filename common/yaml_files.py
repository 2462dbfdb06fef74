"""Reading YAML: like PyYAML's safe loader, but a key that stands twice in a mapping is an error."""

from __future__ import annotations

from typing import Any

import yaml


class _UniqueKeys:
    """Refuses a second key of a mapping, of which PyYAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[tuple[str, str], yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                first = seen.setdefault((key.tag, key.value), key.start_mark)
                if first is not key.start_mark:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value[:_SHOWN]!r} must stand once in a mapping, but is in line {first.line + 1} "
                        "and again",
                        problem_mark=key.start_mark,
                    )
        found: dict[Any, Any] = super().construct_mapping(node, deep)  # type: ignore[misc]
        return found


_SHOWN = 60  # characters of a key


class _Loader(_UniqueKeys, yaml.SafeLoader):
    """Values with their types."""


class _TextLoader(_UniqueKeys, yaml.BaseLoader):
    """All scalars as text."""


def load_yaml(text: str, *, as_text: bool = False) -> Any:
    """Parse YAML, of which JSON is a part.

    Args:
        text: a document.
        as_text: leave every scalar text, so that 0001 does not become the number 1.

    Returns:
        What the document holds.

    Raises:
        yaml.YAMLError: it cannot be parsed, or a key stands twice in a mapping; the message names both lines.

    Examples:
        >>> load_yaml("stems: [0001]", as_text=True)
        {'stems': ['0001']}
    """
    try:
        return yaml.load(text, Loader=_TextLoader if as_text else _Loader)
    except (ValueError, AttributeError, TypeError, RecursionError, OverflowError) as error:
        # PyYAML's own slips: a timestamp that is none, keys that cannot be keys, thousands of nested brackets.
        said = str(error) if isinstance(error, ValueError) else "a value is malformed"
        raise yaml.YAMLError(said) from error
