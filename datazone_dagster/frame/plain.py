"""Plain form of DynamoDB JSON: `{"M":{"n":{"N":"1.50"}}}` becomes `{"n":1.50}`.

Numbers keep every digit, sets become sorted lists, binary stays base64 text, and names are
sorted. Equal values therefore give equal text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_ENCODE = msgspec.json.Encoder(order="deterministic").encode


class NotDynamoDBJsonError(ValueError):
    """Text that is not DynamoDB JSON, or that repeats a name."""


def decoded(text: str) -> Any:
    """Parse JSON text.

    Raises:
        NotDynamoDBJsonError: The text is not JSON, is nested too deeply, or repeats a name,
            which leaves open which of the values was meant.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except (json.JSONDecodeError, RecursionError) as error:
        raise NotDynamoDBJsonError("text that is not JSON") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise NotDynamoDBJsonError("a repeated name")
    return names


def item_problem(text: str) -> str | None:
    """Return what is wrong with the JSON of an item, None if the item can be read."""
    try:
        plain_text(plain_map, text)
    except NotDynamoDBJsonError as error:
        return str(error)
    return None


def plain_text(read: Callable[[Any], Any], text: str) -> str:
    """Convert DynamoDB JSON to plain JSON.

    Args:
        read: `plain_map` or `plain_list`, whichever fits the text.
        text: DynamoDB JSON.

    Raises:
        NotDynamoDBJsonError: The text is not DynamoDB JSON.
    """
    try:
        return _ENCODE(read(decoded(text))).decode()
    except RecursionError as error:
        raise NotDynamoDBJsonError("nesting that is too deep") from error
    except UnicodeEncodeError as error:
        raise NotDynamoDBJsonError("text that is not Unicode") from error


def plain_value(value: Any) -> Any:
    """Convert a typed value (`{"S": "x"}`) to its plain JSON value.

    Raises:
        NotDynamoDBJsonError: The value does not have exactly one known type, or does not match
            its type.
    """
    if not isinstance(value, dict) or len(value) != 1:
        raise NotDynamoDBJsonError("a value without exactly one type")
    ((descriptor, inner),) = value.items()
    read = _READ.get(descriptor)
    if read is None:
        raise NotDynamoDBJsonError("an unknown type")
    return read(inner)


def plain_map(value: Any) -> dict[str, Any]:
    """Convert an item, or the content of an `M`, to a plain object."""
    if not isinstance(value, dict):
        raise NotDynamoDBJsonError("a map that is not a JSON object")
    return {name: plain_value(inner) for name, inner in value.items()}


def plain_list(value: Any) -> list[Any]:
    """Convert the content of an `L` to a plain list."""
    if not isinstance(value, list):
        raise NotDynamoDBJsonError("a list that is not a JSON array")
    return [plain_value(inner) for inner in value]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise NotDynamoDBJsonError("a value that is not a JSON string")
    return value


def _number(value: Any) -> msgspec.Raw:
    if not isinstance(value, str) or not _JSON_NUMBER.fullmatch(value):
        raise NotDynamoDBJsonError("a value that is not a number")
    return msgspec.Raw(value.encode())


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise NotDynamoDBJsonError("a value that is not a JSON boolean")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise NotDynamoDBJsonError("a set that is not a JSON array")
    return sorted(_text(inner) for inner in value)


def _numbers(value: Any) -> list[msgspec.Raw]:
    texts = _texts(value)
    raws = {text: _number(text) for text in texts}
    return [raws[text] for text in sorted(texts, key=Decimal)]


_READ: dict[str, Callable[[Any], Any]] = {
    "S": _text,
    "N": _number,
    "B": _text,
    "BOOL": _boolean,
    "NULL": lambda _: None,
    "SS": _texts,
    "NS": _numbers,
    "BS": _texts,
    "L": plain_list,
    "M": plain_map,
}
