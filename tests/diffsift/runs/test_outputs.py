"""What a run may overwrite: its own files, and with force all others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffsift.errors import StudyError
from diffsift.runs.outputs import FOUND, PICKED, OutputFiles


def selection(file: Path, **about: str) -> Path:
    file.write_text(json.dumps({"about": about}))
    return file


def report(file: Path, study: str) -> Path:
    file.write_text(f'<html><head><meta name="diffsift-study" content="{study}"></head></html>')
    return file


def test_files_are_named_after_the_study_or_after_what_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = tmp_path.resolve()
    assert [file.relative_to(here).name for file in OutputFiles.of("horses", None).all] == [
        "selection-horses.json",
        "selection-horses.safetensors",
        "report-horses.html",
    ]
    named = OutputFiles.of("horses", "m/../b.json")
    assert named.all == [here / "b.json", here / "b.safetensors", here / "b.html"]
    assert OutputFiles.of("horses", "b.json", "c.html").report == here / "c.html"


@pytest.mark.parametrize(
    ("kind", "about"),
    [
        (FOUND, {"study": "horses", "kind": FOUND}),
        (FOUND, {"study": "horses"}),  # of older versions
        (PICKED, {"study": "horses", "kind": PICKED}),
    ],
)
def test_own_files_are_replaced(tmp_path: Path, kind: str, about: dict[str, str]) -> None:
    files = OutputFiles.of("horses", selection(tmp_path / "a.json", **about))
    report(files.report, "horses")
    files.refuse_overwriting("horses", kind)


@pytest.mark.parametrize(
    ("kind", "about", "message"),
    [
        (PICKED, {"study": "horses", "kind": FOUND}, "is the found selection of study 'horses'"),
        (PICKED, {"study": "horses"}, "is the found selection of study 'horses'"),
        (FOUND, {"study": "horses", "kind": PICKED}, "is the picked selection of study 'horses'"),
        (FOUND, {"study": "cats", "kind": FOUND}, "is the found selection of study 'cats'"),
    ],
)
def test_other_selections_are_kept(tmp_path: Path, kind: str, about: dict[str, str], message: str) -> None:
    files = OutputFiles.of("horses", selection(tmp_path / "a.json", **about))
    with pytest.raises(StudyError, match=rf"a\.json must be free or of this study, but {message}.*--force"):
        files.refuse_overwriting("horses", kind)
    files.refuse_overwriting("horses", kind, force=True)


@pytest.mark.parametrize("content", ["", "notes", "[]", "{}", '{"about": 3}', '{"about": {"score": 1}}'])
def test_foreign_files_are_kept(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(content)
    files = OutputFiles.of("horses", file)
    for kind in (FOUND, PICKED):
        with pytest.raises(StudyError, match=r"a\.json must be .* was not written by this study"):
            files.refuse_overwriting("horses", kind)


def test_reports_of_others_are_kept(tmp_path: Path) -> None:
    files = OutputFiles.of("horses", tmp_path / "a.json")
    report(files.report, "cats")
    with pytest.raises(StudyError, match=r"a\.html must be free or of this study, but is of study 'cats'"):
        files.refuse_overwriting("horses", FOUND)
    files.refuse_overwriting("horses", PICKED)  # which writes none
    files.report.write_bytes(b"\xff\xfe")
    with pytest.raises(StudyError, match="was not written by this study"):
        files.refuse_overwriting("horses", FOUND)
    files.refuse_overwriting_report("horses", force=True)
    report(files.report, "horses")
    files.refuse_overwriting_report("horses")


def test_tensors_beside_a_selection_of_another_name_are_kept(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"mine")
    files = OutputFiles.of("horses", tmp_path / "weights.json")
    with pytest.raises(StudyError, match=r"weights\.safetensors must be free"):
        files.refuse_overwriting("horses", FOUND)
    files.refuse_overwriting("horses", FOUND, force=True)
    save_file({"0.mean": torch.zeros(2), "0.scale": torch.ones(2)}, files.tensors)  # left by a killed process
    files.refuse_overwriting("horses", FOUND)
