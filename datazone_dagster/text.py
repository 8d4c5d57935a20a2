"""Text that quotes data, made safe for terminals, logs and pages: escaped, and shortened. Pure.

Keys, values and attribute names come from whoever writes to the table. Raw, an escape sequence
in one would drive the terminal of an operator, and a line break would forge a line of a log.
"""

from __future__ import annotations

import re
import unicodedata

VALUE_CHARS = 200
"""Longest piece of one value that a text of ours shows."""

MESSAGE_CHARS = 2_000
"""Longest text of one error."""

_URLS = re.compile(r"(abfss?://[^\s/@:]*@|://)(?:[^\s/@]*@)?([^\s?]*)(?:\?\S*)?")
_LONG_RUN = re.compile(rf"\S{{{VALUE_CHARS + 1},}}")
_TAIL_SHARE = 3
"""A shortened text keeps its start, and a third of its length from its end: the cause."""


def escaped(text: str) -> str:
    r"""Return a text in one printable line.

    Control and format characters (line breaks, escape sequences, changes of the writing
    direction) and halves of surrogate pairs become escapes such as `\n`, `\x1b` and `\u202e`.

    Example:
        `escaped("a\nb")` is `"a\\nb"`.
    """
    if text.isprintable():
        return text
    return "".join(char if _is_shown(char) else _escape(char) for char in text)


def shortened(text: str, limit: int = VALUE_CHARS) -> str:
    """Return a text of at most `limit` characters that keeps the start and the end.

    Where `limit` is more than 200, words of more than 200 characters are shortened first: they are
    values, and the text around them stays.
    """
    if limit > VALUE_CHARS:
        text = _LONG_RUN.sub(lambda found: _cut(found[0], VALUE_CHARS), text)
    return _cut(text, limit)


def shown(value: object, limit: int = VALUE_CHARS) -> str:
    """Return a value, a key or a foreign error text as our texts show it: shortened and escaped."""
    return escaped(shortened(str(value), limit))


def without_secrets(text: str) -> str:
    """Return a text whose URLs have no user and no query: they may be a password and a signature.

    The container in `abfss://container@account/` is no user.

    Example:
        `without_secrets("s3://key:secret@lake/a?sig=x")` is `"s3://lake/a"`.
    """
    return _URLS.sub(r"\1\2", text)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    note = f" ... {len(text):,} characters ... "
    room = limit - len(note)
    if room < limit // 2:  # a cell of a table: no room for a note
        return f"{text[: limit - 1]}…"
    tail = room // _TAIL_SHARE
    return f"{text[: room - tail]}{note}{text[-tail:]}"


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
