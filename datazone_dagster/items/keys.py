"""Canonical keys: one string that identifies the item of a change.

A key is the list of its attributes in name order, each as `<length>:<name><type><length>:<value>`:
`{"id": {"S": "a"}, "n": {"N": "1.0"}}` is `2:idS1:a1:nN1:1`. Lengths count characters and make
the text injective for any values. Numbers are canonical, because DynamoDB treats 1, 1.0 and 1E0
as one key. Every dataset stores the string (`_dz_key`), so its format must never change.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.items.failure import DecodeFailure
from datazone_dagster.model.number import canonical_number
from datazone_dagster.text import shown

_KEY = msgspec.json.Decoder(dict[str, dict[str, str]])
_KEY_ATTRIBUTES_MAX = 2  # a partition key and a sort key
_QUOTES_PER_ATTRIBUTE = 6  # around the name, the type and the value


def canonical_key(keys_json: str) -> str:
    """Return the canonical key of one `Keys` map of a stream record.

    Args:
        keys_json: `Keys` map as DynamoDB JSON, `{"id": {"S": "a"}}`.

    Raises:
        ValueError: The keys are not one or two attributes of type S, N or B, repeat a name, or
            hold a value that is invalid for its type. The message contains no value.
    """
    try:
        keys = _KEY.decode(keys_json)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ValueError("the keys are not a map of typed values") from error
    if not 1 <= len(keys) <= _KEY_ATTRIBUTES_MAX:
        raise ValueError(f"the keys hold {len(keys)} attributes, not one or two")
    if "\\" in keys_json or keys_json.count('"') != _QUOTES_PER_ATTRIBUTE * len(keys):
        json.loads(keys_json, object_pairs_hook=_without_repeats)
    attributes = []
    for name in sorted(keys):
        typed = keys[name]
        if len(typed) != 1:
            raise ValueError(f"key attribute {name!r} does not have exactly one type")
        ((descriptor, value),) = typed.items()
        text = _canonical_value(name, descriptor, value)
        attributes.append(f"{len(name)}:{name}{descriptor}{len(text)}:{text}")
    return "".join(attributes)


def keys_json(canonical: str) -> str:
    """Return the `Keys` map of a canonical key: the inverse of `canonical_key`.

    Raises:
        ValueError: The text is not a canonical key.
    """
    keys: dict[str, dict[str, str]] = {}
    rest = canonical
    while rest:
        name, rest = _counted(rest)
        descriptor, rest = rest[:1], rest[1:]
        value, rest = _counted(rest)
        keys[name] = {descriptor: value}
    text = json.dumps(keys, ensure_ascii=False, separators=(",", ":"))
    if canonical_key(text) != canonical:
        raise ValueError("the text is not a canonical key")
    return text


def shown_key(canonical: str) -> str:
    """Return a key for an error: as DynamoDB JSON, which the commands take; shortened, escaped."""
    try:
        return shown(keys_json(canonical))
    except ValueError:
        return shown(canonical)


def _counted(text: str) -> tuple[str, str]:
    """Split a text that begins with its length from what follows."""
    length, colon, rest = text.partition(":")
    if not colon or not length.isdecimal() or int(length) > len(rest):
        raise ValueError("the text is not a canonical key")
    return rest[: int(length)], rest[int(length) :]


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse repeated names: the decoder would take the last one, but the key is ambiguous."""
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("the keys repeat a name")
    return names


def _canonical_value(name: str, descriptor: str, value: str) -> str:
    if descriptor == "S":
        return value
    if descriptor == "N":
        try:
            return canonical_number(value)
        except ValueError as error:
            raise ValueError(f"key attribute {name!r} holds {error}") from error
    if descriptor == "B":
        try:
            return base64.b64encode(base64.b64decode(value, validate=True)).decode("ascii")
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"key attribute {name!r} holds binary that is not base64") from error
    raise ValueError(f"key attribute {name!r} has type {descriptor!r}, not S, N or B")


def key_column(
    keys: pa.ChunkedArray[pa.StringScalar] | pa.Array[pa.StringScalar],
) -> tuple[pa.StringArray, list[DecodeFailure]]:
    """Return the canonical key of every row.

    Arrow builds the keys that have the shape of the chunk's first key and no escapes. Python
    decodes any other key, once per distinct text. Both give the same string.

    Args:
        keys: `Keys` maps as DynamoDB JSON text.

    Returns:
        One key per row, null for a row that failed, and the failures in row order. Bad data
        never raises.
    """
    column = _one_array(keys)
    plain = _plain_keys(column)
    if plain is None:
        return _decoded(column)
    if plain.null_count == 0:
        return plain, []
    others = pc.if_else(pc.is_valid(plain), pa.scalar(None, pa.string()), column)
    decoded, failures = _decoded(cast("pa.StringArray", others), skip=pc.is_valid(plain))
    return cast("pa.StringArray", pc.coalesce(plain, decoded)), failures


