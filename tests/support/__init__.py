"""What test modules share: tiny models and data, planted searches, layouts of data sets."""

from pathlib import Path

from support import typechecking as typechecking  # the import hook looks it up as an attribute

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

ASSETS = ROOT / "tests" / "assets"
