"""Gaps of a source and their acceptances, stored with its change log.

A gap is recorded in the checkpoint before the rows land that move the position past it. The
checkpoint table may be lost, and is then rebuilt from the change log. So the change log stores
a copy of the gap notes in a table property, together with all earlier acceptances.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from datazone_dagster.model.checkpoint import GapNote
from datazone_dagster.model.report import Gap

PROPERTY = "datazone.gaps"

MAX_ACCEPTANCES = 200
"""Number of acceptances stored, the newest ones: a table property has to stay small."""


def merged(stored: Iterable[GapNote], current: Iterable[GapNote]) -> tuple[GapNote, ...]:
    """Return the notes to store once the checkpoint has the notes `current`, oldest first.

    An acceptance stays even if its shard has had another gap since.
    """
    notes = {_identity(note): note for note in stored if not note.is_open}
    notes |= {_identity(note): note for note in current}
    ordered = sorted(notes.values(), key=lambda note: (note.detected_at, note.gap.shard_id))
    accepted = [note for note in ordered if not note.is_open][-MAX_ACCEPTANCES:]
    return tuple(note for note in ordered if note.is_open or note in accepted)


def to_json(notes: Iterable[GapNote]) -> str:
    """Return the notes as text for the property."""
    return json.dumps([_plain(note) for note in notes], separators=(",", ":"))


def from_json(text: str | None) -> tuple[GapNote, ...]:
    """Return the notes in the property; none if the property is missing."""
    return tuple(_note(found) for found in json.loads(text or "[]"))


def _identity(note: GapNote) -> tuple[str, str, datetime]:
    return note.gap.stream_arn, note.gap.shard_id, note.detected_at


def _plain(note: GapNote) -> dict[str, object]:
    gap = note.gap
    found: dict[str, object] = {
        "stream_arn": gap.stream_arn,
        "shard_id": gap.shard_id,
        "reason": gap.reason,
        # Text: a sequence number has more digits than a JSON reader may preserve.
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
