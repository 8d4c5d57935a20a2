"""Order numbers of erased changes, by which a stream that has them still is recognised. Pure.

An erasure removes the rows by which a change that is delivered again is recognised. Their order
numbers stay, as table properties of the change log: so Kinesis can't bring an item back by a second
delivery, and a stream of DynamoDB whose records are all erased does not pass for one that was made
again. A number is the time of a change and a hash of its event id (`model.event_order`): nothing in
it is of the item.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from datazone_dagster.model.event_order import first_order_digits, order_number
from datazone_dagster.model.version import SEQUENCE_DIGITS

PROPERTY = "datazone.erasedEvents"
"""Table property of a change log that stores the numbers of changes of Kinesis; those of earlier
erasures are of either stream."""

TABLE_PROPERTY = "datazone.erasedEventsOfTable"
"""Table property that stores those of the stream of the table."""

KEPT_DAYS_OF_DYNAMODB = 2
"""Days for which numbers of a DynamoDB stream are stored, which keeps a change for one."""

KEPT_DAYS = {PROPERTY: 366, TABLE_PROPERTY: KEPT_DAYS_OF_DYNAMODB}
"""Days for which they are stored: a stream of Kinesis keeps a change for a year at most."""

KEPT_NUMBERS = 20_000
"""Most numbers in a property, the newest ones: half a megabyte."""

_NUMBER_BYTES = 17


def number_of(time: datetime, event_id: str) -> str:
    """Return the padded number of a change of a DynamoDB stream, which has another one itself."""
    seconds = int(time.timestamp())
    return f"{order_number(seconds * 1_000_000, event_id):0{SEQUENCE_DIGITS}d}"


def from_text(text: str | None) -> frozenset[str]:
    """Return the padded numbers in the table property; None: there is no such property."""
    packed = base64.b64decode(text or "")
    starts = range(0, len(packed), _NUMBER_BYTES)
    numbers = (int.from_bytes(packed[at : at + _NUMBER_BYTES], "big") for at in starts)
    return frozenset(f"{number:0{SEQUENCE_DIGITS}d}" for number in numbers)


def to_text(numbers: Iterable[str]) -> str:
    """Return the text of the table property."""
    packed = b"".join(int(one).to_bytes(_NUMBER_BYTES, "big") for one in sorted(numbers))
    return base64.b64encode(packed).decode("ascii")


def erased_in(properties: Mapping[str, str]) -> frozenset[str]:
    """Return the padded numbers that a change log stores."""
    return frozenset[str]().union(*(from_text(properties.get(one)) for one in KEPT_DAYS))


def with_erased(
    stored: Iterable[str], erased: Iterable[str], now: datetime, days: int
) -> tuple[frozenset[str], int]:
    """Return the numbers to store, once more changes are erased, and how many are too many.

    Args:
        stored: Numbers that are stored.
        erased: Numbers of the changes to erase.
        now: The current time.
        days: Days for which they are stored.
    """
    oldest = first_order_digits(int((now - timedelta(days=days)).timestamp()) * 1_000_000)
    recent = sorted(one for one in {*stored, *erased} if one >= oldest)
    return frozenset(recent[-KEPT_NUMBERS:]), max(0, len(recent) - KEPT_NUMBERS)
