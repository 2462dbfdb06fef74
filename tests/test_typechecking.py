"""The tests' own checker of annotations: it holds at each call, also for functions that are made anew each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float32, TypeCheckError, jaxtyped
from support import typechecking


def made(columns: int) -> Callable[[Any], Any]:
    """A function of one name, with annotations of its own for each number of columns."""
    if columns == 3:

        @jaxtyped(typechecker=typechecking.check)
        def compute(values: Float32[np.ndarray, "rows 3"]) -> Float32[np.ndarray, "rows 3"]:
            return values if len(values) else np.float32(0.0)  # type: ignore[return-value]
    else:

        @jaxtyped(typechecker=typechecking.check)
        def compute(values: Float32[np.ndarray, "rows 4"]) -> Float32[np.ndarray, "rows 4"]:
            return values

    return compute


def test_a_nested_function_is_checked_each_time_and_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, prepared = typechecking._checked, []

    def counted(function: Any) -> Any:
        prepared.append(function)
        return prepare(function)

    monkeypatch.setattr(typechecking, "_known", {})
    monkeypatch.setattr(typechecking, "_checked", counted)
    counts = []
    for _ in range(3):
        assert made(3)(np.zeros((2, 3), np.float32)).shape == (2, 3)
        with pytest.raises(TypeCheckError, match="parameters"):
            made(3)(np.zeros((2, 4), np.float32))
        with pytest.raises(TypeCheckError, match="return value"):
            made(3)(np.zeros((0, 3), np.float32))
        counts.append(len(prepared))
    assert counts[0] == counts[-1] > 0
    assert made(4)(np.zeros((2, 4), np.float32)).shape == (2, 4)
    with pytest.raises(TypeCheckError):
        made(4)(np.zeros((2, 3), np.float32))
