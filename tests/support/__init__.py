"""What test modules share: tiny models and data, planted searches, layouts of data sets."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

ASSETS = ROOT / "tests" / "assets"
