"""A study that commands are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny
from support.commands import done, write


@pytest.fixture(scope="session")
def searched(tiny_pipeline: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which a search of six trials has ended, and what it said. Not to be changed."""
    folder = tmp_path_factory.mktemp("searched")
    specification = tiny.specification(tiny_pipeline, tiny_data, study={"trials": 6})
    del specification["tracking"]  # as most users have it
    spec = write(folder / "spec.yaml", specification)
    said = done("search", spec, "--workspace", folder / "workspace", "--out", folder / "selection.json")
    return folder, said
