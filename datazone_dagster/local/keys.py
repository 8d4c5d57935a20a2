"""Primary keys: validated against the table, encoded as bytes in the service's order."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from datazone_dagster.local.service_errors import invalid_parameter, validation
from datazone_dagster.local.values import Attribute, Item, sort_bytes

HASH_SPACE = 2**62
"""Number of hashes, 0 to HASH_SPACE - 1: all bounds fit a signed 64-bit column."""
_PARTITION_BYTES_MAX, _SORT_BYTES_MAX = 2048, 1024


class KeySchema(msgspec.Struct, frozen=True):
    """Names and types (S, N, B) of the partition key and of the sort key, if there is one."""

    partition: str
    partition_type: str
    sort: str | None = None
    sort_type: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the key attributes."""
        return (self.partition,) if self.sort is None else (self.partition, self.sort)

    def of(self, item: Item) -> Item:
        """Return the key attributes of an item."""
        return {name: item[name] for name in self.names}


class StoredKey(NamedTuple):
    """Key of a stored row: hash of the partition key, then both keys as sortable bytes."""

    hash: int
    partition: bytes
    sort: bytes


def partition_hash(partition: bytes) -> int:
    """Return the hash of a partition key, which decides its shard and its scan segment."""
    return int.from_bytes(hashlib.blake2b(partition, digest_size=8).digest(), "big") >> 2


def key_of_item(schema: KeySchema, item: Item) -> StoredKey:
    """Return the key of an item.

    Raises:
        ServiceError: A key attribute is missing, of the wrong type, empty or too long.
    """
    for name, wanted in _named_types(schema):
        attribute = item.get(name)
        if attribute is None:
            raise invalid_parameter(f"Missing the key {name} in the item")
        if wanted not in attribute:
            raise invalid_parameter(
                f"Type mismatch for key {name} expected: {wanted} actual: {next(iter(attribute))}"
            )
    return _stored(schema, item)


def key_of_request(schema: KeySchema, key: Item) -> StoredKey:
    """Return the key of a request that names exactly the key attributes."""
    types = dict(_named_types(schema))
    if key.keys() != types.keys() or any(types[name] not in key[name] for name in key):
        raise validation("The provided key element does not match the schema")
    return _stored(schema, key)


def _named_types(schema: KeySchema) -> list[tuple[str, str]]:
    named = [(schema.partition, schema.partition_type)]
    if schema.sort is not None and schema.sort_type is not None:
        named.append((schema.sort, schema.sort_type))
    return named


def _stored(schema: KeySchema, item: Item) -> StoredKey:
    partition = _key_bytes(schema.partition, item[schema.partition], _PARTITION_BYTES_MAX)
    sort = b""
    if schema.sort is not None:
        sort = _key_bytes(schema.sort, item[schema.sort], _SORT_BYTES_MAX)
    return StoredKey(partition_hash(partition), partition, sort)


def _key_bytes(name: str, attribute: Attribute, limit_bytes: int) -> bytes:
    encoded = sort_bytes(attribute)
    if not encoded:
        raise validation(
            "One or more parameter values are not valid. The AttributeValue for a key attribute "
            f"cannot contain an empty {'string' if 'S' in attribute else 'binary'} value. "
            f"Key: {name}"
        )
    if "N" not in attribute and len(encoded) > limit_bytes:
        raise invalid_parameter(
            f"Size of the key {name} has exceeded the maximum size limit of {limit_bytes} bytes"
        )
    return encoded
