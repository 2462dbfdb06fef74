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


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function's annotations at each call.

    Left alone are functions that take a protocol without ``runtime_checkable``: nothing can be said of it.
    """
    try:
        return _checked(function)
    except BeartypeDecorHintPep3119Exception:
        return function
