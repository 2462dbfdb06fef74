"""Registries: built-in kinds load late, packages add kinds by entry point, scripts by a call."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from diffsift.common import registry
from diffsift.common.registry import Registry
from diffsift.errors import SpecificationError


@pytest.fixture
def animals(monkeypatch: pytest.MonkeyPatch) -> Registry[Any]:
    """Two built-in kinds and one of an installed package."""
    entry = EntryPoint("yak", "collections:OrderedDict", "tests.animals")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == "tests.animals" else [])
    return Registry("animal", "tests.animals", {"zebra": "collections:deque", "ant": "not.there:Ant"})


def test_built_in_kinds_come_first_and_load_when_asked_for(animals: Registry[Any]) -> None:
    from collections import deque

    assert animals.names() == ["zebra", "ant", "yak"]
    assert animals["zebra"] is deque
    assert "not" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        animals["ant"]


def test_kinds_of_packages_are_entry_points(animals: Registry[Any]) -> None:
    from collections import OrderedDict

    assert animals["yak"] is OrderedDict
    assert "yak" in animals


def test_a_kind_is_registered_once_and_under_a_name_of_its_own(animals: Registry[Any]) -> None:
    animals.register("bee", dict)
    animals.register("bee", dict)  # as a notebook cell does that is run again
    assert animals["bee"] is dict
    assert animals.names() == ["zebra", "ant", "bee", "yak"]
    for name in ("bee", "zebra", "yak"):
        with pytest.raises(SpecificationError, match=f"an animal must have a new name, but '{name}' is taken"):
            animals.register(name, list)


def test_an_unknown_name_offers_the_closest(animals: Registry[Any]) -> None:
    with pytest.raises(SpecificationError, match=r"there is no animal 'zebr'.*zebra"):
        animals["zebr"]
