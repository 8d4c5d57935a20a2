"""What is known of every function that DuckDB has, macros included."""

from __future__ import annotations

import pytest

from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.key_scope import is_aggregate
from datazone_dagster.frame.row_wise import is_row_wise
from datazone_dagster.frame.sql_functions import functions_called, known_functions, macro_trees
from datazone_dagster.frame.volatile import is_volatile
from tests.frame.chunks import chunk


def test_something_is_known_of_every_function() -> None:
    """Some macros are defined by the function of their own name: `current_schema()` is."""
    for name in known_functions():
        call = {"class": "FUNCTION", "type": "FUNCTION", "function_name": name, "children": []}
        assert {is_aggregate(name), is_row_wise([call]), is_volatile(call)} <= {True, False}


@pytest.mark.parametrize("name", ["nullif", "NULLIF", "list_sum"])
def test_a_macro_is_what_it_is_made_of(name: str) -> None:
    assert [one.kind for one in functions_called(name)] == ["macro"]
    assert macro_trees(name)


def test_a_name_without_a_function_has_none() -> None:
    assert not functions_called("no_such_function")
    assert not macro_trees("no_such_function")


def test_a_macro_of_its_own_name_can_be_called() -> None:
    frame = Frame.of_changes(chunk(({"id": {"S": "1"}}, None)))
    assert frame.select("current_schema() as s").arrow()["s"].to_pylist() == ["main"]
