"""The part of a bank that belongs to one of several joined data sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from diffsift.spaces import Candidate

from ._pending_entries import Entry
from .development import DevelopmentSet


@runtime_checkable
class BankView(Protocol):
    """What a probe reads: the entries of a development set."""

    @property
    def development(self) -> DevelopmentSet:
        """The images and locations of the entries."""
        ...

    def __getitem__(self, candidate: Candidate, /) -> Entry: ...


class BankPart:
    """The entries of a bank of joined data sets, cut down to the images of one; statistics are those of all.

    Args:
        bank: of a development set with `members`.
        number: position of the data set among them.
    """

    def __init__(self, bank: BankView, number: int) -> None:
        members = bank.development.members
        self._bank, self._development = bank, members[number]
        self._start = sum(len(member.samples) for member in members[:number])
        self._entries: dict[Candidate, Entry] = {}

    @property
    def development(self) -> DevelopmentSet:
        """The images and locations of the one data set."""
        return self._development

    def __getitem__(self, candidate: Candidate) -> Entry:
        if candidate not in self._entries:
            entry = self._bank[candidate]
            features = entry.features.images(self._start, self._start + len(self._development.samples))
            self._entries[candidate] = replace(entry, features=features)
        return self._entries[candidate]
