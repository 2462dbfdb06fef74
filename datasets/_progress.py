"""A progress bar for work that is usually too short to need one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_PATIENCE = 2.0  # seconds


def with_progress(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Pass `items` through; from the third second on show, on standard error, how many of `total` are done."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task(description, total=total)
    begin, shown = time.monotonic(), False
    try:
        for item in items:
            yield item
            progress.advance(task)
            if not shown and time.monotonic() - begin > _PATIENCE:
                progress.start()
                shown = True
    finally:
        if shown:
            progress.stop()
