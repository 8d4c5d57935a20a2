"""Masks over change records: masked values are removed before anything is written.

Images are parsed only along the masked paths; all other content stays the bytes that arrived. A
record whose images can't be parsed is quarantined without its text, because it is unknown which
parts of that text the masks would have covered.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.api.mask import (
    HIDDEN,
    SALT_VARIABLE,
    SHOWN_CHARACTERS,
    Masked,
    MaskKind,
    Tree,
    mask_tree,
)
from datazone_dagster.errors import MaskError
from datazone_dagster.model.number import canonical_number
from datazone_dagster.model.record import ChangeRecord, ChangeRecords, MalformedRecord

MIN_SALT_CHARACTERS = 16

_SHORTEST_SHOWN = 8
"""Minimum length to show any characters: of a shorter value, four would be most of it."""

_decode_map = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_SETS = {"SS": "S", "NS": "N", "BS": "B"}

_FINGERPRINT_OF = b"datazone_dagster: which salt is this"


class _UnreadableError(ValueError):
    """An image that can't be parsed."""


class Masks:
    """The masks of one source.

    Args:
        mask: Pairs of a path and its kind of mask.
        salt: Key of the hashes; None if nothing is hashed.
    """

    def __init__(self, mask: Masked, salt: str | None) -> None:
        self._tree = mask_tree(mask)
        self._salt = salt.encode() if salt is not None else None
        self.masked_whole: set[str] = set()
        """Attributes on a masked path that were neither map nor list, and are null now."""
        self._withheld_key = self._salt or secrets.token_bytes(16)

    @classmethod
    def of(
        cls, source: DynamoDBSource, environment: Mapping[str, str] = os.environ
    ) -> Masks | None:
        """Return the masks of a source, None if it has none.

        Raises:
            MaskError: An attribute is hashed, but the salt is missing or too short.
        """
        if not source.masked:
            return None
        hashed = [path for path, kind in source.masked if kind == "hash"]
        salt = environment.get(SALT_VARIABLE, "") if hashed else None
        if salt is not None and len(salt) < MIN_SALT_CHARACTERS:
            what = f"has only {len(salt)} characters" if salt else "is not set"
            raise MaskError(
                f"Source {source.name!r} hashes {', '.join(map(repr, hashed))}, but the "
                f"environment variable {SALT_VARIABLE} {what}.",
                safe="Nothing was read; DynamoDB keeps the changes for 24 hours.",
                hint=f"Set it to a secret of {MIN_SALT_CHARACTERS} characters or more wherever "
                "sensors run, and never change it: a new salt gives equal values new hashes.",
            )
        return cls(source.masked, salt)

    @property
    def salt_fingerprint(self) -> str | None:
        """Text that tells one salt from another and does not reveal it; None if nothing is hashed.

        The change log stores it, so that a changed salt is noticed.
        """
        if self._salt is None:
            return None
        return hmac.new(self._salt, _FINGERPRINT_OF, hashlib.sha256).hexdigest()[:32]

    def records(self, records: ChangeRecords) -> tuple[ChangeRecords, list[MalformedRecord]]:
        """Return records with masked keys and images, and the records that can't be masked.

        Raises:
            MaskError: A key attribute has a mask other than "hash".
        """
        masked: list[ChangeRecord] = []
        refused: list[MalformedRecord] = []
        for record in records:
            try:
                masked.append(self._record(record))
            except _UnreadableError as error:
                refused.append(
                    self.withheld(
                        MalformedRecord(
                            b"".join(
                                (record.keys, record.new_image or b"", record.old_image or b"")
                            ),
                            f"an image can't be masked: {error}",
                            record.sequence_number,
                        )
                    )
                )
        return ChangeRecords.of(masked), refused

    def withheld(self, record: MalformedRecord) -> MalformedRecord:
        """Replace the text of a malformed record by its length and its digest."""
        digest = hmac.new(self._withheld_key, record.raw, hashlib.sha256).hexdigest()[:32]
        raw = {"withheld": digest, "bytes": len(record.raw)}
        return MalformedRecord(
            msgspec.json.encode(raw),
            f"{record.reason} (its text is withheld: this source is masked)",
            record.sequence_number,
        )

    def item(self, image: bytes) -> bytes:
        """Mask an item or an image of one.

        Raises:
            ValueError: The image can't be parsed.
        """
        return self._map(image, self._tree)

    def keys(self, keys: bytes) -> bytes:
        """Mask the key attributes of a record.

        Raises:
            MaskError: A key attribute has a mask other than "hash".
            ValueError: The keys can't be parsed.
        """
        for name in _attributes(keys):
            kind = self._tree.get(name)
            if isinstance(kind, str) and kind != "hash":
                raise MaskError(
                    f"The mask {name!r}: {kind!r} is on an attribute of the table's key.",
                    safe="Nothing was written; DynamoDB keeps the changes for 24 hours.",
                    hint="A key attribute identifies its item, which only 'hash' preserves.",
                )
        return self._map(keys, self._tree)

    def _record(self, record: ChangeRecord) -> ChangeRecord:
        return record._replace(
            keys=self.keys(record.keys),
            new_image=None if record.new_image is None else self.item(record.new_image),
            old_image=None if record.old_image is None else self.item(record.old_image),
        )

    def _map(self, raw: bytes, tree: Tree) -> bytes:
        attributes = _attributes(raw)
        masked = [name for name in tree if name in attributes]
        if not masked:
            return raw
        for name in masked:
            value = self._value(attributes[name], tree[name], name)
            if value is None:
                del attributes[name]
            else:
                attributes[name] = value
        return _json_object(attributes)

    def _value(self, raw: bytes, rule: MaskKind | Tree, name: str) -> bytes | None:
        """Mask a typed value; None if the mask drops it."""
        if rule == "drop":
            return None
        if rule == "null":
            return b'{"NULL":true}'
        typed = _attributes(raw)
        if len(typed) != 1:
            raise _UnreadableError("a value does not have exactly one type")
        ((descriptor, payload),) = typed.items()
        if isinstance(rule, dict):
            return self._within(raw, descriptor, payload, rule, name)
        if descriptor == "NULL":
            return raw
        if descriptor in _SETS:
            kind = _SETS[descriptor]
            texts = {self._text(kind, _json(element), rule) for element in _elements(payload)}
            return _encoded({"SS": sorted(texts)})
        return _encoded({"S": self._text(descriptor, _json(payload), rule)})

    def _within(self, raw: bytes, descriptor: str, payload: bytes, tree: Tree, name: str) -> bytes:
        """Mask the attributes below a value; one that has none is masked as a whole.

        A text in place of a map may hold what the masked attribute of the map held.
        """
        if descriptor == "M":
            return b'{"M":%b}' % self._map(payload, tree)
        if descriptor == "L":
            elements = (self._value(element, tree, name) for element in _elements(payload))
            return b'{"L":[%b]}' % b",".join(one for one in elements if one is not None)
        if descriptor == "NULL":
            return raw
        self.masked_whole.add(name)
        return b'{"NULL":true}'

    def _text(self, descriptor: str, value: object, kind: str) -> str:
        if kind == "last4":
            plain = value if descriptor in ("S", "N") and isinstance(value, str) else ""
            return HIDDEN + (plain[-SHOWN_CHARACTERS:] if len(plain) >= _SHORTEST_SHOWN else "")
        assert self._salt is not None  # `of` requires a salt if anything is hashed
        return hmac.new(self._salt, _hashed_bytes(descriptor, value), hashlib.sha256).hexdigest()


