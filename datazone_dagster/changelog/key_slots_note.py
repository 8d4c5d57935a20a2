"""Slots of the keys of a file of the change log, noted with the file in the Delta log. Pure.

A bucket without keys in small batches need not read them, and a run of another one may move its
position past them. Where much arrives at once, every slot has keys: nothing is noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TAG = "datazone.key_slots"
"""Tag of a file with the slots of its keys: a bit for each, in hexadecimal digits."""


def slots_tag(slot_bits: int | None) -> dict[str, str]:
    """Return the tags of a file whose keys have these slots; None: any slots."""
    return {} if slot_bits is None else {TAG: f"{slot_bits:x}"}


def slot_bits_in(add: Mapping[str, Any]) -> int | None:
    """Return the slots of the keys of a file, by its add action; None if it does not say."""
    text = (add.get("tags") or {}).get(TAG)
    return None if text is None else int(text, 16)
