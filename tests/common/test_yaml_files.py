"""YAML in which a key stands twice, or which PyYAML itself stumbles over, is refused."""

from __future__ import annotations

import pytest
import yaml

from diffsift.common.yaml_files import load_yaml


@pytest.mark.parametrize("as_text", [False, True])
def test_a_key_that_stands_twice_is_refused_with_both_lines(as_text: bool) -> None:
    text = "study:\n  name: a\n  trials: 5\n  name: b\n"
    with pytest.raises(
        yaml.YAMLError, match=r"'name' must stand once in a mapping, but is in line 2 and again"
    ) as caught:
        load_yaml(text, as_text=as_text)
    assert "line 4" in str(caught.value)


def test_equal_keys_of_different_mappings_and_merged_ones_are_no_mistake() -> None:
    text = "base: &base {a: 1, b: 2}\nfirst: {<<: *base, a: 3}\nsecond: {a: 1, '1': x, 1: y}\n"
    found = load_yaml(text)
    assert found["first"] == {"a": 3, "b": 2}
    assert found["second"] == {"a": 1, "1": "x", 1: "y"}
    assert load_yaml('{"a": [1, 2.5, null, "0001"]}') == {"a": [1, 2.5, None, "0001"]}
    assert load_yaml("a: 0001", as_text=True) == {"a": "0001"}


@pytest.mark.parametrize(
    "text", ["a: !!timestamp x", "{" * 3000, "? [a]\n: b", "? {a: b}\n: c", "a: !!python/object:os.x {}"]
)
def test_what_the_parser_stumbles_over_is_its_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)
