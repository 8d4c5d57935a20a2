"""Which column types hold which others, exactly. Pure.

delta-rs would cast in silence (1.5 became 1 in an integer column), so every question of
whether a value survives is answered here, by the types alone.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

MAX_DECIMAL_DIGITS = 38

_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}
"""Decimal digits that an integer of that many bits may need."""

_INTEGER_BITS = {16: 8, 32: 16, 64: 32}
"""The widest integer that a float of that many bits holds exactly, of those that there are."""


def fits(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether every value of `source` is exactly a value of `target`."""
    return source.equals(target) or _fits_scalar(source, target) or _fits_nested(source, target)


def widest(held: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    """The narrowest type that holds every value of both; None if no type does.

    Types of a kind widen: integers to longer ones, floats, decimals to more digits, integers
    to decimals and, where they are short enough, to floats, dates to timestamps without a
    zone; structs get the fields of both. A number never becomes text, nor a text a number.
    """
    if fits(new, held):
        return held
    if fits(held, new):
        return new
    if pt.is_decimal(held) or pt.is_decimal(new):
        return _decimal_of_both(held, new)
    return _nested_of_both(held, new)


def _fits_scalar(source: pa.DataType, target: pa.DataType) -> bool:
    if pt.is_integer(source) and pt.is_floating(target):
        return bool(source.bit_width <= _INTEGER_BITS[target.bit_width])
    same_kind = (pt.is_integer(source) and pt.is_integer(target)) or (
        pt.is_floating(source) and pt.is_floating(target)
    )
    if same_kind:
        return bool(source.bit_width <= target.bit_width)
    if pt.is_decimal(target) and (pt.is_integer(source) or pt.is_decimal(source)):
        whole, scale = _digits(source)
        return bool(target.precision - target.scale >= whole and target.scale >= scale)
    return bool(pt.is_date32(source) and pt.is_timestamp(target) and target.tz is None)


def _fits_nested(source: pa.DataType, target: pa.DataType) -> bool:
    if pt.is_list(source) and pt.is_list(target):
        return fits(source.value_type, target.value_type)
    if pt.is_map(source) and pt.is_map(target):
        return fits(source.key_type, target.key_type) and fits(source.item_type, target.item_type)
    if pt.is_struct(source) and pt.is_struct(target):
        held = _fields(target)
        return all(
            name in held and fits(kind, held[name]) for name, kind in _fields(source).items()
        )
    return False


def _digits(kind: pa.DataType) -> tuple[int, int]:
    """Digits before and after the point that a number of this type may have."""
    if pt.is_decimal(kind):
        return kind.precision - kind.scale, kind.scale
    return _INTEGER_DIGITS[kind.bit_width], 0


def _decimal_of_both(held: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if not all(pt.is_decimal(kind) or pt.is_integer(kind) for kind in (held, new)):
        return None
    whole = max(_digits(held)[0], _digits(new)[0])
    scale = max(_digits(held)[1], _digits(new)[1])
    return pa.decimal128(whole + scale, scale) if whole + scale <= MAX_DECIMAL_DIGITS else None


def _nested_of_both(held: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if pt.is_list(held) and pt.is_list(new):
        value = widest(held.value_type, new.value_type)
        return None if value is None else pa.list_(value)
    if pt.is_map(held) and pt.is_map(new):
        key, item = widest(held.key_type, new.key_type), widest(held.item_type, new.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if pt.is_struct(held) and pt.is_struct(new):
        return _struct_of_both(_fields(held), _fields(new))
    return None


def _struct_of_both(
    held: dict[str, pa.DataType], new: dict[str, pa.DataType]
) -> pa.DataType | None:
    folded = {name.casefold() for name in held}
    if any(name not in held and name.casefold() in folded for name in new):
        return None  # Delta holds names that differ only in case as one
    both: list[pa.Field] = []
    for name in dict.fromkeys((*held, *new)):
        kinds = [kind for kind in (held.get(name), new.get(name)) if kind is not None]
        kind = kinds[0] if len(kinds) == 1 else widest(*kinds)
        if kind is None:
            return None
        both.append(pa.field(name, kind))
    return pa.struct(both)


def _fields(kind: pa.StructType) -> dict[str, pa.DataType]:
    return {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
