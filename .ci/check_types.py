"""Run mypy over the whole package, as it is imported.

On disk the subpackages lie in the root (``search/``), in Python under one package (``diffsift.search``). mypy does not
follow that mapping, so this script links the folders under ``.mypy_links/diffsift``, runs mypy there, and fails when
mypy checked fewer files than the package has.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINKS = ROOT / ".mypy_links"
CHECKED = re.compile(r"(?:no issues found in|checked) (\d+) source files?")


def package_folders() -> dict[str, Path]:
    """The root folders by the name of the subpackage they are; the front door's name is empty."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return {name.removeprefix("diffsift").lstrip("."): ROOT / path for name, path in settings["package-dir"].items()}


def link(folders: dict[str, Path]) -> None:
    """Make the folder of links anew, so that it never holds what has since been renamed."""
    package = LINKS / "diffsift"
    package.mkdir(parents=True, exist_ok=True)
    for old in package.iterdir():
        old.unlink()
    for entry in folders[""].iterdir():
        if entry.suffix in (".py", ".pyi", ".typed"):
            (package / entry.name).symlink_to(entry)
    for name, folder in folders.items():
        if name:
            (package / name).symlink_to(folder, target_is_directory=True)


def main() -> int:
    """Link, check, count; returns the exit status."""
    folders = package_folders()
    link(folders)
    expected = sum(1 for folder in folders.values() for _ in folder.rglob("*.py"))
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(ROOT / ".mypy_cache"), "--no-namespace-packages", "-p", "diffsift"]
    result = subprocess.run(command, cwd=LINKS, capture_output=True, text=True, check=False)
    subpackages = "|".join(name for name in folders if name)
    print(re.sub(rf"^diffsift/({subpackages})/", r"\1/", result.stdout, flags=re.MULTILINE), end="")
    print(result.stderr, end="", file=sys.stderr)
    if result.returncode:
        return result.returncode
    match = CHECKED.search(result.stdout)
    checked = int(match.group(1)) if match else 0
    if checked != expected:
        print(
            f"mypy must check every file of the package, but it checked {checked} of {expected}; "
            "look for a folder without an __init__.py or missing from package-dir in pyproject.toml.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
