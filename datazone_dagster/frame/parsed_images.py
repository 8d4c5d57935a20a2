"""Images parsed in one pass by Arrow's JSON reader, if all that is in them is expected.

The reader takes a schema and refuses any other field, type or repeated name, so what it accepts was
read completely. What it would take for absent although it is malformed (a null, a value without or
with two descriptors) is looked for here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

Layout = Mapping[str, Mapping[str, pa.DataType]]
"""Attributes of an image, each with its descriptors and the Arrow types of their values."""

Parsed = dict[tuple[str, str], pa.ChunkedArray]
"""Values by attribute and descriptor, null where the image has none."""

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
    parsed = _parsed(images.cast(pa.string()), layout)
    if parsed is None or not images.null_count:
        return parsed
    rows_of = _row_numbers(images)
    return {key: values.take(rows_of) for key, values in parsed.items()}


def _parsed(images: pa.ChunkedArray, layout: Layout) -> Parsed | None:
    rows = _read(images, layout)
    if rows is None or len(rows) != len(images) - images.null_count:
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
    if not pc.all(pc.starts_with(images, "{"), min_count=0).as_py():
        return None  # each text then is one object or more
    tables = [schema.empty_table()]
    for chunk in images.chunks:
        texts = _contiguous(chunk)
        if _NULL.search(texts) and pc.any(pc.match_substring_regex(chunk, _JSON_NULL)).as_py():
            return None
        if not texts.size:
            continue
        # One block: the reader looks for line ends only between blocks.
        options = pj.ReadOptions(use_threads=False, block_size=texts.size + 1)
        strict = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
        try:
            tables.append(pj.read_json(pa.BufferReader(texts), options, strict))
        except pa.ArrowInvalid:
            return None
    return pa.concat_tables(tables)


def _contiguous(texts: pa.StringArray) -> pa.Buffer:
    """Return the bytes of texts that are not null, one after the other, without a copy if possible.

    A null may have bytes in Arrow's buffer, but rarely has.
    """
    _, offsets, data = texts.buffers()
    first, last = np.frombuffer(offsets, np.int32)[[texts.offset, texts.offset + len(texts)]]
    if last - first != (pc.sum(pc.binary_length(texts)).as_py() or 0):
        return _contiguous(texts.drop_null())
    return pa.py_buffer(b"") if data is None else data.slice(int(first), int(last - first))


def _have_one_each(attribute: pa.ChunkedArray, values: list[pa.ChunkedArray]) -> bool:
    """Return whether each attribute that is present has exactly one value."""
    if len(values) == 1:
        return bool(values[0].null_count == attribute.null_count)
    counts = pa.repeat(pa.scalar(0, pa.int8()), len(attribute))
    for one in values:
        counts = pc.add(counts, pc.is_valid(one).cast(pa.int8()))
    equal = pc.equal(counts, pc.is_valid(attribute).cast(pa.int8()))
    return bool(pc.all(equal, min_count=0).as_py())


def _row_numbers(images: pa.ChunkedArray) -> pa.Array:
    """Return where the image of each row is among those that are present."""
    valid = images.is_valid().to_numpy()
    return pa.array(np.cumsum(valid) - 1, pa.int64(), mask=~valid)
