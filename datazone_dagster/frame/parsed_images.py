"""Images parsed in one pass, if all that is in them is expected.

DuckDB is the fastest parser, but drops what its schema does not name. So what it read is compared
with the bytes and quotes of the images. Where these do not agree, Arrow's reader parses them: it
refuses any other field, type or repeated name by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.types as kinds

from datazone_dagster.frame.json_bytes import Account, booleans, count_of
from datazone_dagster.frame.paths import Shape, type_of
from datazone_dagster.frame.query_session import Coming, Session
from datazone_dagster.frame.syntax import text_literal
from datazone_dagster.frame.text_bytes import Bytes, bytes_of, offsets_of

Layout = Mapping[str, Mapping[str, pa.DataType]]
"""Attributes of an image, each with its descriptors and the Arrow types of their values."""

Parsed = dict[tuple[str, str], pa.ChunkedArray]
"""Values by attribute and descriptor, null where the image has none.

Inside of lists and maps, BOOL and NULL may be JSON, also that of other values: see `booleans`.
"""

_READER_BLOCK_BYTES = 2 << 20
"""The reader is slower by a third with blocks of less, and with far more than fits the cache."""

JSON_TEXT = pa.large_string()
"""Type of a value that is kept as its JSON, without spaces. Only DuckDB reads it."""

WORTH_A_QUERY = 1 << 20
"""Bytes of images from which on a query takes less time than the reader."""

_IMAGES = "_dz_images"
_EMPTY = b"{}"
_JSON_NULL = r"[:\[,]\s*null"
_NULL = re.compile(b"null")


def parse_accounted(session: Session, images: pa.ChunkedArray, layout: Layout) -> Parsed | None:
    """Parse the images of some changes, if all their bytes are accounted for.

    Args:
        session: Session whose database parses them.
        images: DynamoDB JSON of an item per row; null for no image.
        layout: Everything that the images may contain.

    Returns:
        None if an image contains something else, has spaces or unusual escapes, or is not DynamoDB
        JSON. Inside of lists and maps, a typed value of which no part was read may have been
        anything: its conversion refuses it.
    """
    members = {name: pa.struct(list(descriptors.items())) for name, descriptors in layout.items()}
    shape = _shape(pa.struct(list(members.items())))
    if shape is None:
        return None
    texts = images.cast(pa.string())
    if not pc.all(pc.starts_with(texts, "{"), min_count=0).as_py():
        return None
    sql = f"SELECT unnest(from_json(image, {text_literal(json.dumps(shape))})) FROM {_IMAGES}"  # noqa: S608  # quoted
    rows = pa.table({"image": texts})
    try:
        coming = Coming(rows.schema, rows.to_batches(), lambda _: True)
        items = session.table_over(sql, _IMAGES, coming)
    except duckdb.Error:
        return None  # the reader knows what is wrong
    if not _are_all_of(texts, members, items):
        return None
    return _by_descriptor(layout, items.columns)


def parse_strictly(images: pa.ChunkedArray, layout: Layout) -> Parsed | None:
    """Parse the images of some changes as `parse_accounted` does, spaces and escapes included."""
    if any(_has_map(kind) for descriptors in layout.values() for kind in descriptors.values()):
        return None
    rows = _read(images.cast(pa.string()), layout)
    if rows is None or len(rows) != len(images):
        return None
    return _by_descriptor(layout, rows.columns)


def _has_map(kind: pa.DataType) -> bool:
    """Return whether a value may have names that the type does not have: the reader needs all."""
    if kinds.is_struct(kind):
        return any(_has_map(field.type) for field in kind)
    if kinds.is_list(kind):
        return _has_map(kind.value_type)
    return bool(kinds.is_map(kind)) or kind == JSON_TEXT


def _by_descriptor(layout: Layout, columns: Iterable[pa.ChunkedArray]) -> Parsed | None:
    parsed: Parsed = {}
    for column, (name, descriptors) in zip(columns, layout.items(), strict=True):
        values = [pc.struct_field(column, [at]) for at in range(len(descriptors))]
        if not have_one_each(column, values):
            return None
        for (descriptor, kind), found in zip(descriptors.items(), values, strict=True):
            read = booleans(found) if kinds.is_boolean(kind) else found
            if read is None or (kind == JSON_TEXT and not _are_containers(descriptor, read)):
                return None
            parsed[name, descriptor] = read
    return parsed


def _are_containers(descriptor: str, texts: pa.ChunkedArray) -> bool:
    opening = "{" if descriptor == "M" else "["
    return bool(pc.all(pc.starts_with(texts, opening), min_count=0).as_py())


def _shape(kind: pa.DataType) -> Shape | None:
    """Return the shape of a type for DuckDB; None if DuckDB can't tell its names apart."""
    if kinds.is_boolean(kind) or kind == JSON_TEXT:
        return "JSON"  # BOOLEAN would take texts and numbers
    if kinds.is_list(kind):
        element = _shape(kind.value_type)
        return None if element is None else [element]
    if kinds.is_map(kind):
        value = _shape(kind.item_type)
        return None if value is None else f"MAP(VARCHAR, {type_of(value)})"
    if not kinds.is_struct(kind):
        return "VARCHAR"
    shapes: dict[str, Shape] = {}
    for field in kind:
        shape = _shape(field.type)
        if shape is None:
            return None
        shapes[field.name] = shape
    return None if len({name.casefold() for name in shapes}) < len(shapes) else shapes


