"""The checker behind ``--jaxtyping-packages``: annotations of the package are checked while tests run."""

from __future__ import annotations

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
