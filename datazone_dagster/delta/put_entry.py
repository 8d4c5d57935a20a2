"""One log entry, put if absent: the winner is whoever creates it.

Delta protocol: "Creation of New Log Entries".
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

from datazone_dagster.delta.live_file import new_files
from datazone_dagster.delta.log_files import entry_actions, entry_path
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.store_errors import LostRaceError, storage_error
from datazone_dagster.delta.table_state import forget
from datazone_dagster.delta.transaction_log import NOTE, Anchor, Snapshot
from datazone_dagster.errors import ConcurrentWriterError


def put_entry(
    snapshot: Snapshot,
    values: Sequence[Mapping[str, Any]],
    *,
    operation: str,
    parameters: Mapping[str, str],
    metrics: Mapping[str, int],
    note: Mapping[str, Any] | None = None,
) -> Snapshot:
    """Put the next entry of a table's log, and return the table after it.

    Args:
        snapshot: Version that the entry is based on.
        values: Actions of the entry.
        operation: Name of the operation in the table's history.
        parameters: Parameters of the operation in the history.
        metrics: Metrics of the operation in the history.
        note: Our own note, stored in the commit info; see `Snapshot.notes`.

    Raises:
        LostRaceError: Another commit came first.
        ConcurrentWriterError: Another commit came first, and it did the same work or changed the
            table's metadata or protocol; or the table is not the one of the snapshot any more.
        StorageError: The store failed; reading the table again shows whether the commit happened.
    """
    number, token = snapshot.version + 1, str(uuid.uuid4())
    info = {
        "timestamp": int(time.time() * 1000),
        "operation": operation,
        "operationParameters": dict(parameters),
        "readVersion": snapshot.version,
        "isolationLevel": "Serializable",
        "isBlindAppend": False,
        "operationMetrics": {name: str(value) for name, value in metrics.items()},
        "engineInfo": _engine_info(),
        "txnId": token,
        **({} if note is None else {NOTE: note}),
    }
    actions = [{"commitInfo": info}, *values]
    entry = "\n".join(
        json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in actions
    )
    try:
        snapshot.store.sync(new_files(values))
        require_same_table(snapshot)
        identity = snapshot.store.put_if_absent(entry_path(number), entry.encode()) or _ours(
            snapshot.store, number, token
        )
        if identity is not None:
            return snapshot.after([actions], Anchor(entry_path(number), identity))
        _check_for_retry(snapshot, {action["txn"]["appId"] for action in values if "txn" in action})
    except (OSError, ValueError) as error:
        raise storage_error(
            f"Committing version {number} to {snapshot.store.uri} failed",
            error,
            safe="Earlier commits are untouched; the next attempt reads the table again to find "
            "out whether this commit happened.",
            hint="Check the store: permissions, free space, reachability.",
        ) from error
    raise LostRaceError(f"version {number} of {snapshot.store.uri} is taken")


def require_same_table(snapshot: Snapshot) -> None:
    """Check that the newest entry of a snapshot is still the one that was read or written.

    Above the log of a table that was made again meanwhile, a new entry would leave a hole, and a
    checkpoint would replace that table.

    Raises:
        ConcurrentWriterError: It is another one, or gone. This process forgets the table.
    """
    anchor, store = snapshot.anchor, snapshot.store
    if anchor is None or store.identity_of(anchor.path) == anchor.identity:
        return
    forget(store.uri)
    raise ConcurrentWriterError(
        f"Committing to {store.uri}: version {snapshot.version} is not the one that was read. The "
        "table was made again, or restored from an older copy.",
        safe="Nothing of this attempt is in the table.",
        hint="The next attempt reads the table anew.",
    )


def _ours(store: TableStore, number: int, token: str) -> str | None:
    """Return the identity of the entry if it is ours: the first answer was lost, the put retried.

    None: it is another writer's.
    """
    found = store.read_identified(entry_path(number))
    if found is None:
        return None
    ours = any(
        action.get("commitInfo", {}).get("txnId") == token for action in entry_actions(found[0])
    )
    return found[1] if ours else None


def _check_for_retry(snapshot: Snapshot, app_ids: set[str]) -> None:
    """Raise `ConcurrentWriterError` if a commit since the snapshot makes a retry pointless."""
    number = snapshot.version + 1
    while (content := snapshot.store.read(entry_path(number))) is not None:
        for action in entry_actions(content):
            if action.get("txn", {}).get("appId") in app_ids:
                reason = "another run applied the same changes"
            elif "metaData" in action or "protocol" in action:
                reason = "another writer changed the table's metadata"
            else:
                continue
            raise ConcurrentWriterError(
                f"Committing to {snapshot.store.uri}: {reason} in version {number}.",
                safe="Nothing of this attempt is in the table; the other writer's commit is "
                "intact.",
                hint="This attempt lost the commit race; the next one continues from the new "
                "state.",
            )
        number += 1


def _engine_info() -> str:
    """Name and version for the table's history; a source tree on the path has no version."""
    try:
        return f"datazone-dagster/{installed_version('datazone-dagster')}"
    except PackageNotFoundError:
        return "datazone-dagster/unknown"
