"""Bytes of the JSON that parsed values were read from, if it has no spaces, escapes and nulls.

Each value counts the bytes that it takes at least. So if all of a text is accounted for, nothing
was dropped, and nothing was taken for absent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from datazone_dagster.frame.text_bytes import offsets_of

_QUOTES = _BRACKETS = 2


def bytes_of_objects(rows: pa.RecordBatch) -> int:
    """Return the bytes of objects, one per row, whose members are the columns that are not null."""
    return _objects(rows.num_rows, rows.schema.names, rows.columns)


def _objects(present: int, names: Sequence[str], members: Sequence[pa.Array]) -> int:
    counts = [len(one) - int(one.null_count) for one in members]
    labels = [len(json.dumps(name, ensure_ascii=False).encode()) + len(":") for name in names]
    found = _BRACKETS * present + sum(map(_values, members)) - _not_empty(present, counts, members)
    return found + sum(
        count * (label + len(",")) for count, label in zip(counts, labels, strict=True)
    )


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


def _values(values: pa.Array) -> int:
    """Return the bytes of values; a null has none."""
    kind, present = values.type, len(values) - int(values.null_count)
    if kinds.is_boolean(kind):
        true = int(pc.sum(values).as_py() or 0)
        return len("true") * true + len("false") * (present - true)
    if kinds.is_struct(kind):
        fields = range(kind.num_fields)
        return _objects(
            present, [kind.field(at).name for at in fields], list(map(values.field, fields))
        )
    offsets = offsets_of(values)
    if not kinds.is_list(kind):
        return _QUOTES * present + int(offsets[-1] - offsets[0])
    elements = values.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    commas = len(elements) - int(np.count_nonzero(np.diff(offsets)))
    return _BRACKETS * present + _values(elements) + commas
