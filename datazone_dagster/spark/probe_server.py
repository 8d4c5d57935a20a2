"""Probe of a Spark server: whether its Delta Lake keeps the promise that exactly once rests on.

Delta Lake skips a commit whose transaction (`txnAppId`, `txnVersion`) a table has already. Engines
that only speak the protocol of Spark Connect may ignore it, and would then apply changes twice.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from datazone_dagster.api.spark_engine import SparkEngine
from datazone_dagster.delta import guarded
from datazone_dagster.delta.table import Table, created
from datazone_dagster.errors import SparkError, StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.spark.spark_server import APP_ID, APP_VERSION, SparkServer
from datazone_dagster.spark.spark_text import text_of
from datazone_dagster.spark.statements import table_of

FOLDER = "_spark_probe"
KIND = "spark probe"
_APP = "probe"
_SCHEMA = pa.schema([("key", pa.string())])
_PARTITION = "part"
_VALUE = "\u00fc/%= \u20ac"
"""A partition value of letters that a server may not be able to write into a folder's name."""

_fit: set[tuple[SparkEngine, str]] = set()
_names_folders: set[tuple[SparkEngine, str]] = set()
_lock = threading.Lock()


def require_fit(
    server: SparkServer, engine: SparkEngine, layout: Layout, reached: Callable[[str], str]
) -> None:
    """Check a server, once per process, lakehouse and location of it as the server reaches it.

    A scratch table gets a row by a MERGE with a transaction, which is sent twice.

    Raises:
        SparkError: The row landed twice, the transaction is not in the table's log, or the server
            does not reach the lakehouse.
    """
    probed = (engine, layout.uri)
    with _lock:
        if probed in _fit:
            return
        _probe(server, engine, layout, reached)
        _fit.add(probed)


def require_folders(
    server: SparkServer, engine: SparkEngine, layout: Layout, reached: Callable[[str], str]
) -> None:
    """Check that a server names the folders of partitions so that others find them, once likewise.

    A JVM whose locale has no Unicode writes other letters than ASCII as `?`, without an error.

    Raises:
        SparkError: It does not, or failed.
    """
    probed = (engine, layout.uri)
    with _lock:
        if probed in _names_folders:
            return
        schema = pa.schema([*_SCHEMA, (_PARTITION, pa.string())])
        with _scratch(layout, schema, (_PARTITION,)) as table:
            server.run(
                f"INSERT INTO {table_of(reached(table.uri))} VALUES ('a', {text_of(_VALUE)})"
            )
            table.refresh()
            if not _has_its_row(table):
                raise SparkError(
                    f"The Spark server at {engine.address} names the folder of a partition so that "
                    "others do not find it: its locale has no Unicode.",
                    safe="Nothing of a dataset was written; the scratch table is deleted.",
                    hint="Start the server, and its executors, with LC_ALL=C.UTF-8, or leave "
                    "partition_by out.",
                )
        _names_folders.add(probed)


def _has_its_row(table: Table) -> bool:
    try:
        with guarded(table.uri, "Reading the scratch table"):
            found: list[dict[str, object]] = pa.table(table.scan()).to_pylist()
    except StorageError:  # no file is where the log says
        return False
    return found == [{"key": "a", _PARTITION: _VALUE}]


@contextmanager
def _scratch(layout: Layout, schema: pa.Schema, partition_by: tuple[str, ...]) -> Iterator[Table]:
    """Provide a new table, which is deleted afterwards."""
    uri = f"{layout.uri.rstrip('/')}/{FOLDER}/{uuid.uuid4().hex}"
    options = dict(layout.storage_options)
    table = created(uri, options, KIND, schema, partition_by=partition_by)
    try:
        yield table
    finally:
        table.at.store.delete_all()


def _probe(
    server: SparkServer, engine: SparkEngine, layout: Layout, reached: Callable[[str], str]
) -> None:
    with _scratch(layout, _SCHEMA, ()) as table:
        merge = (
            f"MERGE INTO {table_of(reached(table.uri))} AS t USING (SELECT 'a' AS key) AS s "
            "ON false WHEN NOT MATCHED THEN INSERT (key) VALUES (s.key)"
        )
        for _ in range(2):
            server.run(merge, {APP_ID: _APP, APP_VERSION: "7"})
        table.refresh()
        rows, recorded = table.at.live_rows, table.transaction(_APP)
    if (rows, recorded) != (1, 7):
        raise _unfit(engine, rows, recorded)


def _unfit(engine: SparkEngine, rows: int, recorded: int) -> SparkError:
    if rows == 0:
        what = "does not write to this lakehouse: its row is not there"
    elif rows > 1:
        what = f"ignores the transaction of a commit: a row that was sent twice landed {rows} times"
    else:
        what = f"does not record the transaction of a commit (it is {recorded}, not 7)"
    return SparkError(
        f"The Spark server at {engine.address} {what}.",
        safe="Nothing of a dataset was written; the scratch table is deleted.",
        hint="Use Apache Spark 4 with Delta Lake 4: exactly once rests on its txnAppId and "
        "txnVersion. Sail, for one, ignores them.",
    )