def _hashed_bytes(descriptor: str, value: object) -> bytes:
    """Return the bytes to hash, equal for all spellings of a value."""
    if isinstance(value, str):
        if descriptor == "N":
            try:
                return canonical_number(value).encode()
            except ValueError:
                pass  # not a number: hash its text, which becomes just as unreadable
        if descriptor == "B":
            try:
                return base64.b64decode(value, validate=True)
            except ValueError:
                pass
        return value.encode("utf-8", "surrogatepass")
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _attributes(raw: bytes) -> dict[str, bytes]:
    """Return an object's members as raw JSON; the last of equal names wins, as in every parser."""
    try:
        return {name: bytes(value) for name, value in _decode_map(raw).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _json(raw)
    if not isinstance(found, dict):
        raise _UnreadableError("it is not an object")
    return {name: _encoded(value) for name, value in found.items()}


def _elements(raw: bytes) -> list[bytes]:
    try:
        return [bytes(element) for element in _decode_list(raw)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _json(raw)
    if not isinstance(found, list):
        raise _UnreadableError("a list or a set is not an array")
    return [_encoded(element) for element in found]


def _json(raw: bytes) -> Any:
    """Parse with the standard library, which accepts lone surrogate escapes; msgspec does not."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        # Not the error's own text: it could contain a masked value.
        raise _UnreadableError("it is not JSON") from None


def _json_object(members: Mapping[str, bytes]) -> bytes:
    return b"{%b}" % b",".join(_encoded(name) + b":" + value for name, value in members.items())


def _encoded(value: object) -> bytes:
    # json, not msgspec: texts may contain lone surrogates.
    return json.dumps(value).encode()
