"""Begin of a batch of a drain: of the whole stream, or of one set of its shards."""

from __future__ import annotations

from collections.abc import Sequence

from deltalake.transaction import AddAction

from datazone_dagster.changelog.batch_writer import BatchWriter
from datazone_dagster.changelog.log_head import LogHead
from datazone_dagster.changelog.numbering import BY_COMMIT
from datazone_dagster.changelog.set_commits import SetBatch
from datazone_dagster.changelog.slot_parts import ranges_in
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.model.checkpoint import Landed


def begin_batch(
    uri: str, table: KeptTable, head: LogHead, epoch: int, set_name: str | None
) -> BatchWriter:
    """Begin the next batch; nothing counts before its commit.

    Args:
        uri: Location of the table, for error texts.
        table: The change log.
        head: Its head at the version that the batch is based on.
        epoch: Epoch of the batch's rows.
        set_name: Set of shards that the batch is of, among others that are drained at once; None:
            the only drain.
    """
    based_on, batch, properties = head.fence, head.number + 1, head.at.configuration
    of_set = None if set_name is None else SetBatch(head.source, set_name, head.at)

    def commit(file: AddAction, landed: Sequence[Landed] | None) -> int:
        if of_set is not None:
            return head.append_of_set(file, of_set, landed or ())
        return head.append(file, batch, based_on, landed)

    return BatchWriter(
        uri,
        table.store,
        batch,
        epoch,
        commit,
        by_slots=ranges_in(properties),
        by_commit=BY_COMMIT in properties,
    )
