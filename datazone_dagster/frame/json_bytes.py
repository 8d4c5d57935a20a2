"""Bytes and quotes of the JSON that parsed values were read from, if it is as short as it can be.

Each value counts what it takes at least. A parser that drops a member, takes the first of two equal
names, or takes a number for a text leaves a difference: a dropped member has at least three bytes
that are no quotes, and a number has no quotes. So if both counts are those of the text, everything
in it was read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from datazone_dagster.frame.text_bytes import Bytes, bytes_of, offsets_of

_QUOTES = _BRACKETS = 2
_SHORT_ESCAPES = "\b\t\n\f\r"
_LONG_ESCAPE = len("\\u0000") - 1


def count_of(found: Bytes, character: str) -> int:
    """Return how many of these bytes are that ASCII character."""
    return int(np.count_nonzero(found == ord(character)))


def _escapes_in(found: Bytes) -> int:
    """Return the bytes that JSON adds to these, those before quotes included."""
    controls = found[found < ord(" ")]
    short = sum(count_of(controls, character) for character in _SHORT_ESCAPES)
    others = _LONG_ESCAPE * (len(controls) - short)
    return count_of(found, '"') + count_of(found, "\\") + short + others


def booleans(texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return JSON texts as booleans, and booleans as they are; None if a text is another value."""
    if kinds.is_boolean(texts.type):
        return texts
    are_true = pc.equal(texts, "true")
    are_either = pc.or_(are_true, pc.equal(texts, "false"))
    return are_true if pc.all(are_either, min_count=0).as_py() else None


@dataclass(slots=True)
class Account:
    """Bytes and quotes of the JSON of objects, counted from the values that were read.

    Values whose declared type is no text, list or object are JSON themselves.

    Args:
        has_escapes: Whether the JSON has a backslash.

    Attributes:
        bytes: Bytes without spaces.
        quotes: How many of them are quotes.
        has_empty: Whether an object inside of another one has no member. It may have been another
            kind of value.
    """

    has_escapes: bool
    bytes: int = 0
    quotes: int = 0
    has_empty: bool = False

    def add_objects(
        self, present: int, members: Mapping[str, pa.DataType], values: Sequence[pa.Array]
    ) -> None:
        """Count objects.

        Args:
            present: Number of objects.
            members: Declared type of each member.
            values: Values of each member, null where an object does not have it.
        """
        not_empty = self._add_members(present, members, values)
        self.bytes += _BRACKETS * present - not_empty

    def _add_members(
        self, present: int, members: Mapping[str, pa.DataType], values: Sequence[pa.Array]
    ) -> int:
        """Count members, each with a comma; return the number of objects that have one."""
        counts = [len(one) - int(one.null_count) for one in values]
        for (name, kind), one, count in zip(members.items(), values, counts, strict=True):
            label = json.dumps(name, ensure_ascii=False).encode()
            self.bytes += count * (len(label) + len(":,"))
            self.quotes += count * label.count(b'"')
            self._add(kind, one, count)
        return _not_empty(present, counts, values)

    def _add(self, kind: pa.DataType, values: pa.Array, present: int) -> None:
        if kinds.is_struct(kind):
            members = {field.name: field.type for field in kind}
            not_empty = self._add_members(present, members, values.flatten())
            self.bytes += _BRACKETS * present - not_empty
            self.has_empty |= not_empty < present
        elif kinds.is_list(kind):
            self._add(kind.value_type, *self._add_brackets(values, present, values.values))
        elif kinds.is_map(kind):
            names, count = self._add_brackets(values, present, values.keys)
            self._add(kind.key_type, names, count)
            self.bytes += count * len(":")
            first = int(offsets_of(values)[0])
            found = values.items.slice(first, len(names))
            self._add(kind.item_type, found, len(found) - int(found.null_count))
        else:
            found = bytes_of(values)
            self.bytes += len(found)
            self.quotes += count_of(found, '"')
            if kinds.is_string(kind):
                self.bytes += _QUOTES * present + (_escapes_in(found) if self.has_escapes else 0)
                self.quotes += _QUOTES * present

    def _add_brackets(
        self, values: pa.Array, present: int, elements: pa.Array
    ) -> tuple[pa.Array, int]:
        """Count brackets and commas; return the elements in use, and how many are not null."""
        offsets = offsets_of(values)
        used = elements.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
        self.bytes += _BRACKETS * present + len(used) - int(np.count_nonzero(np.diff(offsets)))
        return used, len(used) - int(used.null_count)


def _not_empty(present: int, counts: Sequence[int], members: Sequence[pa.Array]) -> int:
    """Return the number of objects that have a member."""
    if len(members) == 1 or present in counts:
        return max(counts)
    some = np.zeros((len(members[0]) + 7) // 8 if members else 0, np.uint8)
    for one in members:
        some |= _valid_bits(one)
    return int(np.unpackbits(some).sum())


def _valid_bits(values: pa.Array) -> npt.NDArray[np.uint8]:
    """Return a bit per value that is not null, and zeros after the last one."""
    bitmap = values.buffers()[0]
    if bitmap is None or values.offset:
        return np.packbits(values.is_valid().to_numpy(zero_copy_only=False), bitorder="little")
    bits = np.frombuffer(bitmap, np.uint8)[: (len(values) + 7) // 8]
    if len(values) % 8 == 0:
        return bits
    return np.append(bits[:-1], bits[-1] & ((1 << len(values) % 8) - 1)).astype(np.uint8)
