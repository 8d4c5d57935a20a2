"""Items whose attributes are all known, read in one pass instead of one for each question.

A run that has read items knows what the next ones look like: the attributes, and what is inside of
lists and maps. So the images are parsed by a fixed schema, and whole columns are converted.
Anything that is not as before is left to `items`, which finds out and handles it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from datazone_dagster.frame.containers import typed_content
from datazone_dagster.frame.discovery import KnownItems, Seen
from datazone_dagster.frame.item_columns import ItemColumns
from datazone_dagster.frame.item_queries import COLUMNS_AT_ONCE, read_query, usual_scalar
from datazone_dagster.frame.item_types import parse_type
from datazone_dagster.frame.item_values import ItemValue
from datazone_dagster.frame.parsed_content import (
    Content,
    UnfitContentError,
    content_of,
    plain_content_of,
)
from datazone_dagster.frame.parsed_images import (
    JSON_TEXT,
    WORTH_A_QUERY,
    Layout,
    Parsed,
    parse_accounted,
    parse_strictly,
)
from datazone_dagster.frame.query_session import Session
from datazone_dagster.frame.records import Records

_PARSED = "_dz_parsed"


@dataclass(frozen=True, slots=True)
class _Source:
    """A value to read, and the conversion of its content; None: SQL or Arrow reads its text."""

    value: ItemValue
    content: Content | None = None


def read_known(
    session: Session,
    records: Records,
    values: Sequence[ItemValue],
    known: KnownItems,
    columns: ItemColumns,
) -> pa.Table | None:
    """Read the values of records as `items` does.

    Args:
        session: Session that converts the values.
        records: The records.
        values: Values to read.
        known: Attributes of the items so far.
        columns: Columns of the items.

    Returns:
        Column `v<i>` of each value, and `x<i>`, the texts of scalars that SQL could not read, with
        the carried columns of the records. None if the images are not as before, or a value does
        not fit its type.
    """
    texts = records.images
    seen = {name: known.keys if name == "Keys" else known.images for name in texts}
    if any(
        kind != "NULL" and not columns.has_column(name, kind)
        for every in seen.values()
        for name, kind in every
    ):
        return None
    sources = [_source(value, known) for value in values]
    parsed = _parsed(session, texts, seen, sources, known)
    read = None if parsed is None else _converted(session, sources, parsed)
    if read is None:
        known.failures += 1
        return None
    known.failures = 0
    carried = dict(zip(records.carried.column_names, records.carried.columns, strict=True))
    return pa.table({**carried, **read})


def _source(value: ItemValue, known: KnownItems) -> _Source:
    if not value.is_container or value.is_empty_list:
        return _Source(value)
    if value.is_json:
        structure = known.structures.get((value.column.attribute, value.descriptor))
        content = plain_content_of(structure, value.descriptor) if structure else None
        return _Source(value, content)
    kind = parse_type(value.column.type)
    content = content_of(kind, value.descriptor)
    if content is None:
        return _Source(replace(value, content=typed_content(kind, value.descriptor)))
    return _Source(value, content)


def _parsed(
    session: Session,
    texts: Mapping[str, pa.ChunkedArray],
    seen: Mapping[str, Seen],
    sources: Sequence[_Source],
    known: KnownItems,
) -> dict[str, Parsed] | None:
    parsed = {}
    for name, column in texts.items():
        found = _parsed_column(session, column, _layout(name, seen[name], sources), known)
        if found is None:
            return None
        parsed[name] = found
    return parsed


def _parsed_column(
    session: Session, texts: pa.ChunkedArray, layout: Layout, known: KnownItems
) -> Parsed | None:
    if known.are_accounted and texts.nbytes >= WORTH_A_QUERY:
        found = parse_accounted(session, texts, layout)
        if found is not None:
            return found
        found = parse_strictly(texts, layout)
        known.are_accounted = found is None
        return found
    found = parse_strictly(texts, layout)
    return parse_accounted(session, texts, layout) if found is None else found


def _layout(image: str, seen: Iterable[tuple[str, str]], sources: Sequence[_Source]) -> Layout:
    """Return all that an image may have: NULL in every place, and not only where one was seen."""
    kinds = {
        (source.value.path.steps[0], source.value.descriptor): (
            source.content.kind if source.content is not None else JSON_TEXT
        )
        for source in sources
        if source.value.is_container and source.value.path.image == image
    }
    layout: dict[str, dict[str, pa.DataType]] = {}
    for name, descriptor in seen:
        scalar = pa.bool_() if descriptor in {"BOOL", "NULL"} else pa.string()
        found = layout.setdefault(name, {"NULL": pa.bool_()})
        found[descriptor] = kinds.get((name, descriptor), scalar)
    return layout


def _converted(
    session: Session,
    sources: Sequence[_Source],
    parsed: Mapping[str, Parsed],
) -> dict[str, pa.ChunkedArray] | None:
    def column(source: _Source) -> pa.ChunkedArray:
        value = source.value
        return parsed[value.path.image][str(value.path.steps[0]), value.descriptor]

    def query(sql: str, values: pa.Array) -> pa.Array:
        text = f"SELECT {sql} AS v FROM {_PARSED}"  # noqa: S608  # our names
        found = session.table_of(text, _PARSED, pa.table({"t": values}))
        return found.column("v").combine_chunks()

    read: dict[str, pa.ChunkedArray] = {}
    by_sql: list[tuple[int, ItemValue, pa.ChunkedArray]] = []
    for at, source in enumerate(sources):
        values = column(source)
        if source.content is not None:
            try:
                found = source.content.read(values.combine_chunks(), query)
            except UnfitContentError:
                return None
            read[f"v{at}"] = pa.chunked_array([found])
        elif (usual := usual_scalar(source.value, values)) is not None:
            read[f"v{at}"] = usual
        else:
            by_sql.append((at, source.value, values))
    for start in range(0, len(by_sql), COLUMNS_AT_ONCE):
        some = by_sql[start : start + COLUMNS_AT_ONCE]
        sql = read_query(f"SELECT * FROM {_PARSED}", [value for _, value, _ in some], (), 0)  # noqa: S608  # our name
        given = {f"t{position}": texts for position, (_, _, texts) in enumerate(some)}
        rows = session.table_of(sql, _PARSED, pa.table(given))
        for position, (at, _, _) in enumerate(some):
            for kind in "vx":
                if f"{kind}{position}" in rows.column_names:
                    read[f"{kind}{at}"] = rows.column(f"{kind}{position}")
    return read
