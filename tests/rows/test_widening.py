"""Widest types: every value of both types survives, whatever the pair."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.rows.widening import fits, widest

INTEGERS = {pa.int8(): 7, pa.int16(): 15, pa.int32(): 31, pa.int64(): 63}
SCALARS = st.one_of(
    st.sampled_from([*INTEGERS, pa.float32(), pa.float64(), pa.string(), pa.binary(), pa.bool_()]),
    st.sampled_from([pa.date32(), pa.timestamp("us"), pa.timestamp("us", tz="UTC")]),
    st.integers(1, 38).flatmap(
        lambda digits: st.integers(0, digits).map(lambda scale: pa.decimal128(digits, scale))
    ),
)
TYPES: st.SearchStrategy[pa.DataType] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.map(pa.list_),
        st.tuples(SCALARS, inner).map(lambda pair: pa.map_(*pair)),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(
            lambda fields: pa.struct(list(fields.items()))
        ),
    ),
    max_leaves=3,
)


def extremes(kind: pa.DataType) -> list[Any]:
    """Return the values of a type that are hardest to represent in another one."""
    if kind in INTEGERS:
        return [-(2 ** INTEGERS[kind]), 2 ** INTEGERS[kind] - 1]
    if pa.types.is_decimal(kind):
        return [Decimal((sign, (9,) * kind.precision, -kind.scale)) for sign in (0, 1)]
    if pa.types.is_list(kind):
        return [[value] for value in extremes(kind.value_type)]
    if pa.types.is_map(kind):
        keys, items = extremes(kind.key_type), extremes(kind.item_type)
        return [[(keys[0], item)] for item in items] + [[(key, items[0])] for key in keys]
    if pa.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return [{one.name: extremes(one.type)[at] for one in fields} for at in (0, -1)]
    plain: dict[pa.DataType, list[Any]] = {
        pa.float32(): [1.5, 3.4028234663852886e38],
        pa.float64(): [0.1, 1.7976931348623157e308],
        pa.string(): ["1", ""],
        pa.binary(): [b"\0", b""],
        pa.bool_(): [True, False],
        pa.date32(): [date(1, 1, 1), date(9999, 12, 31)],
    }
    return plain.get(kind) or [pa.scalar(at, kind).as_py() for at in (1, -1)]


def survives(values: list[Any], source: pa.DataType, target: pa.DataType) -> bool:
    original = pa.array(values, source)
    try:
        return bool(original.cast(target).cast(source, safe=False).equals(original))
    except pa.ArrowException:
        return False


@settings(deadline=None)
@given(TYPES, TYPES)
def test_the_widest_type_holds_every_value_of_both(existing: pa.DataType, new: pa.DataType) -> None:
    both = widest(existing, new)
    if both is None:
        assert not fits(existing, new)
        assert not fits(new, existing)
        return
    for kind in (existing, new):
        assert fits(kind, both)
        # Arrow requires a struct's fields on both sides to cast back, so structs are cast forward.
        if "struct" in str(both):
            pa.array(extremes(kind), kind).cast(both)
        else:
            assert survives(extremes(kind), kind, both)


@settings(deadline=None)
@given(TYPES)
def test_a_type_holds_itself(kind: pa.DataType) -> None:
    assert widest(kind, kind) == kind


@pytest.mark.parametrize(
    ("existing", "new", "both"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.int32(), pa.int64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.int32(), pa.float64(), pa.float64()),
        (pa.int64(), pa.float64(), None),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.int32(), pa.float32(), None),
        (pa.decimal128(10, 2), pa.decimal128(18, 2), pa.decimal128(18, 2)),
        (pa.decimal128(10, 2), pa.decimal128(10, 4), pa.decimal128(12, 4)),
        (pa.decimal128(38, 0), pa.decimal128(38, 9), None),
        (pa.int64(), pa.decimal128(18, 2), pa.decimal128(21, 2)),
        (pa.date32(), pa.timestamp("us"), pa.timestamp("us")),
        (pa.date32(), pa.timestamp("us", tz="UTC"), pa.timestamp("us", tz="UTC")),
        (pa.string(), pa.int64(), None),
        (pa.int64(), pa.string(), None),
        (pa.bool_(), pa.int8(), None),
        (
            pa.struct([("a", pa.int32())]),
            pa.struct([("a", pa.int64()), ("b", pa.string())]),
            pa.struct([("a", pa.int64()), ("b", pa.string())]),
        ),
        (pa.struct([("a", pa.int32())]), pa.struct([("A", pa.int32())]), None),
        (pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.int64())),
    ],
)
def test_pairs(existing: pa.DataType, new: pa.DataType, both: pa.DataType | None) -> None:
    assert widest(existing, new) == both
