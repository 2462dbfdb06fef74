"""What the command line names as images and selections."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffsift.errors import DataError, SelectionError
from diffsift.runs.images import find_images, require_selection


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "more/c.png", "more/d.webp"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(files: list[Path]) -> list[str]:
    return [file.name for file in files]


def test_files_folders_and_patterns(photos: Path) -> None:
    assert names(find_images([photos])) == ["a.JPG", "b.png"]
    assert names(find_images([photos / "more" / "d.webp", photos])) == ["d.webp", "a.JPG", "b.png"]
    assert names(find_images([f"{photos}/**/*.png"])) == ["b.png", "c.png"]
    assert names(find_images([photos / "b.png", photos, photos / "b.png"])) == ["b.png", "a.JPG"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "images must exist, but there is no"), ("*.gif", "matches no file"), ("empty", "must hold images")],
)
def test_names_that_lead_to_no_image(photos: Path, name: str, message: str) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        find_images([photos / name])


def test_two_images_of_one_stem(photos: Path) -> None:
    (photos / "more" / "b.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"different stems, but got 'b' twice"):
        find_images([photos, photos / "more"])


def test_selection_files_are_judged_by_their_json(photos: Path) -> None:
    (photos / "selection.json").write_text('{"members": []}')
    require_selection(photos / "selection.json")
    with pytest.raises(SelectionError, match=r"there is no .*selektion\.json; did you mean 'selection\.json'"):
        require_selection(photos / "selektion.json")
    with pytest.raises(SelectionError, match="cannot be read as JSON"):
        require_selection(photos / "b.png")
