"""The gaps of a source and who accepted them, kept with its change log.

Gaps are noted in the checkpoint, before the rows land that move the position past them. That
table may get lost, and is then rebuilt from the change log; so the log keeps a copy of the
notes, in a table property, and with it every acceptance there ever was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from datazone_dagster.model.checkpoint import GapNote
from datazone_dagster.model.report import Gap

PROPERTY = "datazone.gaps"

ACCEPTED_KEPT = 200
"""Acceptances that are remembered, the newest ones: a property has to stay small."""


def merged(kept: Iterable[GapNote], current: Iterable[GapNote]) -> tuple[GapNote, ...]:
    """What the log keeps once the checkpoint has the notes `current`, oldest first.

    An acceptance stays, also when its shard has had another gap since.
    """
    notes = {_name(note): note for note in kept if not note.is_open}
    notes |= {_name(note): note for note in current}
    ordered = sorted(notes.values(), key=lambda note: (note.detected_at, note.gap.shard_id))
    accepted = [note for note in ordered if not note.is_open][-ACCEPTED_KEPT:]
    return tuple(note for note in ordered if note.is_open or note in accepted)


def to_json(notes: Iterable[GapNote]) -> str:
    """The notes as text for the property."""
    return json.dumps([_plain(note) for note in notes], separators=(",", ":"))


def from_json(text: str | None) -> tuple[GapNote, ...]:
    """The notes in the property, none if it is not there."""
    return tuple(_note(found) for found in json.loads(text or "[]"))


def _name(note: GapNote) -> tuple[str, str, datetime]:
    return note.gap.stream_arn, note.gap.shard_id, note.detected_at


def _plain(note: GapNote) -> dict[str, object]:
    gap = note.gap
    found: dict[str, object] = {
        "stream_arn": gap.stream_arn,
        "shard_id": gap.shard_id,
        "reason": gap.reason,
        # As text: it has more digits than a JSON reader may keep.
        "after": None if gap.after_sequence_number is None else str(gap.after_sequence_number),
        "since": _text(gap.since),
        "until": _text(gap.until),
        "detected_at": _text(note.detected_at),
        "accepted_by": note.accepted_by,
        "accepted_at": _text(note.accepted_at),
        "accepted_why": note.accepted_why,
    }
    return {name: value for name, value in found.items() if value is not None}


def _note(found: dict[str, Any]) -> GapNote:
    after = found.get("after")
    return GapNote(
        Gap(
            found["stream_arn"],
            found["shard_id"],
            found["reason"],
            None if after is None else int(after),
            _time(found.get("since")),
            _time(found.get("until")),
        ),
        datetime.fromisoformat(found["detected_at"]),
        found.get("accepted_by"),
        _time(found.get("accepted_at")),
        found.get("accepted_why"),
    )


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
