"""Conversion of sets, lists and maps that `parsed_images` has read: exactly, or not at all.

The counterpart of `containers`, which reads JSON text. Here the parts are there already, in Arrow
arrays: the elements of all lists of a column are converted at once, like any other column. A value
without a declared type becomes plain JSON text, as `plain` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from datazone_dagster.frame.item_types import ItemType, ListOf, MapOf, Scalar, descriptors_of
from datazone_dagster.frame.json_bytes import booleans
from datazone_dagster.frame.parsed_images import have_one_each
from datazone_dagster.frame.paths import SETS
from datazone_dagster.frame.structure import Structure
from datazone_dagster.frame.text_bytes import Bytes, Offsets, are_within, bytes_of, offsets_of
from datazone_dagster.frame.typed import reading
from datazone_dagster.frame.usual_texts import usual_values

_JSON_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_ESCAPED = (ord('"'), ord("\\"), 127)
_UNUSUAL = r"[\x00-\x07\x0b\x0e-\x1f\x7f]"
"""Characters that not all writers of JSON escape alike."""

Query = Callable[[str, pa.Array], pa.Array]
"""Computes SQL over `t`, a column with the values of an array."""

Read = Callable[[pa.Array, Query], pa.Array]
"""Converts parsed values, null where they are null; raises `UnfitContentError`."""


class UnfitContentError(Exception):
    """A value is not what its type or its structure says."""


class Content(NamedTuple):
    """How one kind of value is parsed, and converted after that."""

    kind: pa.DataType
    read: Read


def content_of(item_type: ItemType, descriptor: str) -> Content | None:
    """Return the conversion of a set, list or map to a type; None if the type needs its JSON."""
    return None if _needs_json(item_type) else _forms(item_type).get(descriptor)


def _needs_json(item_type: ItemType) -> bool:
    if isinstance(item_type, Scalar):
        return item_type.name == "json"
    if isinstance(item_type, MapOf):
        return _needs_json(item_type.value)
    if isinstance(item_type, ListOf):
        return _needs_json(item_type.element)
    # DuckDB's names of fields fold case.
    names = {name.casefold() for name, _ in item_type.fields}
    return len(names) < len(item_type.fields) or any(
        _needs_json(field) for _, field in item_type.fields
    )


def _forms(item_type: ItemType) -> dict[str, Content]:
    if isinstance(item_type, Scalar):
        return {name: _scalar(item_type, name) for name in descriptors_of(item_type)}
    if isinstance(item_type, ListOf):
        element = item_type.element
        return {
            name: _set(element, name) if name in SETS else _list(_value(element))
            for name in descriptors_of(item_type)
        }
    if isinstance(item_type, MapOf):
        return {"M": _map(_value(item_type.value))}
    return {"M": _struct({name: _value(field) for name, field in item_type.fields})}


def _scalar(scalar: Scalar, descriptor: str) -> Content:
    if descriptor == "BOOL":
        return Content(pa.bool_(), _read_booleans)
    sql = reading(scalar, "t")

    def read(values: pa.Array, query: Query) -> pa.Array:
        if sql is None:
            return values
        usual = usual_values(scalar, pa.chunked_array([values]))
        return _all_read(values, query(sql, values)) if usual is None else usual.combine_chunks()

    return Content(pa.string(), read)


def _read_booleans(values: pa.Array, _: Query) -> pa.Array:
    read = booleans(values)
    if read is None:
        raise UnfitContentError
    return read


def _all_read(values: pa.Array, read: pa.Array) -> pa.Array:
    if read.null_count != values.null_count:
        raise UnfitContentError
    return read


def _value(item_type: ItemType) -> Content:
    """Return the conversion of a typed value, `{"S": ...}`; the value of NULL is null."""
    return _wrapped(_forms(item_type), null=None)


def _wrapped(forms: dict[str, Content], null: str | None) -> Content:
    """Return the conversion of a typed value, in whichever form is present.

    Args:
        forms: Conversion of each descriptor but NULL.
        null: Text of the value of NULL; None: null.
    """

    def read(values: pa.Array, query: Query) -> pa.Array:
        parts = values.flatten()
        if not have_one_each(values, parts):
            raise UnfitContentError
        nulls = _read_booleans(parts.pop(), query)
        found = [
            form.read(part, query)
            for form, part in zip(forms.values(), parts, strict=True)
            if part.null_count < len(part) or len(parts) == 1
        ]
        if null is not None and nulls.null_count < len(nulls):
            found.append(pc.if_else(nulls.is_valid(), null, pa.scalar(None, pa.string())))
        if found:
            return found[0] if len(found) == 1 else pc.coalesce(*found)
        if null is not None:
            return pa.nulls(len(values), pa.string())
        return next(iter(forms.values())).read(parts[0], query)

    fields = [pa.field(name, form.kind) for name, form in forms.items()]
    fields.append(pa.field("NULL", pa.bool_()))
    return Content(pa.struct(fields), read)


def _list(element: Content) -> Content:
    def read(values: pa.Array, query: Query) -> pa.Array:
        return _as_lists(values, element.read(_elements(values), query))

    return Content(pa.list_(element.kind), read)


def _elements(values: pa.Array) -> pa.Array:
    return _without_nulls(values.values[_used(values)])


def _used(values: pa.Array) -> slice:
    """Return which elements are those of these lists or maps."""
    offsets = offsets_of(values)
    return slice(int(offsets[0]), int(offsets[-1]))


def _without_nulls(elements: pa.Array) -> pa.Array:
    if elements.null_count:
        raise UnfitContentError
    return elements


def _as_lists(values: pa.Array, elements: pa.Array) -> pa.Array:
    """Return lists of other elements; null where `values` are null."""
    mask = values.is_null() if values.null_count else None
    return pa.ListArray.from_arrays(_fresh_offsets(values), elements, mask=mask)


def _fresh_offsets(values: pa.Array) -> pa.Array:
    """Return the offsets of lists or maps, beginning at 0."""
    offsets = offsets_of(values)
    return pa.array(offsets - offsets[0])


def _set(element_type: ItemType, descriptor: str) -> Content:
    assert isinstance(element_type, Scalar)
    element = _scalar(element_type, descriptor)

    def read(values: pa.Array, query: Query) -> pa.Array:
        found = element.read(_elements(values), query)
        if kinds.is_floating(found.type):
            return query("list_sort(t)", _as_lists(values, found))
        return _as_lists(values, _sorted_within(values, found))

    return Content(pa.list_(element.kind), read)


def _sorted_within(lists: pa.Array, elements: pa.Array) -> pa.Array:
    """Return the elements of all lists, those of each list in order."""
    order = _order_within(np.diff(offsets_of(lists)), elements)
    return elements if order is None else elements.take(order)


def _order_within(lengths: Offsets, elements: pa.Array) -> pa.Array | None:
    """Return the order of the elements of lists of these lengths; None if they are in order."""
    encoded = elements.dictionary_encode()
    ranks = np.empty(len(encoded.dictionary), np.int64)
    ranks[pc.array_sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(ranks))
    rank = ranks[encoded.indices.to_numpy()]
    of_list = np.repeat(np.arange(len(lengths)), lengths)
    if np.all((rank[1:] >= rank[:-1]) | (of_list[1:] != of_list[:-1])):
        return None
    return pa.array(np.lexsort((rank, of_list)))


def _map(value: Content) -> Content:
    """Return the conversion of a map whose names are data; they get in order."""

    def read(values: pa.Array, query: Query) -> pa.Array:
        names, found = _entries(values, value, query)
        mask = values.is_null() if values.null_count else None
        return pa.MapArray.from_arrays(_fresh_offsets(values), names, found, mask=mask)

    return Content(pa.map_(pa.string(), value.kind), read)


def _entries(values: pa.Array, value: Content, query: Query) -> tuple[pa.Array, pa.Array]:
    """Return the names and converted values of all maps, those of each map in order."""
    used = _used(values)
    names, found = values.keys[used], _without_nulls(values.items[used])
    order = _order_within(np.diff(offsets_of(values)), names)
    if order is not None:
        names, found = names.take(order), found.take(order)
    return names, value.read(found, query)


def _struct(fields: dict[str, Content]) -> Content:
    def read(values: pa.Array, query: Query) -> pa.Array:
        parts = zip(fields.values(), values.flatten(), strict=True)
        mask = values.is_null() if values.null_count else None
        read = [field.read(part, query) for field, part in parts]
        return pa.StructArray.from_arrays(read, list(fields), mask=mask)

    return Content(_struct_kind(fields), read)


def _struct_kind(fields: dict[str, Content]) -> pa.DataType:
    return pa.struct([pa.field(name, one.kind) for name, one in fields.items()])


# --- plain JSON


def plain_content_of(structure: Structure, descriptor: str) -> Content | None:
    """Return the conversion of a list or map to plain JSON, None if no sample had one.

    Args:
        structure: Structure of the samples. Any value inside may be NULL as well.
        descriptor: L or M.
    """
    return _plain_forms(structure).get(descriptor)


def _plain_forms(structure: Structure) -> dict[str, Content]:
    forms = {name: _PLAIN.get(name, _PLAIN_SET) for name in sorted(structure.scalars - {"NULL"})}
    if structure.element is not None:
        forms["L"] = _plain_list(_plain_value(structure.element))
    if structure.values is not None:
        forms["M"] = _plain_names(_plain_value(structure.values))
    elif structure.fields:
        fields = structure.fields.items()
        forms["M"] = _plain_map({name: _plain_value(one) for name, one in fields})
    return forms


def _plain_value(structure: Structure) -> Content:
    return _wrapped(_plain_forms(structure), null="null")


def _json_text(values: pa.Array, query: Query) -> pa.Array:
    if not _has_escaped(bytes_of(values)):
        return pc.binary_join_element_wise('"', values, '"', "")
    if _any_match(values, _UNUSUAL):
        raise UnfitContentError
    return query("to_json(t)::VARCHAR", values)


def _has_escaped(found: Bytes) -> bool:
    """Return whether JSON has, or may have, an escape for one of these bytes of texts."""
    return bool(len(found)) and bool(
        found.min() < ord(" ") or any(np.any(found == code) for code in _ESCAPED)
    )


def _any_match(values: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(values, pattern)).as_py())


def _are_usual_integers(values: pa.Array) -> bool:
    """Return whether all texts are digits without a leading zero, which needs no pattern."""
    digits, offsets = bytes_of(values), offsets_of(values)
    lengths = np.diff(offsets)
    if values.null_count or not are_within(digits, "0", "9") or not np.all(lengths):
        return False
    firsts = digits[offsets[:-1] - offsets[0]]
    return not np.any((firsts == ord("0")) & (lengths > 1))


def _json_number(values: pa.Array, _: Query) -> pa.Array:
    if _are_usual_integers(values):
        return values
    if not pc.all(pc.match_substring_regex(values, _JSON_NUMBER), min_count=0).as_py():
        raise UnfitContentError
    return values


def _json_boolean(values: pa.Array, query: Query) -> pa.Array:
    return _read_booleans(values, query).cast(pa.string())


def _plain_set(values: pa.Array, query: Query) -> pa.Array:
    elements = _sorted_within(values, _elements(values))
    return _in_brackets(_as_lists(values, _json_text(elements, query)))


def _plain_list(element: Content) -> Content:
    def read(values: pa.Array, query: Query) -> pa.Array:
        return _in_brackets(_as_lists(values, element.read(_elements(values), query)))

    return Content(pa.list_(element.kind), read)


def _in_brackets(texts: pa.Array, brackets: str = "[]") -> pa.Array:
    return pc.binary_join_element_wise(brackets[0], pc.binary_join(texts, ","), brackets[1], "")


def _plain_names(value: Content) -> Content:
    """Return the conversion of a map whose names are data."""

    def read(values: pa.Array, query: Query) -> pa.Array:
        names, found = _entries(values, value, query)
        members = pc.binary_join_element_wise(_json_text(names, query), found, ":")
        return _in_brackets(_as_lists(values, members), "{}")

    return Content(pa.map_(pa.string(), value.kind), read)


def _plain_map(fields: dict[str, Content]) -> Content:
    names = sorted(fields)
    labels = [f"{json.dumps(name, ensure_ascii=False)}:" for name in names]

    def read(values: pa.Array, query: Query) -> pa.Array:
        parts = dict(zip(fields, values.flatten(), strict=True))
        found = [fields[name].read(parts[name], query) for name in names]
        if all(one.null_count == values.null_count for one in found):
            around = ["{" + labels[0], *(f",{label}" for label in labels[1:])]
            joined = [part for pair in zip(around, found, strict=True) for part in pair]
            return pc.binary_join_element_wise(*joined, "}", "")
        members = [
            pc.binary_join_element_wise(f",{label}", one, "")
            for label, one in zip(labels, found, strict=True)
        ]
        # The first text is in every row: Arrow 26 leaves out rows in which every text is null.
        listed = pc.binary_join_element_wise("", *members, "", null_handling="skip")
        texts = pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(listed, 1), "}", "")
        return pc.if_else(values.is_valid(), texts, pa.scalar(None, pa.string()))

    return Content(_struct_kind(fields), read)


_TEXT = Content(pa.string(), _json_text)
_PLAIN = {
    "S": _TEXT,
    "B": _TEXT,
    "N": Content(pa.string(), _json_number),
    "BOOL": Content(pa.bool_(), _json_boolean),
}
_PLAIN_SET = Content(pa.list_(pa.string()), _plain_set)