def _are_all_of(
    texts: pa.ChunkedArray, members: Mapping[str, pa.DataType], items: pa.Table
) -> bool:
    """Return whether these items are all that is in the texts."""
    read = [bytes_of(chunk) for chunk in texts.chunks]
    account = Account(has_escapes=any(count_of(one, "\\") for one in read))
    first = 0
    for batch in items.to_batches():
        those = texts.slice(first, len(batch))
        account.add_objects(len(those) - those.null_count, members, batch.columns)
        first += len(batch)
    return (
        first == len(texts)
        and account.bytes == sum(map(len, read))
        and account.quotes == sum(count_of(one, '"') for one in read)
        and not (account.has_empty and any(map(_has_odd_map, read)))
    )


def _has_odd_map(texts: Bytes) -> bool:
    """Return whether the value of a map is not an object: DuckDB reads an empty one."""
    found = texts.tobytes()
    return found.count(b'"M":') != found.count(b'"M":{')


def _read(images: pa.ChunkedArray, layout: Layout) -> pa.Table | None:
    fields = [pa.field(name, pa.struct(list(of_name.items()))) for name, of_name in layout.items()]
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
        if _have_nulls(block, texts):
            return None
        tables.append(rows)
    return pa.concat_tables(tables)


def _have_nulls(block: pa.StringArray, texts: pa.Buffer) -> bool:
    """Return whether a member or an element is null: the reader takes it for absent."""
    has_word = _NULL.search(texts) is not None
    return has_word and bool(pc.any(pc.match_substring_regex(block, _JSON_NULL)).as_py())


def _blocks(images: pa.ChunkedArray) -> Iterator[pa.StringArray]:
    """Yield the images in arrays of about `_READER_BLOCK_BYTES`."""
    pending: list[pa.StringArray] = []
    pending_bytes = 0
    for chunk in images.chunks:
        if pending and pending_bytes + chunk.nbytes > _READER_BLOCK_BYTES:
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


def have_one_each(
    values: pa.Array | pa.ChunkedArray, parts: Sequence[pa.Array | pa.ChunkedArray]
) -> bool:
    """Return whether each struct that is present has exactly one of its parts."""
    some = [part for part in parts if part.null_count < len(part)]
    if len(some) < 2:
        absent = some[0].null_count if some else len(values)
        return bool(absent == values.null_count)
    counts = pa.repeat(pa.scalar(0, pa.int8()), len(values))
    for part in some:
        counts = pc.add(counts, pc.is_valid(part).cast(pa.int8()))
    equal = pc.equal(counts, pc.is_valid(values).cast(pa.int8()))
    return bool(pc.all(equal, min_count=0).as_py())