def _one_array(
    keys: pa.ChunkedArray[pa.StringScalar] | pa.Array[pa.StringScalar],
) -> pa.StringArray:
    array = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    if isinstance(array, pa.ChunkedArray):  # beyond 2 GiB of keys, Arrow returns several chunks
        raise ValueError("The keys of one chunk exceed 2 GiB; apply smaller chunks.")
    return cast("pa.StringArray", array.cast(pa.string()))


def _decoded(
    column: pa.StringArray, skip: pa.BooleanArray | None = None
) -> tuple[pa.StringArray, list[DecodeFailure]]:
    encoded = column.dictionary_encode()
    canonical: list[str | None] = []
    reasons: dict[int, str] = {}
    for index, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            canonical.append(canonical_key(text))
        except ValueError as error:
            canonical.append(None)
            reasons[index] = str(error)
    result = pa.array(canonical, pa.string()).take(encoded.indices)
    failed = pc.is_null(result)
    if skip is not None:
        failed = pc.and_not(failed, skip)
    failures = []
    for row in pc.indices_nonzero(failed).to_pylist():
        index = encoded.indices[row].as_py()
        failures.append(
            DecodeFailure(row, "the record has no keys" if index is None else reasons[index])
        )
    return cast("pa.StringArray", result), failures


# A string without quotes and escapes, and an integer whose text is canonical.
_PLAIN = {"S": r'[^"\\\x00-\x1f]*', "N": r"0|-?[1-9][0-9]{0,37}"}
_FIRST_PRINTED = 0x20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


def _plain_keys(column: pa.StringArray) -> pa.StringArray | None:
    """Return the keys that have the first key's shape, else null; None if there is no shape.

    The pattern matches the complete JSON, so it captures the same values as the decoder.
    """
    shape = _shape(column)
    if shape is None:
        return None
    values = _bare_texts(column, shape)
    if values is not None:
        ((name, descriptor),) = shape
        return _joined([(f"{len(name)}:{name}{descriptor}", values)])
    groups = [
        rf'\s*"{re.escape(name)}"\s*:\s*\{{\s*"{descriptor}"\s*:\s*'
        rf'"(?P<v{position}>{_PLAIN[descriptor]})"\s*\}}\s*'
        for position, (name, descriptor) in enumerate(shape)
    ]
    found = pc.extract_regex(column, rf"^\s*\{{{','.join(groups)}\}}\s*$")
    if found.null_count == len(found):
        return None
    return _joined(
        [
            # struct_field keeps the nulls of the rows; flatten in older versions does not
            (f"{len(name)}:{name}{descriptor}", pc.struct_field(found, f"v{position}"))
            for position, (name, descriptor) in sorted(
                enumerate(shape), key=lambda item: item[1][0]
            )
        ]
    )


def _joined(attributes: list[tuple[str, pa.StringArray]]) -> pa.StringArray:
    """Join the prefix and the values of each attribute to keys."""
    pieces: list[pa.Array[pa.StringScalar] | str] = []
    for prefix, values in attributes:
        pieces += [prefix, pc.utf8_length(values).cast(pa.string()), ":", values]
    return cast("pa.StringArray", pc.binary_join_element_wise(*pieces, ""))


def _bare_texts(column: pa.StringArray, shape: list[tuple[str, str]]) -> pa.StringArray | None:
    """Return the values of keys of one S attribute, if all are in the service's own spelling.

    That spelling, which nearly every key has, contains no spaces. None if any key differs from
    it or contains an escape.
    """
    if [descriptor for _, descriptor in shape] != ["S"] or column.null_count:
        return None
    before, after = f'{{"{shape[0][0]}":{{"S":"', '"}}'
    alike = pc.and_(pc.starts_with(column, before), pc.ends_with(column, after))
    lengths = pc.binary_length(column)
    if not pc.all(pc.and_(alike, pc.greater_equal(lengths, len(before) + len(after)))).as_py():
        return None
    values = pc.binary_slice(column.cast(pa.binary()), len(before), -len(after))
    _, offsets, data = values.buffers()
    if data is not None:
        bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
        text = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
        if np.any((text < _FIRST_PRINTED) | (text == ord('"')) | (text == ord("\\"))):
            return None
    return cast("pa.StringArray", values.cast(pa.string()))


def _shape(column: pa.StringArray) -> list[tuple[str, str]] | None:
    """Return names and types of the first key, in its order, None if Arrow can't build its keys."""
    first = next((text for text in column.slice(0, 16).to_pylist() if text is not None), None)
    if first is None:
        return None
    try:
        keys = _KEY.decode(first)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    shape = [(name, next(iter(typed))) for name, typed in keys.items() if len(typed) == 1]
    known = all(_PLAIN_NAME.fullmatch(name) and descriptor in _PLAIN for name, descriptor in shape)
    if not known or len(shape) != len(keys) or not 1 <= len(shape) <= _KEY_ATTRIBUTES_MAX:
        return None
    return shape
