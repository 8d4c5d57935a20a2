"""The typed view of items: attributes as columns, values exact, no Python object per value.

DuckDB tells which attributes a chunk has, parses each image once, and reads the usual
notations. Python sees distinct texts only: of maps and lists, and of numbers in notations
that SQL left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.paths import (
    DESCRIPTORS,
    SCALARS,
    SETS,
    ImagePath,
    extracted,
    from_json,
    grouped,
)
from datazone_dagster.frame.plain import plain_list, plain_map, plain_texts
from datazone_dagster.frame.record import RECORD_COLUMN
from datazone_dagster.frame.session import Session
from datazone_dagster.frame.syntax import text_literal
from datazone_dagster.frame.typed import (
    TYPE_OF,
    arrow_type,
    declared_type,
    descriptors_of,
    exact_value,
    reading,
)
from datazone_dagster.model.attributes import MAX_ATTRIBUTES, AttributeColumn, AttributeMapping
from datazone_dagster.model.columns import REST

ImageChoice = Literal["new", "old", "both"]

_IMAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "new": (("NewImage", ""),),
    "old": (("OldImage", ""),),
    "both": (("OldImage", "before_"), ("NewImage", "after_")),
}
Seen = dict[tuple[str, str], None]
"""Attributes and descriptors of a chunk, in the order in which they came."""


@dataclass(frozen=True, slots=True)
class Items:
    """Items of a chunk: their rows, the mapping they grew, and the attributes of odd columns."""

    rows: pa.Table
    mapping: AttributeMapping
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Value:
    """One column of the query: the values of an attribute with one descriptor in one image."""

    output: str
    column: AttributeColumn
    descriptor: str
    path: ImagePath


def needs_of(image: ImageChoice) -> frozenset[str]:
    """The record's fields that the view reads.

    Raises:
        ExpressionError: There is no such choice.
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
    hidden: Sequence[str],
) -> Items:
    """Reads the rows of a query as typed items.

    Args:
        session: Where the query runs.
        query: SQL with the column `dynamodb` that has the fields of `needs_of(image)`.
        image: Which image's attributes become columns.
        mapping: The columns that the table has. They all come out, in their order.
        types: Declared types by attribute; they hold for attributes without a column yet.
        hidden: Hidden columns of the query.

    Raises:
        ExpressionError: A declared type that is not known, or not the one of the table.
        duckdb.Error: The query fails.
    """
    images = _IMAGES[image]
    keys = _seen(session, query, ["Keys"])
    seen = _seen(session, query, [name for name, _ in images])
    key_names = dict.fromkeys(attribute for attribute, _ in keys)
    mapping = _grown(mapping, [*keys, *seen], types)
    rest = {attribute for attribute, _ in seen} - set(mapping.attributes)
    values = _values(mapping, images, seen, keys, key_names)
    raw = session.table(_query(query, values, images if rest else (), mapping, hidden))
    columns, mapping = _converted(raw, values, mapping)
    outputs: dict[str, pa.ChunkedArray] = {}
    origins: dict[str, str] = {}
    for column in mapping:
        prefixes = [""] if column.attribute in key_names else [prefix for _, prefix in images]
        for prefix in prefixes:
            name = prefix + column.column
            nothing = pa.chunked_array([pa.nulls(len(raw), arrow_type(column.type))])
            outputs[name] = columns.get(name, nothing)
            if column.column != column.attribute:
                origins[name] = column.attribute
    for position, (_, prefix) in enumerate(images if rest else ()):
        plain, refused = plain_texts(raw.column(f"rest{position}"), plain_map)
        outputs[prefix + REST] = pc.coalesce(plain, refused)
    outputs |= {name: raw.column(name) for name in hidden}
    return Items(pa.table(outputs), mapping, origins)


def _field(name: str) -> str:
    return f"struct_extract({RECORD_COLUMN}, '{name}')"


