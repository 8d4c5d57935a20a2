"""Records of a scripted stream, and the names in them, in the form of the service."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from datazone_dagster.model.record import ChangeRecord, MalformedRecord

REGION = "eu-west-1"
BOTH_IMAGES = "NEW_AND_OLD_IMAGES"
VIEW_TYPES = (BOTH_IMAGES, "NEW_IMAGE", "OLD_IMAGE", "KEYS_ONLY")
NEW_IMAGE_VIEWS = (BOTH_IMAGES, "NEW_IMAGE")
_OLD_IMAGE_VIEWS = (BOTH_IMAGES, "OLD_IMAGE")

Item = Mapping[str, Any]
"""Item in DynamoDB JSON: `{"orderId": {"S": "1"}}`."""


def table_arn(table_name: str) -> str:
    """Return the ARN of a table."""
    return f"arn:aws:dynamodb:{REGION}:000000000000:table/{table_name}"


def new_stream_arn(table_name: str, created_at: datetime, *, taken: Collection[str]) -> str:
    """Return an ARN that is not taken; its label is the time of creation."""
    moment = created_at.astimezone(timezone.utc).replace(tzinfo=None)
    while True:
        label = moment.isoformat(timespec="milliseconds")
        arn = f"{table_arn(table_name)}/stream/{label}"
        if arn not in taken:
            return arn
        moment += timedelta(milliseconds=1)


def change_record(
    stream_arn: str,
    sequence_number: int,
    created_at: int,
    *,
    keys: Item,
    new: Item | None,
    old: Item | None,
    view_type: str,
    ttl: bool,
) -> ChangeRecord:
    """Return the record of one change, with the images that the view type carries.

    `size_bytes` is the length of keys and images in JSON, not the size that DynamoDB bills.
    """
    record = ChangeRecord(
        event_id=hashlib.sha256(f"{stream_arn} {sequence_number}".encode()).hexdigest()[:32],
        event_name="INSERT" if old is None else "REMOVE" if new is None else "MODIFY",
        sequence_number=sequence_number,
        created_at=created_at,
        keys=_json(keys),
        new_image=_json(new) if new is not None and view_type in NEW_IMAGE_VIEWS else None,
        old_image=_json(old) if old is not None and view_type in _OLD_IMAGE_VIEWS else None,
        size_bytes=0,
        region=REGION,
        view_type=view_type,
        user_type="Service" if ttl else None,
        user_principal="dynamodb.amazonaws.com" if ttl else None,
    )
    return record._replace(size_bytes=text_bytes(record))


def malformed_record(raw: bytes) -> MalformedRecord:
    """Return bytes that are not a stream record as a page delivers them.

    The sequence number is known only if the bytes have one where a stream record has it.
    """
    number = None
    try:
        digits = json.loads(raw)["dynamodb"]["SequenceNumber"]
        number = int(digits) if isinstance(digits, str) and digits.isdigit() else None
    except (ValueError, TypeError, LookupError):
        pass
    return MalformedRecord(raw, "not a stream record", number)


def text_bytes(record: ChangeRecord) -> int:
    """Return the length of the keys and images of a record, in bytes of JSON."""
    return sum(len(text or b"") for text in (record.keys, record.new_image, record.old_image))


def _json(item: Item) -> bytes:
    return json.dumps(item, separators=(",", ":")).encode()
