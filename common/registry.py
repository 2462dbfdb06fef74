"""Kinds of a thing by name: ours, those of entry points of installed packages, and those registered from Python."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from diffsift.errors import SpecificationError, did_you_mean

Kind = TypeVar("Kind")


class Registry(Generic[Kind]):
    """The kinds of one extension point, each loaded when it is first asked for.

    A package adds a kind with an entry point of `group`; a script adds one with `register`.

    Args:
        what: the thing in the singular, as messages name it, such as ``objective``.
        group: of entry points, such as ``diffsift.objectives``.
        ours: the built-in kinds: by name ``module:attribute``.
    """

    def __init__(self, what: str, group: str, ours: Mapping[str, str]) -> None:
        self.what, self.group = what, group
        self._ours = dict(ours)
        self._registered: dict[str, Kind] = {}

    def register(self, name: str, kind: Kind) -> None:
        """Add a kind for this process.

        Args:
            name: what specifications call it; none of the names there are.
            kind: the class or factory; its own documentation says how it is called.

        Raises:
            SpecificationError: the name is taken by another kind.
        """
        if name in self.names() and self._registered.get(name) is not kind:
            article = "an" if self.what[0] in "aeiou" else "a"
            raise SpecificationError(f"{article} {self.what} must have a new name, but {name!r} is taken.")
        self._registered[name] = kind

    def names(self) -> list[str]:
        """All names: built-in ones first, then the others in alphabetical order."""
        added = {entry.name for entry in entry_points(group=self.group)} | set(self._registered)
        return [*self._ours, *sorted(added - set(self._ours))]

    def __contains__(self, name: object) -> bool:
        return name in self._ours or name in self._registered or name in self.names()

    def __getitem__(self, name: str) -> Kind:
        """The kind of a name.

        Raises:
            SpecificationError: there is none; the closest names are offered.
        """
        if name in self._ours:
            module, _, attribute = self._ours[name].partition(":")
            return cast("Kind", getattr(import_module(module), attribute))
        if name in self._registered:
            return self._registered[name]
        for entry in entry_points(group=self.group):
            if entry.name == name:
                return cast("Kind", entry.load())
        raise SpecificationError(f"there is no {self.what} {name!r}{did_you_mean(name, self.names())}")