def _seen(session: Session, query: str, images: Sequence[str]) -> Seen:
    """The attributes of the images, by row, then as they stand in the item."""
    parts = ", ".join(
        f"json_keys({_field(name)}) AS names{i}, json_keys({_field(name)}, '$.*') AS kinds{i}"
        for i, name in enumerate(images)
    )
    found: list[tuple[int, int, list[str], list[list[str]]]] = []
    numbered = f"SELECT {parts}, row_number() OVER () AS row FROM ({query})"  # noqa: S608  # our names
    for i in range(len(images)):
        layouts = session.table(
            f"SELECT names{i} AS names, kinds{i} AS kinds, min(row) AS row FROM ({numbered}) "  # noqa: S608  # numbers
            f"WHERE names{i} IS NOT NULL GROUP BY 1, 2"
        )
        for layout in layouts.to_pylist():
            found.append((layout["row"], i, layout["names"], layout["kinds"]))
    seen: Seen = {}
    for _, _, names, kinds in sorted(found, key=lambda layout: layout[:2]):
        for attribute, kind in zip(names, kinds, strict=True):
            # an empty name is impossible in DynamoDB, and so is a value of two types
            if attribute and len(kind) == 1 and kind[0] in DESCRIPTORS:
                seen[attribute, kind[0]] = None
    return seen


def _grown(
    mapping: AttributeMapping, seen: Iterable[tuple[str, str]], types: Mapping[str, str]
) -> AttributeMapping:
    """The mapping with columns for what it did not know."""
    for attribute, declared in types.items():
        wanted = declared_type(attribute, declared)
        first = next((c for c in mapping if c.attribute == attribute), None)
        if first is None:
            usual = descriptors_of(wanted)[0]
            mapping = mapping.with_column(attribute, usual, wanted, declared=True)
        elif first.type != wanted:
            raise ExpressionError(
                f"items(types={{{attribute!r}: {declared!r}}}): the column {first.column!r} "
                f"is {first.type} already.",
                safe="Nothing was written.",
                hint="Keep that type, or select the attribute under another name.",
            )
    known = set(mapping.attributes)
    for attribute, descriptor in seen:
        if descriptor == "NULL" or (attribute not in known and len(known) >= MAX_ATTRIBUTES):
            continue
        if _column_for(mapping, attribute, descriptor) is None:
            text_only = attribute in known and descriptor == "N"  # as its other exact texts
            kind = "string" if text_only else TYPE_OF[descriptor]
            mapping = mapping.with_column(attribute, descriptor, kind, exact=text_only)
            known.add(attribute)
    return mapping


def _column_for(
    mapping: AttributeMapping, attribute: str, descriptor: str
) -> AttributeColumn | None:
    """The column that takes an attribute's values of a descriptor."""
    taking = [
        column
        for column in mapping
        if column.attribute == attribute
        and (
            descriptor in descriptors_of(column.type)
            if column.declared
            else column.descriptor == descriptor
        )
    ]
    return next((c for c in taking if not c.exact), taking[0] if taking else None)


def _values(
    mapping: AttributeMapping,
    images: Sequence[tuple[str, str]],
    seen: Seen,
    keys: Seen,
    key_names: Mapping[str, None],
) -> list[_Value]:
    """What is to be read. Key attributes come from the keys: a deleted item has them too."""
    wanted = [("Keys", "", attribute, descriptor) for attribute, descriptor in keys]
    wanted += [
        (image, prefix, attribute, descriptor)
        for image, prefix in images
        for attribute, descriptor in seen
        if attribute not in key_names
    ]
    values = []
    for image, prefix, attribute, descriptor in wanted:
        column = _column_for(mapping, attribute, descriptor)
        if column is None or descriptor == "NULL":
            continue
        leaf = SCALARS.get(descriptor, "VARCHAR")
        path = ImagePath(image, (attribute, descriptor), leaf, descriptor in SETS)
        values.append(_Value(prefix + column.column, column, descriptor, path))
    return values


