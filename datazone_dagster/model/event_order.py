"""Order number of a change that comes without a sequence number: its time, then its id.

Kinesis Data Streams for DynamoDB delivers changes in disorder and more than once. Only the time of
a change orders it, and only its id tells it from another one. So the number is made of both: a
change that is delivered again gets the same number, and no two changes share one. Two changes of
one item at the same time can't be ordered: their ids decide, which is the same each time.
"""

from __future__ import annotations

from hashlib import blake2b

from datazone_dagster.model.version import SEQUENCE_DIGITS

_TIEBREAK_BYTES = 9  # below `_TIEBREAKS`

_TIEBREAKS = 10**22


def order_number(microseconds: int, event_id: str) -> int:
    """Return the order number of a change: 40 digits at most.

    Args:
        microseconds: Time of the change since 1970.
        event_id: Its id, the same in each delivery.
    """
    digest = blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=_TIEBREAK_BYTES)
    return microseconds * _TIEBREAKS + int.from_bytes(digest.digest(), "big")


def first_order_digits(microseconds: int) -> str:
    """Return the padded number below which every change is older than a time."""
    return f"{microseconds * _TIEBREAKS:0{SEQUENCE_DIGITS}d}"
