"""The SQL that reads sets, lists and maps, every byte of them or not at all.

DuckDB's `from_json` drops what its shape does not name, and takes the first of two equal
names. So each reading also counts the bytes of the JSON that it has read: only where that is
the length of the whole text was nothing dropped. All else is left to `plain` and `exact`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import NamedTuple

from datazone_dagster.frame.item_types import (
    ItemType,
    ListOf,
    MapOf,
    Scalar,
    StructOf,
    descriptors_of,
)
from datazone_dagster.frame.paths import Shape, extracted
from datazone_dagster.frame.structure import Structure
from datazone_dagster.frame.syntax import quoted, text_literal
from datazone_dagster.frame.typed import reading

_EMPTY = 2  # bytes of [] and {}
_NULL = "NULL"
_JSON_NUMBER = r'"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"'

Sql = Callable[[str], str]
"""From the SQL of a parsed value to SQL about it."""


class Reading(NamedTuple):
    """How one kind of value is read.

    `shape` is what `from_json` is asked for; `value` is the value, null if it can't be had;
    `size` the bytes of JSON that the value was made of, null or too few if some were not read.
    """

    shape: Shape
    value: Sql
    size: Sql


def typed_content(item_type: ItemType, descriptor: str) -> Reading:
    """Reads the inside of a set, list or map as a declared type."""
    return _typed_forms(item_type, 0)[descriptor]


def plain_content(structure: Structure, descriptor: str) -> Reading | None:
    """Reads the inside of a list or map as plain JSON text; None if nothing was learnt of it."""
    return _plain_forms(structure, 0).get(descriptor)


def exactly(read: Reading, parsed: str, text: str, *, plain: bool) -> str:
    """The value where all of the text was read, else null.

    Args:
        read: The reading.
        parsed: The SQL of what `from_json` made of the text.
        text: The SQL of the text, without whitespace between tokens.
        plain: Whether the value is JSON text. Control characters are then left to Python, so
            that equal values have equal texts whoever wrote them.
    """
    whole = f"{read.size(parsed)} = strlen({text})"
    if plain:
        whole += f" AND NOT contains({text}, '\\u')"
    return f"CASE WHEN {whole} THEN {read.value(parsed)} END"


def _wrapped(forms: dict[str, Reading]) -> Reading:
    """A typed value, `{"S": ...}`: whichever of the forms is there."""

    def field(value: str, descriptor: str) -> str:
        return extracted(value, (descriptor,))

    def value(of: str) -> str:
        return _first(form.value(field(of, name)) for name, form in forms.items())

    def size(of: str) -> str:
        around = len('{"":}')
        return _first(
            f"{form.size(field(of, name))} + {len(name) + around}" for name, form in forms.items()
        )

    return Reading({name: form.shape for name, form in forms.items()}, value, size)


def _first(sqls: Iterable[str]) -> str:
    listed = list(sqls)
    return listed[0] if len(listed) == 1 else f"coalesce({', '.join(listed)})"


def _sized(value: Sql) -> Sql:
    """The size of a scalar is that of its JSON, if it was read."""
    return lambda of: f"CASE WHEN {value(of)} IS NOT NULL THEN strlen({of}) END"


def _text(of: str) -> str:
    """The text of a JSON string; null of any other JSON."""
    return f"CASE WHEN starts_with({of}, '\"') THEN {of} ->> '$' END"


def _all(element: Reading, depth: int) -> Sql:
    """The size of a list: a separator per element, and the brackets."""
    name = f"s{depth}"
    return lambda of: _if_there(
        of,
        f"greatest({_EMPTY}, 1 + coalesce(list_sum(list_transform({of}, "
        f"lambda {name}: {element.size(name)} + 1)), 0))",
    )


def _if_there(of: str, sql: str) -> str:
    return f"CASE WHEN {of} IS NOT NULL THEN {sql} END"


# --- declared types


def _typed_value(item_type: ItemType, depth: int) -> Reading:
    """Any form that the type takes, or NULL, whose value is null."""
    read = _wrapped(_typed_forms(item_type, depth))
    is_null = _wrapped({_NULL: Reading("JSON", lambda _: "NULL", _sized(_is_null))})
    assert isinstance(read.shape, dict)
    assert isinstance(is_null.shape, dict)
    return Reading(
        read.shape | is_null.shape, read.value, lambda of: _first((read.size(of), is_null.size(of)))
    )


def _is_null(of: str) -> str:
    return f"CASE WHEN {of} = 'true' THEN 'null' END"


def _typed_forms(item_type: ItemType, depth: int) -> dict[str, Reading]:
    if isinstance(item_type, Scalar):
        value = _typed_scalar(item_type)
        return {name: Reading("JSON", value, _sized(value)) for name in descriptors_of(item_type)}
    if isinstance(item_type, ListOf):
        return _typed_lists(item_type, depth)
    if isinstance(item_type, MapOf):
        return {"M": _typed_map(item_type, depth)}
    return {"M": _typed_struct(item_type, depth)}


def _typed_scalar(scalar: Scalar) -> Sql:
    if scalar.name == "boolean":
        return lambda of: f"CASE {of} WHEN 'true' THEN true WHEN 'false' THEN false END"
    return lambda of: reading(scalar, _text(of)) or _text(of)


def _typed_lists(listed: ListOf, depth: int) -> dict[str, Reading]:
    element, name = _typed_value(listed.element, depth + 1), f"e{depth}"
    forms = {
        "L": Reading(
            [element.shape],
            lambda of: f"list_transform({of}, lambda {name}: {element.value(name)})",
            _all(element, depth),
        )
    }
    for descriptor in descriptors_of(listed)[1:]:
        assert isinstance(listed.element, Scalar)
        forms[descriptor] = _typed_set(listed.element, depth)
    return forms


def _typed_set(scalar: Scalar, depth: int) -> Reading:
    value, name = _typed_scalar(scalar), f"e{depth}"
    return Reading(
        ["JSON"],
        lambda of: f"list_sort(list_transform({of}, lambda {name}: {value(name)}))",
        _all(Reading("JSON", value, _sized(value)), depth),
    )


def _typed_map(mapped: MapOf, depth: int) -> Reading:
    value, name = _typed_value(mapped.value, depth + 1), f"e{depth}"
    entry = f"{{'key': {name}.key, 'value': {value.value(f'{name}.value')}}}"
    size = f"strlen(to_json({name}.key)) + 2 + {value.size(f'{name}.value')}"
    return Reading(
        f"MAP(VARCHAR, {_type_of(value.shape)})",
        lambda of: (
            f"map_from_entries(list_sort(list_transform(map_entries({of}), "
            f"lambda {name}: {entry})))"
        ),
        lambda of: _if_there(
            of,
            f"greatest({_EMPTY}, 1 + coalesce(list_sum(list_transform(map_entries({of}), "
            f"lambda {name}: {size})), 0))",
        ),
    )


def _type_of(shape: Shape) -> str:
    """A shape as a DuckDB type: inside a MAP there are no shapes."""
    if isinstance(shape, str):
        return shape
    if isinstance(shape, list):
        return f"{_type_of(shape[0])}[]"
    fields = ", ".join(f"{quoted(name)} {_type_of(inner)}" for name, inner in shape.items())
    return f"STRUCT({fields})"


def _typed_struct(struct: StructOf, depth: int) -> Reading:
    parts = {name: _typed_value(part, depth + 1) for name, part in struct.fields}

    def value(of: str) -> str:
        packed = ", ".join(
            f"{quoted(name)} := {part.value(extracted(of, (name,)))}"
            for name, part in parts.items()
        )
        return _if_there(of, f"struct_pack({packed})")

    return Reading({name: part.shape for name, part in parts.items()}, value, _fields_size(parts))


def _fields_size(parts: dict[str, Reading]) -> Sql:
    """The size of a map of known names: what is absent has none."""

    def size(of: str) -> str:
        sizes = [
            f"coalesce({part.size(extracted(of, (name,)))} + {len(_name(name).encode()) + 2}, 0)"
            for name, part in parts.items()
        ]
        return _if_there(of, f"greatest({_EMPTY}, {' + '.join(['1', *sizes])})")

    return size


def _name(name: str) -> str:
    """An attribute name as JSON."""
    return json.dumps(name, ensure_ascii=False)


# --- plain JSON


def _plain_value(structure: Structure, depth: int) -> Reading | None:
    forms = _plain_forms(structure, depth)
    return _wrapped(forms) if forms else None


def _plain_forms(structure: Structure, depth: int) -> dict[str, Reading]:
    forms = {}
    for name in sorted(structure.scalars):
        if name in {"SS", "BS"}:
            forms[name] = _plain_set(depth)
        else:
            value = _PLAIN_SCALARS[name]
            forms[name] = Reading("JSON", value, _sized(value))
    if structure.element is not None:
        forms["L"] = _plain_list(structure.element, depth)
    if structure.fields is not None:
        forms["M"] = _plain_map(structure.fields, depth)
    return forms


def _plain_text(of: str) -> str:
    return f"CASE WHEN starts_with({of}, '\"') THEN {of}::VARCHAR END"


_PLAIN_SCALARS: dict[str, Sql] = {
    "S": _plain_text,
    "B": _plain_text,
    "N": lambda of: (
        f"CASE WHEN regexp_full_match({of}, '{_JSON_NUMBER}') THEN trim({of}, '\"') END"
    ),
    "BOOL": lambda of: f"CASE WHEN {of} IN ('true', 'false') THEN {of}::VARCHAR END",
    "NULL": _is_null,
}


def _empty(brackets: str) -> Reading:
    """A list or map that was never seen with anything inside."""
    return Reading(
        "JSON",
        lambda of: f"CASE WHEN {of} = '{brackets}' THEN '{brackets}' END",
        lambda of: f"CASE WHEN {of} = '{brackets}' THEN {_EMPTY} END",
    )


def _plain_set(depth: int) -> Reading:
    name = f"e{depth}"
    return Reading(
        ["JSON"],
        lambda of: (
            f"'[' || array_to_string(list_transform(list_sort(list_transform({of}, "
            f"lambda {name}: {_text(name)})), lambda {name}: to_json({name})::VARCHAR), ',') || ']'"
        ),
        _all(Reading("JSON", _text, _sized(_text)), depth),
    )


def _plain_list(element: Structure, depth: int) -> Reading:
    read, name = _plain_value(element, depth + 1), f"e{depth}"
    if read is None:
        return _empty("[]")
    return Reading(
        [read.shape],
        lambda of: (
            f"'[' || array_to_string(list_transform({of}, lambda {name}: {read.value(name)}), "
            "',') || ']'"
        ),
        _all(read, depth),
    )


def _plain_map(fields: dict[str, Structure], depth: int) -> Reading:
    parts = {
        name: read
        for name in sorted(fields)
        if (read := _plain_value(fields[name], depth + 1)) is not None
    }
    if not parts:
        return _empty("{}")

    def value(of: str) -> str:
        members = ", ".join(
            f"{text_literal(_name(name) + ':')} || {part.value(extracted(of, (name,)))}"
            for name, part in parts.items()
        )
        return _if_there(of, f"'{{' || concat_ws(',', {members}) || '}}'")

    return Reading({name: part.shape for name, part in parts.items()}, value, _fields_size(parts))
