"""Proof that an object store refuses to create a file that is there already.

Two writers are kept apart by that refusal alone. A store that ignores the condition takes both
commits, one over the other, and changes are lost without a word. So a process asks once for each
lakehouse, before it writes there first: it creates a marker file. Where the file is there already,
the refusal is the proof, by one request.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore

from datazone_dagster.delta.store_access import object_store
from datazone_dagster.delta.store_errors import store_calls
from datazone_dagster.errors import StorageError, StoreError
from datazone_dagster.model.layout import root_of
from datazone_dagster.model.store_options import store_kind

MARKER = "_conditional_writes"
_CONTENT = (
    b"datazone_dagster creates this file before it writes here first. If the store lets it create "
    b"the file again, the store can't keep two writers apart, and is refused.\n"
)

_proven: set[tuple[str, frozenset[tuple[str, str]]]] = set()
_lock = Lock()


def require_conditional_writes(uri: str, storage_options: Mapping[str, str]) -> None:
    """Check once per process and lakehouse that the store refuses to create a file twice.

    Args:
        uri: Location of a table of the lakehouse.
        storage_options: Options of the store.

    Raises:
        StorageError: The store ignores or lacks conditional writes.
        StoreError: The store failed; the next call asks again.
    """
    if store_kind(uri) == "local":
        return
    root = root_of(uri)
    key = (root, frozenset(storage_options.items()))
    if key in _proven:
        return
    with _lock:
        if key in _proven:
            return
        store = object_store(root, storage_options)
        # The first may be created by us; the second must be refused.
        if _created(store, root) and _created(store, root):
            raise _refused(root, "it lets the same file be created twice")
        _proven.add(key)


def _created(store: ObjectStore, root: str) -> bool:
    try:
        with store_calls(root):
            obstore.put(store, MARKER, _CONTENT, mode="create", use_multipart=False)
    except AlreadyExistsError:
        return False
    except StoreError as error:
        if error.code == "NotImplemented":  # code of S3 for a header that the store lacks
            raise _refused(root, "it does not implement If-None-Match") from None
        raise
    return True


def _refused(root: str, reason: str) -> StorageError:
    return StorageError(
        f"The store of {root} has no conditional writes: {reason}. Two writers would overwrite "
        "each other's commits.",
        safe="Nothing was written but an empty marker.",
        hint="Use a store that honours If-None-Match (Amazon S3, Azure and Google do, as do newer "
        "versions of MinIO, Ceph and R2), update this one, remove a proxy that drops the header, "
        "or use a directory, which may be a network file system.",
    )
