"""A drain by hand next to drain runs: it loses each commit race, and says what to do."""

from __future__ import annotations

from collections.abc import Mapping

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.drain.drain_call import DrainCall
from datazone_dagster.errors import ConcurrentWriterError

_SHOWN = 5


def refuse_beside_runs(call: DrainCall, landed_before: Mapping[str, int]) -> None:
    """Raise if drain runs have landed batches since a drain began that lost the commit race.

    A drain of all shards is put on top of nothing that they commit: it would lose again and again.

    Args:
        call: The call of the drain.
        landed_before: Last batch of each set of shards when it began.

    Raises:
        ConcurrentWriterError: They have.
        StorageError: The change log can't be read.
    """
    log = ChangeLog(call.layout, call.source.name).open()
    landed = {} if log is None else log.batches_of_sets
    since = sorted(name for name, batch in landed.items() if landed_before.get(name, 0) < batch)
    if since:
        name = call.source.name
        raise ConcurrentWriterError(
            f"Drain runs drain source {name!r}: while this drain read all shards, they landed "
            f"batches of {', '.join(since[:_SHOWN])}.",
            safe="Nothing of this drain was landed. The runs land every change.",
            hint="Leave it to them: `datazone-dagster status` shows how far each set is. To drain "
            f"by hand, stop the sensor drain_{name}, and wait until the runs of the job "
            f"drain_shards_{name} have ended.",
        )
