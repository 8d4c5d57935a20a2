"""Typed view of items: attributes as columns, exact values, no Python object per value.

DuckDB finds the attributes of a chunk, parses each image once, and converts the usual notations.
Python converts only the values that SQL could not read to the last byte, once per distinct text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import pyarrow as pa

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.containers import Reading, plain_content, typed_content
from datazone_dagster.frame.discovery import KnownItems, Seen, discovered, seen_in
from datazone_dagster.frame.exact import read_distinct
from datazone_dagster.frame.item_columns import ItemColumns
from datazone_dagster.frame.item_queries import (
    field_of,
    raw_values,
    subsets,
    texts_query,
)
from datazone_dagster.frame.item_rest import empty_members, joined, members_without_column
from datazone_dagster.frame.item_types import arrow_type, parse_type
from datazone_dagster.frame.item_values import ItemValue, converted
from datazone_dagster.frame.known_items import read_known
from datazone_dagster.frame.look_ahead import FIRST_ROWS, FirstImages, UnusualItemError
from datazone_dagster.frame.paths import SCALARS, ImagePath
from datazone_dagster.frame.plain import NotDynamoDBJsonError, decoded
from datazone_dagster.frame.query_session import MalformedImageError, Session
from datazone_dagster.frame.records import records_of
from datazone_dagster.frame.structure import learnt
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.model.column_names import ATTRIBUTE, KEY_NUMBER, REST, SIBLING_OF
from datazone_dagster.text import shown

ImageChoice = Literal["new", "old", "both"]

_IMAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "new": (("NewImage", ""),),
    "old": (("OldImage", ""),),
    "both": (("OldImage", "before_"), ("NewImage", "after_")),
}
_SAMPLE_ROWS = 200


@dataclass(frozen=True, slots=True)
class Items:
    """Items of a chunk: rows, the mapping with their columns, and the metadata of columns.

    `sibling_values` counts the values per sibling column: those that did not fit their own column.
    """

    rows: pa.Table
    mapping: AttributeMapping
    metadata: Mapping[str, Mapping[str, str]]
    sibling_values: Mapping[str, int]


def needs_of(image: ImageChoice) -> frozenset[str]:
    """Return the record fields that the view reads.

    Raises:
        ExpressionError: The choice of image is unknown.
    """
    if image not in _IMAGES:
        raise ExpressionError(
            f"items(image={image!r}): there is no such image.", hint="Choose new, old or both."
        )
    return frozenset({"Keys", *(name for name, _ in _IMAGES[image])})


def read_items(
    session: Session,
    query: str,
    *,
    image: ImageChoice,
    mapping: AttributeMapping,
    types: Mapping[str, str],
    added: Sequence[str],
    hidden: Sequence[str],
    may_grow: Callable[[str], bool],
    known: KnownItems,
    chunk: pa.Table | None = None,
) -> Items:
    """Read the rows of a query, which runs once, as typed items.

    Args:
        session: Session that the query runs in.
        query: SQL with a column `dynamodb` that has the fields of `needs_of(image)`.
        image: Image whose attributes become columns.
        mapping: Columns of the table; the result has all of them, in their order.
        types: Declared types by attribute; they apply to attributes without a column.
        added: Columns of the query that the function has added; they come along.
        hidden: Hidden columns of the query.
        may_grow: Whether the structs of a column may get further fields.
        known: Attributes of the run's items so far; it learns those of these.
        chunk: Rows of the change log, if they are the query's rows.

    Raises:
        ExpressionError: A declared type is unknown, or differs from the table's.
        MalformedImageError: An image is not an item in DynamoDB JSON.
        duckdb.Error: The query fails, or an image is not JSON.
    """
    images = _IMAGES[image]
    carried = [*added, *hidden]

    def columns_of(keys: Seen) -> ItemColumns:
        key_names = frozenset(attribute for attribute, _ in keys)
        columns = ItemColumns(mapping, key_names, may_grow, taken=added)
        columns.declare(types)
        odd_key = columns.grow_keys(keys)
        if odd_key is not None:
            raise MalformedImageError(
                f"items(): a record of this chunk has a key {shown(odd_key)!r} of a different type "
                "than its column.",
                safe="Nothing was written; the change log keeps the record.",
            )
        return columns

    names = ["Keys", *(name for name, _ in images)]
    records = records_of(session, query, names, carried, chunk)
    is_first = known.is_empty
    if is_first:
        _look_ahead(records.first(FIRST_ROWS), columns_of, known)
    if known.is_worth_trying:
        columns = columns_of(known.keys)
        if is_first:
            columns.grow(known.images)
        values = _values(columns, images, known.images, known.keys)
        raw = read_known(session, records, values, known, columns)
        if raw is not None:
            return _of_values(columns, images, raw, values, [], added, hidden)
    with records.queried(session) as read:
        keys = seen_in(session, read, field_of("Keys"))
        columns = columns_of(keys)
        found = discovered(
            session, read, [field_of(name) for name, _ in images], columns.has_column
        )
        columns.grow(found.seen)
        seen = {**found.seen, **{(name, kind): None for _, name, kind in found.empty}}
        has_rest = any(
            kind != "NULL" and not columns.has_column(name, kind) for name, kind in found.seen
        )
        values = _with_content(session, read, _values(columns, images, seen, keys), known)
        raw = raw_values(session, read, values, images if has_rest else (), carried)
    empty = [
        (images[at][1], empty_members(name, kind, values_empty))
        for (at, name, kind), values_empty in found.empty.items()
        if not has_rest and not columns.has_column(name, kind)
    ]
    if not (has_rest or found.empty):
        known.learn(keys, found.seen)
    return _of_values(columns, images, raw, values, empty, added, hidden, has_rest=has_rest)


def _look_ahead(
    first: Mapping[str, pa.ChunkedArray],
    columns_of: Callable[[Seen], ItemColumns],
    known: KnownItems,
) -> None:
    """Learn what the first items have, keys included, by the name of their image.

    If others have something else, or these items can't be read, all are read in the way that
    finds it out.
    """
    try:
        keys = FirstImages([first["Keys"]], lambda *_: True).seen
        columns = columns_of(keys)
        images = [texts for name, texts in first.items() if name != "Keys"]
        found = FirstImages(images, columns.has_column)
        columns.grow(found.seen)
        found.learn_contents(known, columns.are_json)
    except (MalformedImageError, UnusualItemError):
        return
    known.learn(keys, found.seen)


def _of_values(
    columns: ItemColumns,
    images: Sequence[tuple[str, str]],
    raw: pa.Table,
    values: Sequence[ItemValue],
    empty: Sequence[tuple[str, pa.ChunkedArray]],
    added: Sequence[str],
    hidden: Sequence[str],
    *,
    has_rest: bool = False,
) -> Items:
    """Convert the values that were read; `empty` are members of the rest, by prefix."""
    try:
        read, rests = converted(raw, values, columns)
        for position, (_, prefix) in enumerate(images if has_rest else ()):
            members = partial(members_without_column, columns.has_column)
            part, _ = read_distinct(raw.column(f"rest{position}"), members, pa.string())
            rests.setdefault(prefix, []).append(part)
    except NotDynamoDBJsonError as error:
        raise MalformedImageError(
            f"items(): a record of this chunk holds an image with {error}.",
            safe="Nothing was written; the change log keeps the record.",
        ) from error
    for prefix, empty_values in empty:
        rests.setdefault(prefix, []).append(empty_values)
    items = _items(columns, images, raw, read, rests)
    return replace(items, rows=_with_carried(items.rows, raw, added, hidden))


def _items(
    columns: ItemColumns,
    images: Sequence[tuple[str, str]],
    raw: pa.Table,
    read: Mapping[str, pa.ChunkedArray],
    rests: Mapping[str, Sequence[pa.ChunkedArray]],
) -> Items:
    """Return the columns of the mapping in their order, then the rest."""
    key_names = columns.key_names
    outputs: dict[str, pa.ChunkedArray] = {}
    metadata: dict[str, dict[str, str]] = {}
    sibling_values: dict[str, int] = {}
    first: dict[tuple[str, str], str] = {}
    for column in columns.mapping:
        for _, prefix in images if column.attribute not in key_names else (("", ""),):
            name = columns.output(prefix, column)
            nothing = pa.chunked_array([pa.nulls(len(raw), arrow_type(column.type))])
            outputs[name] = read.get(name, nothing)
            metadata[name] = {} if name == column.attribute else {ATTRIBUTE: column.attribute}
            main = first.setdefault((prefix, column.attribute), name)
            if main != name:
                metadata[name][SIBLING_OF] = main
                if outputs[name].null_count < len(raw):
                    sibling_values[name] = len(raw) - outputs[name].null_count
            if column.attribute in key_names and column.descriptor == "N" and not column.declared:
                metadata[name][KEY_NUMBER] = "true"
    for _, prefix in images:
        if prefix in rests:
            outputs[prefix + REST] = joined(rests[prefix])
    return Items(pa.table(outputs), columns.mapping, metadata, sibling_values)


def _with_carried(
    items: pa.Table, raw: pa.Table, added: Sequence[str], hidden: Sequence[str]
) -> pa.Table:
    """Return the columns of the items, then those that come along.

    Raises:
        ExpressionError: Two of them have the same name.
    """
    taken = {name.casefold() for name in items.column_names}
    both = [name for name in added if name.casefold() in taken]
    if both:
        raise ExpressionError(
            f"items(): the column {shown(both[0])!r} that the function added has the name of an "
            "attribute's column.",
            safe="Nothing was written; the change log keeps the changes.",
            hint="Give the added column another alias.",
        )
    names = [*items.column_names, *added, *hidden]
    columns = [*items.columns, *(raw.column(name) for name in (*added, *hidden))]
    return pa.Table.from_arrays(columns, names=names)


def _values(
    columns: ItemColumns,
    images: Sequence[tuple[str, str]],
    seen: Seen,
    keys: Seen,
) -> list[ItemValue]:
    """List the values to read. Key attributes come from the keys, which deleted items have too."""
    wanted = [("Keys", "", attribute, descriptor) for attribute, descriptor in keys]
    wanted += [
        (image, prefix, attribute, descriptor)
        for image, prefix in images
        for attribute, descriptor in seen
        if attribute not in columns.key_names
    ]
    values = []
    for image, prefix, attribute, descriptor in wanted:
        column = columns.column_for(attribute, descriptor)
        if column is None or descriptor == "NULL":
            continue
        path = ImagePath(image, (attribute, descriptor), SCALARS.get(descriptor, "VARCHAR"))
        output = columns.output(prefix, column)
        values.append(ItemValue(output, prefix, column, descriptor, path))
    return values


def _with_content(
    session: Session, query: str, values: Sequence[ItemValue], known: KnownItems
) -> list[ItemValue]:
    """Add the readings of containers; those of undeclared types are learnt from a sample."""
    learning = [value for value in values if value.is_container and value.is_json]
    samples: dict[tuple[str, str], list[object]] = {}
    if learning:
        sample = f"SELECT * FROM ({query}) USING SAMPLE reservoir({_SAMPLE_ROWS} ROWS)"  # noqa: S608  # the query is ours
        for subset in subsets(learning):
            found = session.table(texts_query(sample, subset, ()))
            for position, value in enumerate(subset):
                typed_attribute = (value.column.attribute, value.descriptor)
                texts = found.column(f"t{position}").drop_null().to_pylist()
                samples.setdefault(typed_attribute, []).extend(texts)
    return [
        ItemValue(
            value.output,
            value.prefix,
            value.column,
            value.descriptor,
            value.path,
            _content_reading(
                value, samples.get((value.column.attribute, value.descriptor), ()), known
            ),
        )
        if value.is_container
        else value
        for value in values
    ]


def _content_reading(
    value: ItemValue, sample: Iterable[object], known: KnownItems
) -> Reading | None:
    if value.is_empty_list:
        return None
    if not value.is_json:
        return typed_content(parse_type(value.column.type), value.descriptor)
    try:
        typed = [{value.descriptor: decoded(str(text))} for text in sample]
        known.learn_content(value.column.attribute, value.descriptor, typed)
        structure = learnt(typed)
    except NotDynamoDBJsonError:
        return None
    return None if structure is None else plain_content(structure, value.descriptor)
