"""Probe of a Spark server: whether its Delta Lake keeps the promise that exactly once rests on.

Delta Lake skips a commit whose transaction (`txnAppId`, `txnVersion`) a table has already. Engines
that only speak the protocol of Spark Connect may ignore it, and would then apply changes twice.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

import pyarrow as pa

from datazone_dagster.api.spark_engine import SparkEngine
from datazone_dagster.delta.table import created
from datazone_dagster.errors import SparkError
from datazone_dagster.model.layout import Layout
from datazone_dagster.spark.spark_server import APP_ID, APP_VERSION, SparkServer
from datazone_dagster.spark.statements import table_of

FOLDER = "_spark_probe"
KIND = "spark probe"
_APP = "probe"
_SCHEMA = pa.schema([("key", pa.string())])

_fit: set[tuple[str, str]] = set()
_lock = threading.Lock()


def require_fit(
    server: SparkServer, engine: SparkEngine, layout: Layout, reached: Callable[[str], str]
) -> None:
    """Check a server, once per process and lakehouse.

    A scratch table gets a row by a MERGE with a transaction, which is sent twice.

    Raises:
        SparkError: The row landed twice, the transaction is not in the table's log, or the server
            does not reach the lakehouse.
    """
    probed = (engine.remote, layout.uri)
    with _lock:
        if probed in _fit:
            return
        _probe(server, engine, layout, reached)
        _fit.add(probed)


def _probe(
    server: SparkServer, engine: SparkEngine, layout: Layout, reached: Callable[[str], str]
) -> None:
    uri = f"{layout.uri.rstrip('/')}/{FOLDER}/{uuid.uuid4().hex}"
    table = created(uri, dict(layout.storage_options), KIND, _SCHEMA)
    try:
        merge = (
            f"MERGE INTO {table_of(reached(uri))} AS t USING (SELECT 'a' AS key) AS s ON false "
            "WHEN NOT MATCHED THEN INSERT (key) VALUES (s.key)"
        )
        for _ in range(2):
            server.run(merge, {APP_ID: _APP, APP_VERSION: "7"})
        table.refresh()
        rows, recorded = table.at.live_rows, table.transaction(_APP)
    finally:
        table.at.store.delete_all()
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
