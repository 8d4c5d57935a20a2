"""Masks over what is shown: what is masked stays, what is not is hidden."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.api.mask import MASK_KINDS, Masked
from datazone_dagster.items.masking import Masks
from datazone_dagster.items.shown_masks import hide
from tests.dynamodb_values import VALUES
from tests.examples import examples

SALT = "a salt of sixteen characters"


def mask(**kinds: Any) -> Masked:
    return tuple((name.replace("__", "."), kind) for name, kind in kinds.items())


@settings(max_examples=examples(150), deadline=None)
@given(value=VALUES, kind=st.sampled_from(MASK_KINDS), inner=st.booleans())
def test_what_a_mask_made_is_not_hidden_again(value: Any, kind: Any, inner: bool) -> None:
    masked: Masked = (("a.b" if inner else "a", kind),)
    item = {"a": {"M": {"b": value}} if inner else value}
    made = json.loads(Masks(masked, SALT).item(json.dumps(item).encode()))
    shown = json.loads(json.dumps(made))
    assert hide(shown, masked) is False
    assert shown == made


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        ({"S": "ann@example.org"}, "hash", {"S": "****"}),
        ({"N": "1234567890"}, "last4", {"S": "****"}),
        ({"SS": ["a", "b"]}, "hash", {"S": "****"}),
        ({"M": {"x": {"S": "y"}}}, "last4", {"S": "****"}),
        ({"S": "text"}, "null", {"NULL": True}),
        ({"B": "AAE="}, "drop", None),
    ],
)
def test_what_landed_before_the_mask_is_hidden(
    value: Any, kind: Any, shown: dict[str, Any] | None
) -> None:
    made: list[tuple[dict[str, Any], Masked, tuple[Any, ...]]] = [
        ({"a": value, "z": {"S": "1"}}, mask(a=kind), ()),
        ({"m": {"M": {"a": value}}}, mask(m__a=kind), ("m", "M")),
        ({"l": {"L": [{"M": {"a": value}}]}}, mask(l__a=kind), ("l", "L", 0, "M")),
    ]
    for item, masked, path in made:
        assert hide(item, masked) is True
        within: Any = item
        for step in path:
            within = within[step]
        assert within.get("a") == shown


def test_a_text_where_a_map_was_is_hidden_as_a_whole() -> None:
    item: dict[str, Any] = {"address": {"S": "1 High Street"}}
    assert hide(item, mask(address__street="drop"))
    assert item == {"address": {"NULL": True}}