def _query(
    query: str,
    values: Sequence[_Value],
    rest_of: Sequence[tuple[str, str]],
    mapping: AttributeMapping,
    hidden: Sequence[str],
) -> str:
    """One SELECT: `v<i>` is a value, `x<i>` its text where the type could not read it."""
    position_of = {value.path: position for position, value in enumerate(values)}
    parsed: list[str] = []
    texts: list[str] = []
    for image in ("Keys", "OldImage", "NewImage"):
        for shape, paths in grouped(path for path in position_of if path.image == image):
            parsed.append(f"{from_json(_field(image), shape)} AS j{len(parsed)}")
            texts += [
                f"{extracted(f'j{len(parsed) - 1}', path.column_steps)} AS t{position_of[path]}"
                for path in paths
            ]
    for position, (image, _) in enumerate(rest_of):
        patch = "{" + ",".join(f"{json.dumps(name)}:null" for name in mapping.attributes) + "}"
        parsed.append(
            f"CASE WHEN {_field(image)} IS NOT NULL THEN nullif("
            f"json_merge_patch({_field(image)}, {text_literal(patch)})::VARCHAR, '{{}}') END "
            f"AS rest{position}"
        )
        texts.append(f"rest{position}")
    outputs: list[str] = list(hidden)
    for position, value in enumerate(values):
        text = f"t{position}"
        read = reading(value.column.type, text)
        outputs.append(f"{read or text} AS v{position}")
        if read is not None:
            outputs.append(f"CASE WHEN v{position} IS NULL THEN {text} END AS x{position}")
    outputs += [f"rest{position}" for position in range(len(rest_of))]
    inner = f"SELECT {', '.join([*hidden, *parsed])} FROM ({query})"  # noqa: S608  # escaped literals
    middle = f"SELECT {', '.join([*hidden, *texts])} FROM ({inner})"  # noqa: S608  # our names
    return f"SELECT {', '.join(outputs)} FROM ({middle})"  # noqa: S608  # our names


def _converted(
    raw: pa.Table, values: Sequence[_Value], mapping: AttributeMapping
) -> tuple[dict[str, pa.ChunkedArray], AttributeMapping]:
    """The output columns, and the mapping with columns for texts that no type holds."""
    outputs: dict[str, pa.ChunkedArray] = {}

    def put(name: str, column: pa.ChunkedArray) -> None:
        outputs[name] = pc.coalesce(outputs[name], column) if name in outputs else column

    for position, value in enumerate(values):
        column, left = raw.column(f"v{position}"), None
        if f"x{position}" in raw.column_names:
            left = raw.column(f"x{position}")
        if value.column.type == "json":
            column, left = plain_texts(column, plain_map if value.descriptor == "M" else plain_list)
        target = arrow_type(value.column.type)
        column = column.cast(target)
        if left is not None and left.null_count < len(left):
            column, left = _second_try(value.column.type, column, left)
        put(value.output, column)
        if left is None or left.null_count == len(left):
            continue
        sibling = next(
            (c for c in mapping if c.attribute == value.column.attribute
             and c.descriptor == value.descriptor and c.exact), None,
        )  # fmt: skip
        if sibling is None:
            kind = "list<string>" if value.descriptor in SETS else "string"
            mapping = mapping.with_column(
                value.column.attribute, value.descriptor, kind, exact=True
            )
            sibling = mapping.columns[-1]
        prefix = value.output.removesuffix(value.column.column)
        put(prefix + sibling.column, left.cast(arrow_type(sibling.type)))
    return outputs, mapping


def _second_try(
    name: str, column: pa.ChunkedArray, left: pa.ChunkedArray
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Reads once more, in Python and once per distinct text, what SQL left."""
    if pa.types.is_list(left.type):
        texts: Callable[[object], object] = _exact_list(name)
        found = [None if v is None else texts(v) for v in left.to_pylist()]
    else:
        known: dict[str, object] = {}
        found = []
        for text in left.to_pylist():
            if text is not None and text not in known:
                known[text] = exact_value(name, text)
            found.append(None if text is None else known[text])
    second = pa.array(found, column.type)
    column = pc.coalesce(column, pa.chunked_array([second]))
    return column, pc.if_else(pc.is_null(second), left, pa.scalar(None, left.type))


def _exact_list(name: str) -> Callable[[object], object]:
    def read(texts: object) -> object:
        assert isinstance(texts, list)
        numbers = [exact_value(name.removeprefix("list<").removesuffix(">"), t) for t in texts]
        exact = [number for number in numbers if number is not None]
        return sorted(exact) if len(exact) == len(texts) else None

    return read
