"""DynamoDB JSON in its plain form: `{"M":{"n":{"N":"1.50"}}}` becomes `{"n":1.50}`.

Numbers keep every digit, sets become sorted lists, binary stays base64 text, names are
sorted, so equal values give equal text.
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
    """Text that is not JSON of DynamoDB's form, or that says something twice."""


def decoded(text: str) -> Any:
    """The JSON of a text.

    Raises:
        NotDynamoDBJsonError: It is none, nests without end, or repeats a name: then it can't be
            known which value was meant.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except (json.JSONDecodeError, RecursionError) as error:
        raise NotDynamoDBJsonError("no JSON") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise NotDynamoDBJsonError("a name that is there twice")
    return names


def item_problem(text: str) -> str | None:
    """What is wrong with the JSON of an item, None if it can be read."""
    try:
        plain_text(plain_map, text)
    except NotDynamoDBJsonError as error:
        return str(error)
    return None


def plain_text(read: Callable[[Any], Any], text: str) -> str:
    """DynamoDB JSON as plain JSON.

    Args:
        read: `plain_map` or `plain_list`, what the text holds.
        text: DynamoDB JSON.

    Raises:
        NotDynamoDBJsonError: It is none.
    """
    try:
        return _ENCODE(read(decoded(text))).decode()
    except RecursionError as error:
        raise NotDynamoDBJsonError("nesting without end") from error
    except UnicodeEncodeError as error:
        raise NotDynamoDBJsonError("a text that is not Unicode") from error


def rest_text(known: frozenset[str], text: str) -> str | None:
    """The attributes of an item that have no column, as plain JSON. A NULL is left out.

    Raises:
        NotDynamoDBJsonError: The item is no DynamoDB JSON.
    """
    item = plain_map(decoded(text))
    rest = {name: value for name, value in item.items() if name not in known and value is not None}
    return _ENCODE(rest).decode() if rest else None


def plain_value(value: Any) -> Any:
    """A typed value (`{"S": "x"}`) as what JSON has for it.

    Raises:
        NotDynamoDBJsonError: It does not have exactly one known type, or its value is of another.
    """
    if not isinstance(value, dict) or len(value) != 1:
        raise NotDynamoDBJsonError("a value without exactly one type")
    ((descriptor, inner),) = value.items()
    read = _READ.get(descriptor)
    if read is None:
        raise NotDynamoDBJsonError("an unknown type")
    return read(inner)


def plain_map(value: Any) -> dict[str, Any]:
    """An item, or the inside of an `M`, as a plain object."""
    if not isinstance(value, dict):
        raise NotDynamoDBJsonError("a map that is no object")
    return {name: plain_value(inner) for name, inner in value.items()}


def plain_list(value: Any) -> list[Any]:
    """The inside of an `L` as a plain list."""
    if not isinstance(value, list):
        raise NotDynamoDBJsonError("a list that is no array")
    return [plain_value(inner) for inner in value]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise NotDynamoDBJsonError("a text that is no string")
    return value


def _number(value: Any) -> msgspec.Raw:
    if not isinstance(value, str) or not _JSON_NUMBER.fullmatch(value):
        raise NotDynamoDBJsonError("a number that is none")
    return msgspec.Raw(value.encode())


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise NotDynamoDBJsonError("a boolean that is none")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise NotDynamoDBJsonError("a set that is no array")
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
