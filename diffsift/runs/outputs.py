"""The files that a run writes for the user, and what they may replace."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from diffsift.common.files import reserved
from diffsift.errors import StudyError

FOUND, PICKED = "found", "picked"
"""How the selection in a file came about, as its ``about.kind`` says."""

_STUDY = re.compile(r'<meta name="diffsift-study" content="([^"]*)">')
_STATISTIC = re.compile(r"\d+\.(mean|scale|projection)|__metadata__")
_HEAD = 4096
"""Characters of a report in which the study is named."""
_LARGEST_HEADER = 1 << 20
"""Bytes: that of a selection's tensors is far smaller."""


@dataclass(frozen=True)
class OutputFiles:
    """Where the selection and the report of a study go.

    Attributes:
        selection: JSON file; its tensors lie beside it.
        report: HTML file.
    """

    selection: Path
    report: Path

    @classmethod
    def of(cls, study: str, out: str | Path | None, report: str | Path | None = None) -> Self:
        """The files of a study: as asked for, else named after it in the current folder.

        Args:
            study: name.
            out: the selection file; default: ``selection-STUDY.json``.
            report: the report; default: beside the selection and named like it, ``report-STUDY.html`` by default.

        Returns:
            Absolute paths; nothing is written.
        """
        selection = Path(out) if out else Path(f"selection-{study}.json")
        beside = selection.with_suffix(".html") if out else Path(f"report-{study}.html")
        return cls(selection.expanduser().resolve(), (Path(report) if report else beside).expanduser().resolve())

    @property
    def tensors(self) -> Path:
        """The statistics that belong to the selection."""
        return self.selection.with_suffix(".safetensors")

    @property
    def all(self) -> list[Path]:
        """Every file, in the order in which they are shown."""
        return [self.selection, self.tensors, self.report]

    def refuse_overwriting(self, study: str, kind: str, *, force: bool = False) -> None:
        """Refuse to replace what another study, or another kind of selection of this one, has written.

        Args:
            study: that is about to write.
            kind: `FOUND` or `PICKED`.
            force: replace it all the same.

        Raises:
            StudyError: a file exists and is not of this study.
        """
        if force:
            return
        if self.selection.exists() and (owner := _owner_of_selection(self.selection)) != (study, kind):
            _refuse(self.selection, owner[0], owner[1])
        if self.tensors.exists() and not _are_statistics(self.tensors):
            _refuse(self.tensors, "", "")
        if kind == FOUND:
            self.refuse_overwriting_report(study)

    def refuse_overwriting_report(self, study: str, *, force: bool = False) -> None:
        """Refuse to replace what is not a report of this study.

        Args:
            study: whose report is about to be written.
            force: replace it all the same.

        Raises:
            StudyError: the file exists and is not a report of this study.
        """
        if not force and self.report.exists() and (name := _owner_of_report(self.report)) != study:
            _refuse(self.report, name, "")

    @contextmanager
    def room(self, results: Path, size: int) -> Iterator[None]:
        """Hold the room that selection, report and results need, inside the ``with`` block.

        Args:
            results: file in the workspace.
            size: bytes for each folder.

        Yields:
            Nothing, while the room is held.

        Raises:
            StudyError: a folder cannot be written, or its disk is full.
        """
        with ExitStack() as stack:
            for folder in dict.fromkeys((results.parent, self.selection.parent, self.report.parent)):
                try:
                    stack.enter_context(reserved(folder, size))
                except OSError as error:
                    raise StudyError(
                        f"the results of the study need {size / 1e6:.1f} MB in {folder}, but cannot be written there: "
                        f"{error.strerror or error}. The test split was not opened: make room, or write elsewhere "
                        "(--out), and go on with diffsift resume."
                    ) from error
            yield


def _owner_of_selection(file: Path) -> tuple[str, str]:
    """Study and kind of a selection file; files of older versions do not say their kind: they were found."""
    try:
        about = json.loads(file.read_text(encoding="utf-8"))["about"]
        return str(about["study"]), str(about.get("kind", FOUND))
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


def _are_statistics(file: Path) -> bool:
    """Whether tensors are those of a selection, which a process that was killed may have left without their JSON."""
    try:
        with file.open("rb") as content:
            header = json.loads(content.read(min(int.from_bytes(content.read(8), "little"), _LARGEST_HEADER)))
    except (OSError, ValueError):
        return False
    return isinstance(header, dict) and all(_STATISTIC.fullmatch(name) for name in header)


def _owner_of_report(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as text:
            found = _STUDY.search(text.read(_HEAD))
    except (OSError, ValueError):
        return ""
    return found[1] if found else ""


def _refuse(file: Path, study: str, kind: str) -> None:
    whose = f"is the {kind} selection of study {study!r}" if kind else f"is of study {study!r}"
    raise StudyError(
        f"{file} must be free or of this study, but {whose if study else 'was not written by this study'}: name "
        "another file with --out, or add --force."
    )
