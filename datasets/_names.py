"""Names of files: how they are compared, shown and refused."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from diffsift.errors import DataError

_NO_UTF8 = 0xDC00  # from here on Python keeps the bytes of names that are no UTF-8

_MOST_CHARACTERS = 1000  # of names in a message

SHOWN = 3
"""Names in a line among others."""

REFUSED = 25
"""Names in a message that refuses them: as good as all, in a few lines."""

Content = TypeVar("Content")


def shown(name: str) -> str:
    """A file name in which every character can be printed on one line."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in name)


def _escaped(letter: str) -> str:
    """A letter in ASCII; one that stands for a byte that is no UTF-8 as that byte."""
    code = ord(letter)
    return f"\\x{code - _NO_UTF8:02x}" if _NO_UTF8 < code <= _NO_UTF8 + 0xFF else ascii(letter)[1:-1]


def refuse_unreadable_names(names: Iterable[str]) -> None:
    """Refuse names that are not UTF-8: they can be written neither into a database nor into a report.

    Raises:
        DataError: there is such a name; the message shows its bytes.
    """
    wrong = [shown(name) for name in names if not name.isascii() and not _is_utf8(name)]
    if wrong:
        is_or_are = "is" if len(wrong) == 1 else "are"
        raise DataError(f"names of files must be UTF-8, but {some(wrong, REFUSED)} {is_or_are} not: rename them.")


def with_form_of(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Names in the Unicode form in which they are known: systems write letters with accents in two ways.

    Args:
        names: any; one that is not known in any form is kept.
        known: the names that there are.
    """
    forms = {composed(name): name for name in known}
    return [name if name in known else forms.get(composed(name), name) for name in names]


def in_form_of(entries: Mapping[str, Content], known: Collection[str]) -> dict[str, Content]:
    """Entries under the names in their known Unicode form; see `with_form_of`."""
    return dict(zip(with_form_of(entries, known), entries.values(), strict=True))


def composed(name: str) -> str:
    """A name in the Unicode form in which a letter with its accent is one character."""
    return unicodedata.normalize("NFC", name)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def some(names: Sequence[str], most: int = SHOWN) -> str:
    """The first names, fewer if they are long, and how many more there are."""
    first = list(names[:most])
    while len(first) > 1 and sum(map(len, first)) > _MOST_CHARACTERS:
        first.pop()
    return f"{', '.join(first)}{f' and {len(names) - len(first)} more' if len(first) < len(names) else ''}"
