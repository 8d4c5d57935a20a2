"""The column `_dz_rest`: values that have no column of their own, as one JSON object a row.

Each part holds members of that object (`"a":1,"b":[]`), null where a row has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.frame.plain import NotDynamoDBJsonError, decoded, plain_value

HasColumn = Callable[[str, str], bool]
"""Whether values of an attribute (first) with a descriptor (second) have a column."""

_ENCODE = msgspec.json.Encoder(order="deterministic").encode
_BRACES = slice(1, -1)


def members_without_column(has_column: HasColumn, text: str) -> str | None:
    """Return the members for the values of an item that have no column; NULLs are left out.

    Raises:
        NotDynamoDBJsonError: The item is not DynamoDB JSON.
    """
    item = decoded(text)
    if not isinstance(item, dict):
        raise NotDynamoDBJsonError("an item that is not a JSON object")
    rest = {
        name: plain_value(typed)
        for name, typed in item.items()
        if not (isinstance(typed, dict) and all(has_column(name, kind) for kind in typed))
    }
    rest = {name: value for name, value in rest.items() if value is not None}
    return _ENCODE(rest).decode()[_BRACES] or None


def empty_members(attribute: str, descriptor: str, empty: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the members for an empty list or map, in the rows where `empty` is true."""
    member = f"{json.dumps(attribute, ensure_ascii=False)}:{'[]' if descriptor == 'L' else '{}'}"
    return pc.if_else(pc.fill_null(empty, False), pa.scalar(member), pa.scalar(None, pa.string()))


def named_members(attribute: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the members for values of one attribute in JSON."""
    return pc.binary_join_element_wise(json.dumps(attribute, ensure_ascii=False), values, ":")


def joined(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return the JSON objects with all members of the parts, null for rows without any."""
    # The first text is in every row: Arrow 26 leaves out the rows in which every text is null.
    members = pc.binary_join_element_wise("", *parts, ",", null_handling="skip")
    objects = pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(members, 1), "}", "")
    return pc.if_else(pc.equal(members, ""), pa.scalar(None, pa.string()), objects)
