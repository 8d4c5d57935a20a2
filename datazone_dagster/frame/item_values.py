"""Conversion of the values that SQL has read to the columns of items.

A column of numbers holds integers until a value needs more: then it becomes decimal(38, 18), and
a key that no number type holds becomes text. The type that a column ends with depends only on the
values, not on their order. A value that still does not fit goes to a sibling column, exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from datazone_dagster.frame.containers import Reading
from datazone_dagster.frame.exact import UnfitError, exact_content, read_distinct, texts_of_set
from datazone_dagster.frame.item_columns import ItemColumns, holds_key_numbers, takes_empty_lists
from datazone_dagster.frame.item_rest import named_members
from datazone_dagster.frame.item_types import arrow_type, parse_type, type_text
from datazone_dagster.frame.paths import SETS, ImagePath
from datazone_dagster.frame.plain import decoded, plain_list, plain_map, plain_text, plain_value
from datazone_dagster.frame.query_session import MalformedImageError
from datazone_dagster.frame.struct_growth import grown, has_struct
from datazone_dagster.model.attributes import AttributeColumn
from datazone_dagster.model.number import canonical_number

_FRACTION = r"^-?[0-9]{1,20}\.[0-9]{0,17}[1-9]0*$"
"""Texts that decimal(38, 18) holds and long does not; there are others."""
_USUAL_DECIMAL = r"^-?[0-9]{1,20}(\.[0-9]{1,18})?$"


@dataclass(frozen=True, slots=True)
class ItemValue:
    """One column of the query: values of one attribute with one descriptor in one image."""

    output: str
    prefix: str
    column: AttributeColumn
    descriptor: str
    path: ImagePath
    content: Reading | None = None

    @property
    def is_container(self) -> bool:
        """Whether the value is a set, list or map."""
        return self.descriptor in SETS or self.descriptor in {"L", "M"}

    @property
    def is_json(self) -> bool:
        """Whether the value becomes plain JSON text."""
        return self.column.type == "json"

    @property
    def is_empty_list(self) -> bool:
        """Whether the value is a list in a column of sets, which takes only empty lists."""
        return self.descriptor == "L" and takes_empty_lists(self.column)

    @property
    def is_key(self) -> bool:
        """Whether the value is part of the item's key."""
        return self.path.image == "Keys"


@dataclass(slots=True)
class _Read:
    """A value as SQL has read it, and the texts that it could not read; null elsewhere."""

    value: ItemValue
    column: pa.ChunkedArray
    left: pa.ChunkedArray

    @property
    def is_complete(self) -> bool:
        return bool(self.left.null_count == len(self.left))


def converted(
    raw: pa.Table, values: Sequence[ItemValue], columns: ItemColumns
) -> tuple[dict[str, pa.ChunkedArray], dict[str, list[pa.ChunkedArray]]]:
    """Return the output columns; the mapping gets wider types and siblings as the values need.

    The second value has, by prefix of the image, members of `_dz_rest`: the values that fit no
    column and for which the items have too many columns to get another one.

    Args:
        raw: Column `v<i>` of each value, and `x<i>`, the texts that SQL could not read.
        values: The values, numbered from 0.
        columns: Columns of the items.

    Raises:
        MalformedImageError: A key does not fit the type that was declared for it.
        NotDynamoDBJsonError: A value is not DynamoDB JSON.
    """
    reads = [_read(raw, position, value) for position, value in enumerate(values)]
    for read in reads:
        _widen(read, columns)
    outputs: dict[str, pa.ChunkedArray] = {}
    rests: dict[str, list[pa.ChunkedArray]] = {}

    def put(name: str, column: pa.ChunkedArray) -> None:
        outputs[name] = pc.coalesce(outputs[name], column) if name in outputs else column

    for read in reads:
        value, current = read.value, columns.current(read.value.column)
        column, left = _in_type(read, current)
        put(value.output, column)
        if left.null_count == len(left):
            continue
        if value.is_key and current.declared:
            raise MalformedImageError(
                f"items(): a record of this chunk has a key {current.attribute!r} that does not "
                f"fit its declared type {current.type}.",
                safe="Nothing was written; the change log keeps the record.",
            )
        sibling = columns.sibling_of(current, value.descriptor)
        if sibling is None:
            members, _ = read_distinct(left, partial(_as_json, value), pa.string())
            rests.setdefault(value.prefix, []).append(named_members(current.attribute, members))
            continue
        texts, _ = read_distinct(left, partial(_as_sibling, value), arrow_type(sibling.type))
        put(columns.output(value.prefix, sibling), texts)
    return outputs, rests


