"""Images parsed in one pass by Arrow's JSON reader, if all that is in them is expected.

The reader takes a schema and refuses any other field, type or repeated name, so what it accepts was
read completely. What it would take for absent although it is malformed (a null, a value without or
with two descriptors) is looked for here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from datazone_dagster.frame.json_bytes import bytes_of_objects
from datazone_dagster.frame.text_bytes import offsets_of

Layout = Mapping[str, Mapping[str, pa.DataType]]
"""Attributes of an image, each with its descriptors and the Arrow types of their values."""

Parsed = dict[tuple[str, str], pa.ChunkedArray]
"""Values by attribute and descriptor, null where the image has none."""

_BLOCK_BYTES = 2 << 20
"""The reader is slower by a third with blocks of less, and with far more than fits the cache."""

_EMPTY = b"{}"
_JSON_NULL = r"[:\[,]\s*null"
_NULL = re.compile(b"null")


def parse_images(images: pa.ChunkedArray, layout: Layout) -> Parsed | None:
    """Parse the images of some changes.

    Args:
        images: DynamoDB JSON of an item per row; null for no image.
        layout: Everything that the images may contain.

    Returns:
        None if an image contains something else, or is not DynamoDB JSON.
    """
    rows = _read(images.cast(pa.string()), layout)
    if rows is None or len(rows) != len(images):
        return None
    parsed: Parsed = {}
    for column, (name, kinds) in zip(rows.columns, layout.items(), strict=True):
        values = [pc.struct_field(column, [at]) for at in range(len(kinds))]
        if not _have_one_each(column, values):
            return None
        parsed |= {(name, kind): one for kind, one in zip(kinds, values, strict=True)}
    return parsed


def _read(images: pa.ChunkedArray, layout: Layout) -> pa.Table | None:
    fields = [pa.field(name, pa.struct(list(kinds.items()))) for name, kinds in layout.items()]
    schema = pa.schema(fields)
    tables = [schema.empty_table()]
    for block in _blocks(images):
        if not pc.all(pc.starts_with(block, "{"), min_count=0).as_py():
            return None  # each text then is one object or more
        texts = _contiguous(block)
        # One block: the reader looks for line ends only between blocks.
        options = pj.ReadOptions(use_threads=False, block_size=texts.size + 1)
        strict = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
        try:
            rows = pj.read_json(pa.BufferReader(texts), options, strict)
        except pa.ArrowInvalid:
            return None
        if not _is_all_of(rows, texts) and _have_nulls(block, texts):
            return None
        tables.append(rows)
    return pa.concat_tables(tables)


def _is_all_of(rows: pa.Table, texts: pa.Buffer) -> bool:
    return bool(sum(map(bytes_of_objects, rows.to_batches())) == texts.size)


def _have_nulls(block: pa.StringArray, texts: pa.Buffer) -> bool:
    """Return whether a member or an element is null: the reader takes it for absent."""
    has_word = _NULL.search(texts) is not None
    return has_word and bool(pc.any(pc.match_substring_regex(block, _JSON_NULL)).as_py())


def _blocks(images: pa.ChunkedArray) -> Iterator[pa.StringArray]:
    """Yield the images in arrays of about `_BLOCK_BYTES`."""
    pending: list[pa.StringArray] = []
    pending_bytes = 0
    for chunk in images.chunks:
        if pending and pending_bytes + chunk.nbytes > _BLOCK_BYTES:
            yield pa.concat_arrays(pending)
            pending, pending_bytes = [], 0
        if len(chunk):
            pending.append(chunk)
            pending_bytes += chunk.nbytes
    if pending:
        yield pending[0] if len(pending) == 1 else pa.concat_arrays(pending)


def _contiguous(texts: pa.StringArray) -> pa.Buffer:
    """Return the bytes of texts, one after the other: an empty object for a null.

    They are copied only if there are nulls.
    """
    data, offsets = texts.buffers()[2], offsets_of(texts)
    if data is None:
        return pa.py_buffer(_EMPTY * texts.null_count)
    start, last = int(offsets[0]), int(offsets[-1])
    if not texts.null_count:
        return data.slice(start, last - start)
    nulls = np.flatnonzero(texts.is_null().to_numpy(zero_copy_only=False))
    skipped = int((offsets[nulls + 1] - offsets[nulls]).sum())
    joined = pa.allocate_buffer(last - start - skipped + len(_EMPTY) * len(nulls))
    view, into, at = memoryview(data).cast("B"), memoryview(joined).cast("B"), 0
    for end, after in zip(offsets[nulls].tolist(), offsets[nulls + 1].tolist(), strict=True):
        into[at : at + end - start] = view[start:end]
        at += end - start + len(_EMPTY)
        into[at - len(_EMPTY) : at] = _EMPTY
        start = after
    into[at:] = view[start:last]
    return joined


def _have_one_each(attribute: pa.ChunkedArray, values: list[pa.ChunkedArray]) -> bool:
    """Return whether each attribute that is present has exactly one value."""
    if len(values) == 1:
        return bool(values[0].null_count == attribute.null_count)
    counts = pa.repeat(pa.scalar(0, pa.int8()), len(attribute))
    for one in values:
        counts = pc.add(counts, pc.is_valid(one).cast(pa.int8()))
    equal = pc.equal(counts, pc.is_valid(attribute).cast(pa.int8()))
    return bool(pc.all(equal, min_count=0).as_py())
