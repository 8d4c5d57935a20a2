"""Tables as the library holds them, from handles of delta-rs."""

from __future__ import annotations

from deltalake import DeltaTable

from datazone_dagster.delta import KIND
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.delta.transaction_log import read_snapshot


def table_at(handle: DeltaTable) -> Table:
    """Return the table at the version of a handle, as a process that knows nothing newer."""
    kind = handle.metadata().configuration.get(KIND, "")
    return Table(KeptTable(handle.table_uri, {}, kind), read_snapshot(handle, {}))
