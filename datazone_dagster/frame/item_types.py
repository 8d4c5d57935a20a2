"""Types of item columns: as users declare them, as tables store them, and in Arrow.

A type is written as text: `decimal(18,2)`, `list<struct<sku:string,qty:int>>`. Each type has one
canonical text, which is stored with the table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

MAX_DIGITS = 38
MAX_NESTING = 16

TYPE_OF = {
    "S": "string",
    "N": "long",
    "B": "binary",
    "BOOL": "boolean",
    "SS": "list<string>",
    "NS": "list<long>",
    "BS": "list<binary>",
    "L": "json",
    "M": "json",
}
"""Type of a column without a declared type, by the descriptor of its values."""

WIDER = {"long": "decimal(38,18)", "list<long>": "list<decimal(38,18)>"}
"""Type that such a column of numbers becomes with the first value that only this type holds."""

SCALAR_NAMES = (
    "string, boolean, int, long, double, decimal(p,s) up to 38 digits, binary, date, "
    "timestamp (ISO text), timestamp_s or timestamp_ms (numbers since 1970)"
)

_INSTANT = pa.timestamp("us", tz="UTC")
_ARROW: dict[str, pa.DataType] = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": _INSTANT,
    "timestamp_s": _INSTANT,
    "timestamp_ms": _INSTANT,
    "json": pa.string(),
}
_DESCRIPTORS = {
    "string": ("S", "N"),
    "boolean": ("BOOL",),
    "int": ("N", "S"),
    "long": ("N", "S"),
    "double": ("N", "S"),
    "decimal": ("N", "S"),
    "binary": ("B",),
    "date": ("S",),
    "timestamp": ("S",),
    "timestamp_s": ("N",),
    "timestamp_ms": ("N",),
    "json": ("M", "L"),
}
_SET_OF = {"string": "SS", "binary": "BS"}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type that contains no other type; only `decimal` has a precision and a scale."""

    name: str
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list, made from an `L` or from a set, which is sorted."""

    element: ItemType


@dataclass(frozen=True, slots=True)
class MapOf:
    """A map, made from an `M` whose attribute names are data; all values have one type."""

    value: ItemType


@dataclass(frozen=True, slots=True)
class StructOf:
    """A struct, made from an `M` of known attributes, in this order."""

    fields: tuple[tuple[str, ItemType], ...]


ItemType = Scalar | ListOf | MapOf | StructOf

_TOKEN = re.compile(r"\s*(?:(\w+)|([<>(),:]))")


@lru_cache(maxsize=4096)
def parse_type(text: str) -> ItemType:
    """Parse the text of a type.

    Raises:
        ValueError: The text is not a type. The message says what is expected.
    """
    tokens = _tokens(text)
    found = _type(tokens, 0)
    if tokens:
        raise ValueError(f"{tokens[-1]!r} follows a complete type")
    return found


def _tokens(text: str) -> list[str]:
    """Split the text of a type into tokens, the first token last."""
    tokens: list[str] = []
    position, text = 0, text.strip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ValueError(f"{text[position:].strip()[:20]!r} can't be part of a type")
        tokens.append(found[1] or found[2])
        position = found.end()
    return tokens[::-1]


def _take(tokens: list[str], expected: str) -> None:
    token = tokens.pop() if tokens else "the end"
    if token != expected:
        raise ValueError(f"{expected!r} is expected, not {token!r}")


def _type(tokens: list[str], depth: int) -> ItemType:
    if depth >= MAX_NESTING:
        raise ValueError(f"a type is nested at most {MAX_NESTING} deep")
    name = tokens.pop().lower() if tokens else ""
    if name == "decimal":
        return _decimal(tokens)
    if name == "list":
        _take(tokens, "<")
        element = _type(tokens, depth + 1)
        _take(tokens, ">")
        return ListOf(element)
    if name == "map":
        _take(tokens, "<")
        _take(tokens, "string")
        _take(tokens, ",")
        value = _type(tokens, depth + 1)
        _take(tokens, ">")
        return MapOf(value)
    if name == "struct":
        return _struct(tokens, depth)
    if name in _ARROW and (name != "json" or depth == 0):
        return Scalar(name)
    raise ValueError(f"there is no type {name!r}" if name else "a type is expected")


def _decimal(tokens: list[str]) -> Scalar:
    _take(tokens, "(")
    precision = tokens.pop() if tokens else ""
    _take(tokens, ",")
    scale = tokens.pop() if tokens else ""
    _take(tokens, ")")
    if not (precision.isdecimal() and scale.isdecimal()):
        raise ValueError("a decimal takes two integers, as in decimal(18,2)")
    if not (1 <= int(precision) <= MAX_DIGITS and int(scale) <= int(precision)):
        raise ValueError(f"decimal({precision},{scale}) has an invalid precision or scale")
    return Scalar("decimal", int(precision), int(scale))


def _struct(tokens: list[str], depth: int) -> StructOf:
    _take(tokens, "<")
    fields: list[tuple[str, ItemType]] = []
    while True:
        name = tokens.pop() if tokens else ""
        if not re.fullmatch(r"\w+", name):
            raise ValueError("a struct has fields, as in struct<sku:string,qty:int>")
        if name.casefold() in {known.casefold() for known, _ in fields}:
            raise ValueError(f"the field {name!r} is repeated; names must differ in more than case")
        _take(tokens, ":")
        fields.append((name, _type(tokens, depth + 1)))
        if tokens and tokens[-1] == ",":
            tokens.pop()
            continue
        _take(tokens, ">")
        return StructOf(tuple(fields))


def type_text(item_type: ItemType) -> str:
    """Return the canonical text of a type."""
    if isinstance(item_type, ListOf):
        return f"list<{type_text(item_type.element)}>"
    if isinstance(item_type, MapOf):
        return f"map<string,{type_text(item_type.value)}>"
    if isinstance(item_type, StructOf):
        fields = ",".join(f"{name}:{type_text(field)}" for name, field in item_type.fields)
        return f"struct<{fields}>"
    if item_type.name == "decimal":
        return f"decimal({item_type.precision},{item_type.scale})"
    return item_type.name


@lru_cache(maxsize=4096)
def arrow_type(text: str) -> pa.DataType:
    """Return the Arrow type of an item type."""
    return _arrow(parse_type(text))


def _arrow(item_type: ItemType) -> pa.DataType:
    if isinstance(item_type, ListOf):
        return pa.list_(_arrow(item_type.element))
    if isinstance(item_type, MapOf):
        return pa.map_(pa.string(), _arrow(item_type.value))
    if isinstance(item_type, StructOf):
        return pa.struct([pa.field(name, _arrow(field)) for name, field in item_type.fields])
    if item_type.name == "decimal":
        return pa.decimal128(item_type.precision, item_type.scale)
    return _ARROW[item_type.name]


def descriptors_of(item_type: ItemType) -> tuple[str, ...]:
    """Return the DynamoDB types whose values a declared type accepts, the usual one first."""
    if isinstance(item_type, ListOf):
        element = item_type.element
        if not isinstance(element, Scalar):
            return ("L",)
        set_of = _SET_OF.get(element.name, "NS" if "N" in _DESCRIPTORS[element.name] else None)
        return ("L",) if set_of is None else ("L", set_of)
    if isinstance(item_type, (MapOf, StructOf)):
        return ("M",)
    return _DESCRIPTORS[item_type.name]
