"""Items whose attributes are all known, read in one pass instead of one for each question.

A run that has read items knows what the next ones look like: the attributes, and what is inside of
lists and maps. So Arrow parses the images by a fixed schema, and DuckDB converts the scalars.
Anything that is not as before is left to `items`, which finds out and handles it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from datazone_dagster.frame.discovery import KnownItems, Seen
from datazone_dagster.frame.item_columns import ItemColumns
from datazone_dagster.frame.item_queries import COLUMNS_AT_ONCE, scalar_reading, usual_scalar
from datazone_dagster.frame.item_types import parse_type
from datazone_dagster.frame.item_values import ItemValue
from datazone_dagster.frame.parsed_content import (
    Content,
    UnfitContentError,
    content_of,
    plain_content_of,
)
from datazone_dagster.frame.parsed_images import Layout, Parsed, parse_images
from datazone_dagster.frame.query_session import Session
from datazone_dagster.frame.records import Records

_PARSED = "_dz_parsed"


@dataclass(frozen=True, slots=True)
class _Source:
    """A value to read, and the conversion of its content if it is a set, list or map."""

    value: ItemValue
    content: Content | None


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
    sources = _sources(values, known, nulls=known.has_nulls)
    if sources is None:
        return None
    parsed = _parsed(texts, seen, sources, nulls=known.has_nulls)
    if parsed is None and not known.has_nulls:
        sources = _sources(values, known, nulls=True)
        assert sources is not None, "the same values have a conversion"
        parsed = _parsed(texts, seen, sources, nulls=True)
        known.has_nulls = parsed is not None
    read = None if parsed is None else _converted(session, sources, parsed)
    if read is None:
        known.failures += 1
        return None
    known.failures = 0
    carried = dict(zip(records.carried.column_names, records.carried.columns, strict=True))
    return pa.table({**carried, **read})


def _sources(
    values: Sequence[ItemValue], known: KnownItems, *, nulls: bool
) -> list[_Source] | None:
    sources = []
    for value in values:
        content = None
        if value.is_container:
            content = _content(value, known, nulls=nulls)
            if content is None:
                return None
        sources.append(_Source(value, content))
    return sources


def _content(value: ItemValue, known: KnownItems, *, nulls: bool) -> Content | None:
    if value.is_empty_list:
        return None
    if not value.is_json:
        return content_of(parse_type(value.column.type), value.descriptor)
    structure = known.structures.get((value.column.attribute, value.descriptor))
    if structure is None:
        return None
    return plain_content_of(structure, value.descriptor, nulls=nulls)


def _parsed(
    texts: Mapping[str, pa.ChunkedArray],
    seen: Mapping[str, Seen],
    sources: Sequence[_Source],
    *,
    nulls: bool,
) -> dict[str, Parsed] | None:
    """Parse each image; `nulls` allows NULL in every place, and not only where one was seen.

    The reader takes a fifth longer with a field for it in each value.
    """
    parsed = {}
    for name, column in texts.items():
        found = parse_images(column, _layout(name, seen[name], sources, nulls=nulls))
        if found is None:
            return None
        parsed[name] = found
    return parsed


def _layout(
    image: str, seen: Iterable[tuple[str, str]], sources: Sequence[_Source], *, nulls: bool
) -> Layout:
    kinds = {
        (source.value.path.steps[0], source.value.descriptor): source.content.kind
        for source in sources
        if source.content is not None and source.value.path.image == image
    }
    layout: dict[str, dict[str, pa.DataType]] = {}
    for name, descriptor in seen:
        scalar = pa.bool_() if descriptor in {"BOOL", "NULL"} else pa.string()
        found = layout.setdefault(name, {"NULL": pa.bool_()} if nulls else {})
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
    for start in range(0, len(sources), COLUMNS_AT_ONCE):
        given: dict[str, pa.ChunkedArray] = {}
        listed: list[str] = []
        for at, source in enumerate(sources[start : start + COLUMNS_AT_ONCE], start):
            values, text = column(source), f"t{at}"
            usual = None if source.content else usual_scalar(source.value, values)
            sql = None if source.content else scalar_reading(source.value, text)
            if source.content is not None:
                try:
                    found = source.content.read(values.combine_chunks(), query)
                except UnfitContentError:
                    return None
                read[f"v{at}"] = pa.chunked_array([found])
            elif sql is None or usual is not None:
                read[f"v{at}"] = values if usual is None else usual
            else:
                given[text] = values
                listed += [f"{sql} AS v{at}", f"CASE WHEN v{at} IS NULL THEN {text} END AS x{at}"]
        if listed:
            rows = session.table_of(
                f"SELECT {', '.join(listed)} FROM {_PARSED}",  # noqa: S608  # our names
                _PARSED,
                pa.table(given),
            )
            read |= dict(zip(rows.column_names, rows.columns, strict=True))
    return read
