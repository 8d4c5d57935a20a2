"""Column types that hold all values of other types, exactly. Pure.

delta-rs would cast silently (1.5 became 1 in an integer column), so this module decides whether
a value survives, from the types alone.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

MAX_DECIMAL_DIGITS = 38

_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}
"""Decimal digits that an integer of that many bits may need."""

_INTEGER_BITS = {16: 8, 32: 16, 64: 32}
"""Bits of the widest integer type that a float of that many bits holds exactly."""


def fits(source: pa.DataType, target: pa.DataType) -> bool:
    """Return whether every value of `source` is exactly a value of `target`."""
    return source.equals(target) or _fits_scalar(source, target) or _fits_nested(source, target)


def widest(existing: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    """Return the narrowest type that holds every value of both; None if no type does.

    Integers widen to longer integers, to decimals and, if short enough, to floats; floats to
    longer floats; decimals to more digits; dates to timestamps (midnight in UTC); structs get the
    fields of both. A number never becomes text, nor a text a number.
    """
    if fits(new, existing):
        return existing
    if fits(existing, new):
        return new
    if pt.is_decimal(existing) or pt.is_decimal(new):
        return _decimal_of_both(existing, new)
    return _nested_of_both(existing, new)


def _fits_scalar(source: pa.DataType, target: pa.DataType) -> bool:
    if pt.is_integer(source) and pt.is_floating(target):
        return bool(source.bit_width <= _INTEGER_BITS[target.bit_width])
    same_kind = (pt.is_integer(source) and pt.is_integer(target)) or (
        pt.is_floating(source) and pt.is_floating(target)
    )
    if same_kind:
        return bool(source.bit_width <= target.bit_width)
    if pt.is_decimal(target) and (pt.is_integer(source) or pt.is_decimal(source)):
        integer_digits, scale = _digits(source)
        return bool(target.precision - target.scale >= integer_digits and target.scale >= scale)
    return bool(pt.is_date32(source) and pt.is_timestamp(target))


def _fits_nested(source: pa.DataType, target: pa.DataType) -> bool:
    if pt.is_list(source) and pt.is_list(target):
        return fits(source.value_type, target.value_type)
    if pt.is_map(source) and pt.is_map(target):
        return fits(source.key_type, target.key_type) and fits(source.item_type, target.item_type)
    if pt.is_struct(source) and pt.is_struct(target):
        fields = _fields(target)
        return all(
            name in fields and fits(kind, fields[name]) for name, kind in _fields(source).items()
        )
    return False


def _digits(kind: pa.DataType) -> tuple[int, int]:
    """Return the digits before and after the point that a number of this type may have."""
    if pt.is_decimal(kind):
        return kind.precision - kind.scale, kind.scale
    return _INTEGER_DIGITS[kind.bit_width], 0


def _decimal_of_both(existing: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if not all(pt.is_decimal(kind) or pt.is_integer(kind) for kind in (existing, new)):
        return None
    scale = max(_digits(existing)[1], _digits(new)[1])
    precision = max(_digits(existing)[0], _digits(new)[0]) + scale
    return pa.decimal128(precision, scale) if precision <= MAX_DECIMAL_DIGITS else None


def _nested_of_both(existing: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if pt.is_list(existing) and pt.is_list(new):
        value = widest(existing.value_type, new.value_type)
        return None if value is None else pa.list_(value)
    if pt.is_map(existing) and pt.is_map(new):
        key = widest(existing.key_type, new.key_type)
        item = widest(existing.item_type, new.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if pt.is_struct(existing) and pt.is_struct(new):
        return _struct_of_both(_fields(existing), _fields(new))
    return None


def _struct_of_both(
    existing: dict[str, pa.DataType], new: dict[str, pa.DataType]
) -> pa.DataType | None:
    folded = {name.casefold() for name in existing}
    if any(name not in existing and name.casefold() in folded for name in new):
        return None  # Delta treats names that differ only in case as one
    both: list[pa.Field] = []
    for name in dict.fromkeys((*existing, *new)):
        kinds = [kind for kind in (existing.get(name), new.get(name)) if kind is not None]
        kind = kinds[0] if len(kinds) == 1 else widest(*kinds)
        if kind is None:
            return None
        both.append(pa.field(name, kind))
    return pa.struct(both)


def _fields(kind: pa.StructType) -> dict[str, pa.DataType]:
    return {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
