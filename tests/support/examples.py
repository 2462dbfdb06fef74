"""The scripts of examples/ as modules, each imported once: what they register has one name."""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType

from support import ROOT


@cache
def load_example(name: str) -> ModuleType:
    """examples/NAME.py; its `main` is not called."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
