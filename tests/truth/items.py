"""Histories of items for Hypothesis, and the attributes that functions of these tests read."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

TYPED: list[dict[str, Any]] = [
    *({"S": text} for text in ("", "a", "b", "null", "1", 'é😀"\\\n\u0000', "x" * 300)),
    *({"N": text} for text in ("1", "-7", "2.5", "9223372036854775807", "9223372036854775808")),
    *({"N": text} for text in ("9" * 38, "12345678901234567890.123456789012345678", "9.99E+125")),
    *({"BOOL": True}, {"BOOL": False}, {"NULL": True}, {"B": ""}, {"B": "AAE="}),
    *({"SS": ["b", "a"]}, {"SS": ["a"]}, {"NS": ["2", "-1.5", "10"]}, {"NS": ["3"]}),
    *({"BS": ["AQ==", "AAE="]}, {"L": []}, {"M": {}}, {"L": [{"M": {}}, {"L": []}]}),
    *({"L": [{"N": "1"}, {"S": "x"}, {"NULL": True}]}, {"L": [{"S": "y"}]}),
    *({"M": {"b": {"N": "1.5"}, "a": {"S": "q"}}}, {"M": {"a": {"S": "r"}}}),
    {"M": {"B": {"SS": ["z", "y"]}, "b": {"L": [{"M": {'x."y': {"BOOL": False}}}]}}},
]
"""Values of every type. No two of them are equal, so a number has one notation only."""

NAMES = ["a", "A", "tags", "order id", 'x."y', "select", "é", "_dz_key", "n" * 230]

ITEMS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(TYPED), max_size=6)
"""Attributes of an item, without its key."""

KEYS = st.sampled_from(["k", "K", 'é"'])
OPERATIONS = st.tuples(KEYS, ITEMS | st.sampled_from(["delete", "expire"]))
"""A key, and the attributes that it is put with; or a delete, by a user or by time to live."""
