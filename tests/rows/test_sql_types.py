"""A type as an error names it can be copied into a cast of the function."""

from __future__ import annotations

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.rows.sql_types import sql_type
from tests.examples import examples

SCALARS = st.sampled_from(
    [
        *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
        *(pa.string(), pa.binary(), pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC")),
        *(pa.decimal128(9, 2), pa.decimal128(38, 18)),
    ]
)
NAMES = st.sampled_from(["a", "A b", 'q"q', "é", "select"])


def nested(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    return st.one_of(
        inner.map(pa.list_),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
        st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(
            lambda kinds: pa.struct(list(kinds.items()))
        ),
    )


def without_names_of_elements(kind: pa.DataType) -> pa.DataType:
    """Return the type with Arrow's own names of list elements, and times in UTC."""
    if pa.types.is_list(kind):
        return pa.list_(without_names_of_elements(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(*map(without_names_of_elements, (kind.key_type, kind.item_type)))
    if pa.types.is_struct(kind):
        return pa.struct([(one.name, without_names_of_elements(one.type)) for one in kind])
    return pa.timestamp("us", "UTC") if pa.types.is_timestamp(kind) and kind.tz else kind


@settings(max_examples=examples(60), deadline=None)
@given(st.recursive(SCALARS, nested, max_leaves=4))
def test_a_cast_to_the_name_gives_the_type(kind: pa.DataType) -> None:
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT CAST(NULL AS {sql_type(kind)}) AS x").to_arrow_table()
    assert without_names_of_elements(found.schema.field("x").type) == kind