def _read(raw: pa.Table, position: int, value: ItemValue) -> _Read:
    column, name = raw.column(f"v{position}"), f"x{position}"
    if name in raw.column_names:
        return _Read(value, column, raw.column(name))
    return _Read(value, column, pa.chunked_array([pa.nulls(len(raw), pa.string())]))


def _widen(read: _Read, columns: ItemColumns) -> None:
    """Give the column of a value the narrowest type that takes one more of the values."""
    if read.is_complete or read.value.is_empty_list:
        return
    _grow_structs(read, columns)
    wider = columns.wider_type(read.value.column)
    if wider is not None and _has_value_of(read, columns.current(read.value.column).type, wider):
        columns.widen(read.value.column, wider)
    if not read.value.is_key or not columns.may_become_text(read.value.column):
        return
    if _any(read, lambda text: not _fits(columns.current(read.value.column).type, "N", text)):
        columns.widen(read.value.column, "string")


def _grow_structs(read: _Read, columns: ItemColumns) -> None:
    """Give the structs of a declared type the fields that the values bring."""
    column = columns.current(read.value.column)
    kind = before = parse_type(column.type)
    if not has_struct(kind) or not columns.may_grow(column.column):
        return
    for text in pc.unique(read.left).to_pylist():
        if text is not None:
            kind = grown(kind, read.value.descriptor, decoded(text))
    if kind != before:
        columns.widen(column, type_text(kind))


def _has_value_of(read: _Read, current: str, wider: str) -> bool:
    """Return whether a text needs the wider type, and fits it."""
    descriptor = read.value.descriptor
    if descriptor == "N" and pc.any(pc.match_substring_regex(read.left, _FRACTION)).as_py():
        return True
    return _any(
        read,
        lambda text: _fits(wider, descriptor, text) and not _fits(current, descriptor, text),
    )


def _any(read: _Read, wanted: Callable[[str], bool]) -> bool:
    return any(wanted(text) for text in pc.unique(read.left).to_pylist() if text is not None)


def _fits(kind: str, descriptor: str, text: str) -> bool:
    if kind == "string":
        return True
    try:
        exact_content(parse_type(kind), descriptor, text)
    except UnfitError:
        return False
    return True


def _in_type(read: _Read, current: AttributeColumn) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return the values in the type of their column, and the texts that it can't represent."""
    value, left, target = read.value, read.left, arrow_type(current.type)
    if holds_key_numbers(current):
        texts = pc.coalesce(read.column.cast(pa.string()), left)
        canonical, _ = read_distinct(texts, _canonical, pa.string())
        return canonical, pa.chunked_array([pa.nulls(len(left), pa.string())])
    column = read.column.cast(target)
    if read.is_complete:
        return column, left
    if kinds.is_decimal(target) and value.column.type == "long":
        usual = pc.match_substring_regex(left, _USUAL_DECIMAL)
        none = pa.scalar(None, pa.string())
        column = pc.coalesce(column, pc.if_else(usual, left, none).cast(target))
        left = pc.if_else(usual, none, left)
        if left.null_count == len(left):
            return column, left
    if value.is_empty_list:
        return column, left
    again, left = read_distinct(left, partial(_read_again, value, current.type), target)
    column = pc.coalesce(column, again)
    if left.null_count < len(left) and has_struct(parse_type(current.type)):
        # The complete value goes to the sibling; the fields that the struct knows stay filled.
        known, _ = read_distinct(left, partial(_known_fields, value, current.type), target)
        column = pc.coalesce(column, known)
    return column, left


def _canonical(text: str) -> str:
    try:
        return canonical_number(text)
    except ValueError as error:
        raise UnfitError from error


def _read_again(value: ItemValue, kind: str, text: str) -> object:
    if value.is_json:
        return plain_text(plain_map if value.descriptor == "M" else plain_list, text)
    return exact_content(parse_type(kind), value.descriptor, text)


def _known_fields(value: ItemValue, kind: str, text: str) -> object:
    return exact_content(parse_type(kind), value.descriptor, text, known_fields=True)


def _as_sibling(value: ItemValue, text: str) -> object:
    """Return a value that does not fit its column in the form of the sibling column."""
    if value.descriptor in SETS:
        return texts_of_set(text)
    if value.descriptor in {"L", "M"}:
        return plain_text(plain_map if value.descriptor == "M" else plain_list, text)
    return text


def _as_json(value: ItemValue, text: str) -> str:
    """Return a value that does not fit its column as plain JSON."""
    if value.is_container:
        typed = f'{{"{value.descriptor}":{text}}}'
    else:
        typed = json.dumps({value.descriptor: text})
    return plain_text(plain_value, typed)
