"""Every error diffsift raises on purpose. A leaf module: any folder may import it.

Messages say what must hold, what was got and what to do next, on one line where they can.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BankError",
    "CaptureError",
    "DataError",
    "DiffsiftError",
    "ModelError",
    "SelectionError",
    "SpecificationError",
    "StudyError",
    "did_you_mean",
    "first_line",
    "without_passwords",
]

_LONGEST = 1800
"""Characters of a message: a value that is given as a wall of text must not become the answer."""

# In a URL everything up to the last @ is taken: passwords that were not escaped may hold any of these signs.
_IN_URL = re.compile(r"(\w[\w+.-]*://[^\s/:@'\"]*):[^\s'\"]*@")
_IN_QUERY = re.compile(r"(?i)([?&](?:[\w-]*(?:password|passwd|pwd|token|secret))=)[^\s&'\"]*")


def without_passwords(text: str) -> str:
    """A text in which the URLs have no passwords: neither before the host nor in the query.

    Args:
        text: a URL, or a sentence with URLs in it.

    Examples:
        >>> without_passwords("got postgresql://me:hidden@host/studies?sslpassword=hidden")
        'got postgresql://me@host/studies?sslpassword='
    """
    return _IN_QUERY.sub(r"\1", _IN_URL.sub(r"\1@", text))


class DiffsiftError(Exception):
    """Base of all errors that a user's input or machine can cause. Its message holds no password and is bounded.

    Args:
        message: what must hold, what was got, and what to do.
    """

    def __init__(self, message: str = "") -> None:
        text = without_passwords(message)
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]} ... ({len(text) - _LONGEST} more characters)"
        super().__init__(text)


class SpecificationError(DiffsiftError, ValueError):
    """A field of the specification is missing, unknown or out of range."""


class ModelError(DiffsiftError):
    """A model cannot be found, loaded or used as a backbone."""


class DataError(DiffsiftError):
    """A data set is missing files, or a file in it is not what it should be."""


class CaptureError(DiffsiftError):
    """An activation could not be captured as declared."""


class BankError(DiffsiftError):
    """The feature bank cannot be written or read."""


class SelectionError(DiffsiftError, ValueError):
    """A selection or a selection file is not valid."""


class StudyError(DiffsiftError):
    """A study cannot be created, opened or resumed."""


def did_you_mean(name: str, valid: Iterable[str], *, most: int = 3) -> str:
    """The end of an error message that offers the valid names closest to `name`.

    Examples:
        >>> did_you_mean("timestep", ["timesteps", "model"])
        "; did you mean 'timesteps'?"
        >>> did_you_mean("zzz", ["model", "data"])
        '; valid: data, model'
    """
    known = sorted(valid)
    if not known:
        return "; there are none"
    close = get_close_matches(name, known, n=most, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(repr(match) for match in close)}?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"; valid: {shown}"


def first_line(error: BaseException, *, most: int = 160) -> str:
    """What another library's error says, short enough for a message.

    Examples:
        >>> first_line(ValueError("no such file"))
        'no such file'
        >>> first_line(KeyError("width")), first_line(ZeroDivisionError())
        ("KeyError: 'width'", 'ZeroDivisionError')
    """
    lines = [line.strip() for line in str(error).strip().splitlines()]
    text = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    if not text or isinstance(error, ArithmeticError | AttributeError | LookupError | TypeError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= most else f"{text[:most]} ..."
