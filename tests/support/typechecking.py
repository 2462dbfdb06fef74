"""The checker behind ``--jaxtyping-packages``: annotations of the package are checked while tests run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from beartype import BeartypeConf, BeartypeHintOverrides, beartype

check = beartype(
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


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the package as its users have it: for tests that pass wrong types or shapes on purpose."""
    return inspect.unwrap(function)
