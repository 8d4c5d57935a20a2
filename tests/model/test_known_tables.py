"""Tables found by a tag, from one refresh to the next."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.known_tables import (
    KnownTable,
    check_required,
    dataset_ids,
    decoded,
    encoded,
    refreshed,
    remarks,
)
from datazone_dagster.model.layout import source_name
from datazone_dagster.model.tagged_table import TaggedTable

IMAGES = "NEW_AND_OLD_IMAGES"


def table(name: str, view: str | None = IMAGES, region: str = "us-west-2") -> TaggedTable:
    return TaggedTable(name, region, view)


def known(
    name: str, view: str | None = IMAGES, *, has_dataset: bool = True, is_found: bool = True
) -> KnownTable:
    return KnownTable(name, "us-west-2", view, has_dataset, is_found)


def without(*names: str) -> Callable[[str], bool]:
    return lambda name: name in names


def test_a_table_with_a_readable_stream_gets_a_dataset() -> None:
    found = [table("c", "KEYS_ONLY"), table("b", None), table("a"), table("d", "NEW_IMAGE")]
    assert refreshed((), found, without("d")) == (
        known("a"),
        known("b", None, has_dataset=False),
        known("c", "KEYS_ONLY", has_dataset=False),
    )


def test_a_dataset_stays_until_its_table_is_excluded() -> None:
    before = (known("a"), known("b"), known("c", None, has_dataset=False))
    after = refreshed(before, [table("b", None)], without())
    assert after == (known("a", is_found=False), known("b", None))
    assert refreshed(after, [table("a"), table("b")], without()) == (known("a"), known("b"))
    assert refreshed(after, [table("b")], without("a")) == (known("b"),)
    assert refreshed((known("b"),), [table("b"), table("a")], without()) == (known("a"), known("b"))


def test_each_table_that_is_not_as_it_should_be_is_named_once() -> None:
    assert remarks([known("a"), known("b")]) == []
    said = remarks(
        [
            known("closed", None, has_dataset=False),
            known("keys", "KEYS_ONLY", has_dataset=False),
            known("lost", is_found=False),
            known("gone", None, is_found=False),
            known("off", None),
        ]
    )
    assert [one.partition(":")[0] for one in said] == [
        "no stream with new images, so no dataset",
        "no longer found with the tag (they lost it, or were deleted)",
        "the stream was turned off, or shows no new images any more",
    ]
    assert ["'closed', 'keys'" in said[0], "'lost', 'gone'" in said[1], "'off'" in said[2]] == [
        True,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([], "'a' not found with the tag"),
        ([known("a", is_found=False)], "'a' not found with the tag"),
        ([known("a", None)], "'a' without a stream"),
    ],
)
def test_a_required_table_is_found_and_readable(tables: list[KnownTable], words: str) -> None:
    check_required([known("a"), known("b")], ["a"])
    with pytest.raises(DefinitionError, match=words) as caught:
        check_required(tables, ["a"])
    assert "tables of the last refresh stay" in caught.value.safe


def test_two_tables_that_give_one_name_are_named() -> None:
    tables = [known("orders-eu"), known("orders.us"), known("other", has_dataset=False)]
    assert list(dataset_ids(tables, source_name)) == ["orders_eu", "orders_us"]
    with pytest.raises(DefinitionError, match=r"'orders-eu' \(us-west-2\) and 'orders.eu'") as said:
        dataset_ids([*tables, known("orders.eu")], source_name)
    assert "Exclude one of them" in said.value.hint
    dataset_ids([*tables, known("orders.eu", None, has_dataset=False)], source_name)


def test_a_name_that_no_dataset_may_have_is_an_error_of_the_table() -> None:
    with pytest.raises(DefinitionError, match=r"table '_x' gives the dataset '_x'.*start with '_'"):
        dataset_ids([known("_x")], source_name)


def test_a_state_is_read_as_it_was_written() -> None:
    tables = (known("a"), known("b", None, has_dataset=False), known("c", is_found=False))
    assert decoded(encoded(tables), "here") == tables
    for wrong in ("", "[]", "{}", '{"format": 1, "tables": [{}]}', '{"format": 2, "tables": []}'):
        with pytest.raises(DefinitionError, match="here: the state can't be read") as caught:
            decoded(wrong, "here")
        assert "required_tables" in caught.value.hint
