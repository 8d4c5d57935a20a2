"""States of the sets of shards of a source as its tables have them, without asking the service."""

from __future__ import annotations

from datetime import datetime

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.current_checkpoint import up_to_date
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.drain.set_states import ShardsBySet
from datazone_dagster.model.drain_part import StreamPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.set_state import KnownSets


@converts_errors("Looking at the sets of shards")
def known_sets(
    source: DynamoDBSource, layout: Layout, part: StreamPart, now: datetime
) -> KnownSets:
    """Return the sets of a source whose shards can't be listed now.

    Raises:
        SourceMismatchError: The change log belongs to another table than the source.
        StorageError: The lakehouse can't be read.
    """
    # The order matters: a drain may land and save a batch between the two.
    saved = CheckpointTable(layout, source.name).open()
    log = ChangeLog(layout, source).open()
    if saved is None or log is None:
        return KnownSets()
    checkpoint = up_to_date(saved.checkpoint, log, now)
    states = ShardsBySet(checkpoint, part.sets).states(log.batches_of_sets, part)
    return KnownSets(states, log.head)
