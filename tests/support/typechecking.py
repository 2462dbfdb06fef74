"""The checker behind ``--jaxtyping-packages``: annotations of the package are checked while tests run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from beartype import BeartypeConf, BeartypeHintOverrides, beartype
from beartype.roar import BeartypeDecorHintPep3119Exception

_checked = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True,  # an int is a float
        hint_overrides=BeartypeHintOverrides(
            {
                Self: Any,  # jaxtyping decorates methods, and beartype understands Self in decorated classes alone
                np.ndarray[Any, Any]: np.ndarray,  # which beartype refuses
            }
        ),
    )
)


_known: dict[tuple[object, ...], Callable[..., Any]] = {}


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function's annotations at each call.

    What jaxtyping passes is a signature with nothing behind it, and that of a nested function comes again at each call
    of the outer one. A search does so thousands of times, so a signature that is known is not prepared again. Its
    annotations are compared as text: array types are made anew each time.
    """
    name = (function.__module__, function.__qualname__, function.__code__)
    defaults = (len(function.__defaults__ or ()), *(function.__kwdefaults__ or ()))
    key = (*name, *defaults, str(function.__annotations__))
    if key not in _known:
        _known[key] = _prepared(function)
    return _known[key]


def _prepared(function: Callable[..., Any]) -> Callable[..., Any]:
    """Left alone are functions that take a protocol without ``runtime_checkable``: nothing can be said of it."""
    try:
        return _checked(function)
    except BeartypeDecorHintPep3119Exception:
        return function
