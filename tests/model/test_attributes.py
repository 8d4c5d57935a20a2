"""Names of item columns: one attribute and type, one column, whatever the attributes are named."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.model.attributes import AttributeMapping, safe_name
from datazone_dagster.model.column_names import ITEM_RESTS


def hashed(name: str, identity: str) -> str:
    return f"{name}_{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def test_a_name_with_a_hash_is_the_same_in_every_table() -> None:
    assert safe_name("credit-limit", (), identity="credit-limit\0") == "credit_limit_caf4d27a"


def test_a_name_with_a_hash_that_is_taken_gets_another_hash() -> None:
    taken = ["credit_limit_CAF4D27A"]
    found = safe_name("credit-limit", taken, identity="credit-limit\0")
    assert found.startswith("credit_limit_")
    assert found.casefold() != taken[0].casefold()


def test_the_names_of_the_rest_are_never_names_of_attributes() -> None:
    mapping = AttributeMapping()
    for name in ITEM_RESTS:
        mapping = mapping.with_column(name, "S", "string")
    assert not {column.column for column in mapping} & set(ITEM_RESTS)


ATTACKS = ["a", "A", "a__n", "a-", hashed("a_", "a-\0"), hashed("a__n", "a\0N"), "_dz_rest", ""]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(ATTACKS), st.sampled_from("SN")), max_size=12))
def test_two_columns_never_have_one_name(wanted: list[tuple[str, str]]) -> None:
    mapping = AttributeMapping()
    for attribute, descriptor in dict.fromkeys(wanted):
        mapping = mapping.with_column(attribute, descriptor, "string")
    names = [column.column.casefold() for column in mapping]
    assert len(set(names)) == len(names)


def test_columns_that_another_process_has_added_stay() -> None:
    mine = AttributeMapping().with_column("a", "S", "string")
    saved = mine.with_column("b", "S", "string").with_column("c", "N", "long")
    both = mine.with_column("c", "N", "long").with_those_of(saved)
    assert [(one.attribute, one.column) for one in both] == [("a", "a"), ("c", "c"), ("b", "b")]
    other = mine.with_column("b", "N", "long").with_those_of(saved)
    assert [(one.column, one.descriptor) for one in other] == [("a", "S"), ("b", "N"), ("c", "N")]
