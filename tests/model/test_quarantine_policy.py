"""The quarantine policy: reasons that stored records carry, and the decisions of the stages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.model.contract import SCHEMA_POLICIES, Contract
from datazone_dagster.model.quarantine_policy import (
    CONTRACT_REFUSES,
    FUNCTION_FAILED,
    HOPELESS_AFTER,
    UNREADABLE_IMAGE,
    WAITS,
    Failure,
    blocked_after,
    blocks_later_changes,
    failed_reason,
    image_reason,
    is_hopeless,
    is_over_limit,
    is_quarantined,
    keeps_order,
    mistyped_key_reason,
    needs_every_column,
    waits,
)


def test_reasons_are_as_in_quarantines_on_disk() -> None:
    """Later runs recognise stored reasons by their text."""
    assert FUNCTION_FAILED == "the function failed: "
    assert CONTRACT_REFUSES == "the contract refuses it: "
    assert WAITS == "it waits behind an earlier change of its key"
    assert UNREADABLE_IMAGE == "an image holds a value that is not of its type"
    assert image_reason("new image", "an unknown type") == "the new image has an unknown type"
    assert mistyped_key_reason("id") == "the key 'id' is of another type than its column"


def test_the_reason_of_a_failure_is_one_line_of_bounded_length() -> None:
    assert failed_reason("ValueError:  total\n -2 ") == "the function failed: ValueError: total -2"
    assert len(failed_reason("x " * 5_000)) == len(FUNCTION_FAILED) + 500
    assert failed_reason(f"{'x' * 10_000} is no number").endswith("xx is no number")


@pytest.mark.parametrize(
    ("failure", "on_error", "quarantined"),
    [
        (Failure.IMAGE, "fail", True),
        (Failure.IMAGE, "quarantine", True),
        (Failure.CHANGES, "fail", False),
        (Failure.CHANGES, "quarantine", True),
        (Failure.CODE, "fail", False),
        (Failure.CODE, "quarantine", False),
    ],
)
def test_what_is_quarantined_and_what_fails_the_run(
    failure: Failure, on_error: str, quarantined: bool
) -> None:
    assert is_quarantined(failure, on_error) is quarantined


def test_a_search_without_a_passing_call_is_hopeless() -> None:
    assert is_hopeless(HOPELESS_AFTER, any_passed=False)
    assert not is_hopeless(HOPELESS_AFTER - 1, any_passed=False)
    assert not is_hopeless(10 * HOPELESS_AFTER, any_passed=True)


def test_the_limit_is_a_share_of_the_keys_but_a_few_are_always_quarantined() -> None:
    assert not is_over_limit(HOPELESS_AFTER - 1, HOPELESS_AFTER, 0.01)
    assert is_over_limit(HOPELESS_AFTER, HOPELESS_AFTER, 0.01)
    assert not is_over_limit(100, 1000, 0.1)
    assert is_over_limit(101, 1000, 0.1)
    assert not is_over_limit(1000, 1000, 1.0)


@pytest.mark.parametrize("policy", SCHEMA_POLICIES)
def test_a_contract_may_refuse_changes_if_one_column_is_quarantined(policy: str) -> None:
    contract = Contract((("total", policy), ("*", "evolve")))  # type: ignore[arg-type] # any of them
    assert contract.may_refuse is (policy == "quarantine")


def test_all_columns_are_read_if_accepted_changes_may_be_quarantined() -> None:
    assert needs_every_column(contract_may_refuse=True, some_wait=False)
    assert needs_every_column(contract_may_refuse=False, some_wait=True)
    assert not needs_every_column(contract_may_refuse=False, some_wait=False)


def test_only_an_append_table_keeps_the_order_of_changes() -> None:
    assert [mode for mode in ("merge", "append", "history") if keeps_order(mode)] == ["append"]


@pytest.mark.parametrize(
    ("reason", "blocks"),
    [
        (failed_reason("ValueError"), True),
        (CONTRACT_REFUSES + "column 'total' is null", True),
        (WAITS, True),
        (f"{WAITS}, it seems", False),
        (UNREADABLE_IMAGE, False),
        ("the keys repeat a name", False),
        (None, False),
    ],
)
def test_later_changes_wait_behind_what_a_redrive_may_append(
    reason: str | None, blocks: bool
) -> None:
    assert blocks_later_changes(reason) is blocks


VERSIONS = st.integers(1, 9).map(lambda number: f"1{number:040}")
KEYS = st.sampled_from("abc")


@given(waiting=st.sets(KEYS), blocking=st.lists(st.tuples(KEYS, VERSIONS)), version=VERSIONS)
def test_a_change_waits_behind_every_earlier_one_that_is_quarantined(
    waiting: set[str], blocking: list[tuple[str, str]], version: str
) -> None:
    after = blocked_after(waiting, blocking)
    for key in "abc":
        earlier = [one for one in blocking if one[0] == key and one[1] < version]
        assert waits(key, version, after) == (key in waiting or bool(earlier))
