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

Layout = Mapping[str, Mapping[str, pa.DataType]]
"""Attributes of an image, each with its descriptors and the Arrow types of their values."""

Parsed = dict[tuple[str, str], pa.ChunkedArray]
"""Values by attribute and descriptor, null where the image has none."""

_BLOCK_BYTES = 2 << 20
"""The reader is slower by a third with blocks of less, and with far more than fits the cache."""

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
        if _NULL.search(texts) and pc.any(pc.match_substring_regex(block, _JSON_NULL)).as_py():
            return None
        # One block: the reader looks for line ends only between blocks.
        options = pj.ReadOptions(use_threads=False, block_size=texts.size + 1)
        strict = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
        try:
            tables.append(pj.read_json(pa.BufferReader(texts), options, strict))
        except pa.ArrowInvalid:
            return None
    return pa.concat_tables(tables)


def _blocks(images: pa.ChunkedArray) -> Iterator[pa.StringArray]:
    """Yield the images in arrays of about `_BLOCK_BYTES`, an empty object in place of a null."""
    pending: list[pa.StringArray] = []
    for chunk in images.chunks:
        if pending and sum(one.nbytes for one in pending) + chunk.nbytes > _BLOCK_BYTES:
            yield _joined(pending)
            pending = []
        if len(chunk):
            pending.append(chunk)
    if pending:
        yield _joined(pending)


def _joined(chunks: list[pa.StringArray]) -> pa.StringArray:
    joined = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
    return pc.fill_null(joined, "{}") if joined.null_count else joined  # it copies in any case


def _contiguous(texts: pa.StringArray) -> pa.Buffer:
    """Return the bytes of texts, none of them null, one after the other, without a copy."""
    _, offsets, data = texts.buffers()
    first, last = np.frombuffer(offsets, np.int32)[[texts.offset, texts.offset + len(texts)]]
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
