"""diffsift: choose which activations of a diffusion model to use as features for a vision task.

The public names are loaded when they are first used, so that ``import diffsift`` costs no more than a few milliseconds.
"""

from typing import Any

import lazy_loader

from diffsift import errors

__version__ = "0.1.0"

_load, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'diffsift' has no attribute {name!r}{errors.did_you_mean(name, __all__)}")
    return _load(name)


def __dir__() -> list[str]:
    return sorted(__all__)
