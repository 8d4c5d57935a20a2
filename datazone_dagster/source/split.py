"""Split of a GetRecords body into its records without parsing them, however deep they are nested.

JSON parsers follow nesting by recursion and give up at some depth, for the entire body. One hostile
record must not stop its shard: here a body is only a sequence of strings, brackets and commas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{},]', re.DOTALL)
_OPENING, _CLOSING = (b"{", b"["), (b"}", b"]")


def split_records(body: bytes) -> tuple[bytes, list[bytes]] | None:
    """Return a body without its records, and the records; None if it has no list of records.

    The first is JSON with an empty list, of the size of an iterator. Whether a record is valid JSON
    remains open.
    """
    start: int | None = None
    element_start = 0
    records: list[bytes] = []
    depth, key, before = 0, b"", b""
    for token, begin, end in _tokens(body):
        if start is not None and depth == 2 and token in (b",", b"]"):
            records.append(body[element_start:begin].strip())
            element_start = end
            if token == b"]":
                found = [record for record in records if record] if len(records) == 1 else records
                return body[:start] + body[begin:], found
        elif token in _OPENING:
            depth += 1
            if start is None and (depth, token, key) == (2, b"[", b'"Records"'):
                start = element_start = end
        elif token in _CLOSING:
            depth -= 1
        elif depth == 1 and before in (b"{", b","):
            key = token
        before = token
    return None


def text_member(record: bytes, outer: str, inner: str) -> str | None:
    """Return the text of a member of an object that is a member of a record; None without one."""
    outer_name, inner_name = (json.dumps(name).encode() for name in (outer, inner))
    depth, before = 0, b""
    keys = [b"", b""]
    for token, _, _ in _tokens(record):
        if token in _OPENING:
            depth += 1
        elif token in _CLOSING:
            depth -= 1
        elif token != b"," and depth in (1, 2):
            if before in (b"{", b","):
                keys[depth - 1] = token
            elif depth == 2 and keys == [outer_name, inner_name]:
                text: str = json.loads(token)
                return text
        before = token
    return None


def _tokens(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    return ((found[0], found.start(), found.end()) for found in _TOKEN.finditer(body))
