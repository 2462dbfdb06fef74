"""A server that restarts or cuts connections is waited for: what failed is done again, for some minutes."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError

PATIENCE = 300.0
"""Seconds for which an action is tried again."""

AT_START = 15.0
"""Seconds for which a process tries to reach the server in the first place: a wrong address is to be refused soon."""

_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries; the last one is repeated."""

# Classes of SQLSTATE that pass: connection failures, rolled back for others' sake, the operator's intervention, too
# many connections. An error without a state comes from the connection itself.
_PASSING = ("08", "40", "57", "53300")

# What a server says, without a state, to whom it will not let in however often it is asked.
_HOPELESS = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")

Notify = Callable[[str], None]
Result = TypeVar("Result")
Class = TypeVar("Class", bound=type)


def retried(
    action: Callable[[], Result],
    notify: Notify,
    *,
    between: Callable[[], None] = lambda: None,
    patience: float | None = None,
) -> Result:
    """Do something with a database, and again where the connection to its server was lost.

    Args:
        action: may be done twice: the connection may have been lost after the server had done it.
        notify: told once that the database does not answer, and once that it does again.
        between: called before each further try.
        patience: seconds after which it is given up; default: five minutes.

    Returns:
        What `action` returns.

    Raises:
        Exception: what `action` raised at last; at once, where waiting cannot help.
    """
    patience = PATIENCE if patience is None else patience
    ends: float | None = None
    tries = 0
    while True:
        try:
            result = action()
        except Exception as error:
            if not is_cut(error) or (ends is not None and time.monotonic() > ends):
                raise
            if ends is None:
                ends = time.monotonic() + patience
                notify(f"the study database does not answer; trying again for {patience:.0f} s ({_reason(error)})")
        else:
            if ends is not None:
                notify("the study database answers again")
            return result
        time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
        tries += 1
        between()


def retrying(made: Class) -> Class:
    """Make every public method of a class `retried`; its attribute ``_notify`` is told.

    Methods are short transactions that may be done twice. Those that return a context manager or a part of this object
    do nothing with the database themselves.
    """
    for name, method in list(vars(made).items()):
        if not name.startswith("_") and inspect.isfunction(method):
            setattr(made, name, _retried(method))
    return made


def is_cut(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a lost connection to a server."""
    while error is not None:
        if isinstance(error, PendingRollbackError):
            return True
        if isinstance(error, DBAPIError):
            return error.connection_invalidated or _passes(error)
        error = error.__cause__
    return False


def _passes(error: DBAPIError) -> bool:
    """Whether a PostgreSQL driver names a state that passes, or none, as where the server cannot be reached."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    if any(sign in str(error.orig) for sign in _HOPELESS):
        return False
    for name in ("sqlstate", "pgcode"):  # of psycopg and of psycopg2
        if hasattr(error.orig, name):
            return (getattr(error.orig, name) or _PASSING[0]).startswith(_PASSING)
    return False


def _retried(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def tried(self: Any, *args: Any, **options: Any) -> Any:
        return retried(lambda: method(self, *args, **options), self._notify)

    return tried


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, BaseException) else error
    text = str(getattr(cause, "orig", None) or cause).strip()
    return text.splitlines()[0][:100] if text else type(cause).__name__
