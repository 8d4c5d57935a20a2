"""Outcome of reading one shard in a drain. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datazone_dagster.errors import AccessDeniedError, CredentialsError, SourceError
from datazone_dagster.model.checkpoint import ShardCheckpoint
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.model.report import Gap


@dataclass(slots=True)
class ShardOutcome:
    """Facts about what one drain read of a shard; the records themselves went to the sink.

    `vanished`: the service does not know the shard. `older`: records at or below the position at
    which the drain began, which the change log must have. `undated`: records without a time of
    their own, which got that of the drain. `repeated`, `others`, `tied`: see `model.arrival`.
    """

    row: ShardCheckpoint
    records: int = 0
    record_bytes: int = 0
    malformed: int = 0
    created_from_seconds: int | None = None
    created_to_seconds: int | None = None
    sequence_number: int | None = None
    event_time_seconds: int | None = None
    ended: bool = False
    at_latest: bool = False
    calls: int = 0
    body_bytes: int = 0
    error: SourceError | None = None
    gap: Gap | None = None
    vanished: bool = False
    older: Sequence[ChangeRecord] = ()
    undated: int = 0
    repeated: int = 0
    others: int = 0
    tied: int = 0

    @property
    def moved_on(self) -> bool:
        """Whether the shard was read further without a record that landed."""
        return self.ended or bool(self.repeated or self.others)


def raise_if_locked_out(outcomes: Iterable[ShardOutcome]) -> None:
    """Raise the error of a shard that no retry will read.

    Raises:
        AccessDeniedError: The credentials lack an action.
        CredentialsError: They are not valid.
    """
    for outcome in outcomes:
        if isinstance(outcome.error, (AccessDeniedError, CredentialsError)):
            raise outcome.error
