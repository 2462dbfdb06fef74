"""Atomic writes and digests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from diffsift.common.files import digest, seal_holds, sealed, write_atomically


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_atomically(file, "first, and longer")
    write_atomically(file, b"second")
    assert file.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    write_atomically(file, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_digests_are_of_the_value_and_not_of_how_it_is_written() -> None:
    assert digest({"b": (1, 2), "a": None}) == digest({"a": None, "b": [1, 2]})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest("x")) == 16
    assert digest("x", 64).startswith(digest("x", 8))


def test_a_sealed_document_notices_a_change_anywhere_in_it() -> None:
    document = json.loads(json.dumps(sealed({"a": [1.5, {"b": (1, 2)}], 3: None})))
    assert seal_holds(document)
    assert not seal_holds({**document, "a": [1.5, {"b": [1, 3]}]})
    assert not seal_holds({**document, "c": 1})
    assert not seal_holds({**document, "checksum": "0" * 64})


def test_a_document_of_an_older_version_has_no_checksum_and_is_taken_as_it_is() -> None:
    assert seal_holds({"a": 1})
