"""DynamoDB JSON in its plain form: `{"M":{"n":{"N":"1.50"}}}` becomes `{"n":1.50}`.

Numbers keep every digit, sets become sorted lists, binary stays base64 text, names are
sorted, so equal values give equal text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_ENCODE = msgspec.json.Encoder(order="deterministic").encode


class NotDynamoDBJsonError(ValueError):
    """Text that is JSON, but not of DynamoDB's form."""


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


def plain_texts(
    texts: pa.ChunkedArray[pa.StringScalar], read: Callable[[Any], Any]
) -> tuple[pa.ChunkedArray[pa.StringScalar], pa.ChunkedArray[pa.StringScalar]]:
    """Each text in its plain form, decoded once per distinct text.

    Args:
        texts: DynamoDB JSON.
        read: `plain_map` or `plain_list`.

    Returns:
        The plain texts, and the original ones where they have no plain form.
    """
    plain, refused = [], []
    for chunk in texts.chunks:
        encoded = chunk.dictionary_encode()
        done: list[str | None] = []
        for text in encoded.dictionary.to_pylist():
            try:
                done.append(_ENCODE(read(msgspec.json.decode(text))).decode())
            except (msgspec.DecodeError, NotDynamoDBJsonError, RecursionError):
                done.append(None)
        left = [t if p is None else None for t, p in zip(encoded.dictionary, done, strict=True)]
        plain.append(pa.array(done, pa.string()).take(encoded.indices))
        refused.append(pa.array(left, pa.string()).take(encoded.indices))
    return pa.chunked_array(plain, pa.string()), pa.chunked_array(refused, pa.string())
