"""Connection to a Spark Connect server: statements in, Arrow tables out."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow as pa

from datazone_dagster.api.spark_engine import SparkEngine
from datazone_dagster.errors import ConcurrentWriterError, DefinitionError, SparkError
from datazone_dagster.spark.functions import REFUSED
from datazone_dagster.text import shown

SETTINGS = {
    "spark.sql.ansi.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "false",
    "spark.sql.json.enablePartialResults": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.mapKeyDedupPolicy": "EXCEPTION",
}
"""Settings of a session, on which the meaning of the statements depends."""

APP_ID = "spark.databricks.delta.write.txnAppId"
APP_VERSION = "spark.databricks.delta.write.txnVersion"
USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"

_NOT_VALUES = (
    "CAST_INVALID_INPUT",
    "CAST_OVERFLOW",
    "NUMERIC_VALUE_OUT_OF_RANGE",
    "NUMERIC_OUT_OF_SUPPORTED_RANGE",
    "ARITHMETIC_OVERFLOW",
    "DIVIDE_BY_ZERO",
    "DATETIME_OVERFLOW",
    "INVALID_TIMESTAMP",
    "CANNOT_PARSE_TIMESTAMP",
    "USER_RAISED_EXCEPTION",
    "DUPLICATED_MAP_KEY",
    REFUSED,
)
_LOST_RACES = (
    "DELTA_CONCURRENT",
    "DELTA_METADATA_CHANGED",
    "DELTA_PROTOCOL_CHANGED",
    "ConcurrentTransactionException",
    "ConcurrentAppendException",
    "ConcurrentDeleteReadException",
    "ConcurrentDeleteDeleteException",
    "MetadataChangedException",
    "ProtocolChangedException",
)


class FailingValuesError(ValueError):
    """A statement met a value that it can't compute with."""


class SparkServer(Protocol):
    """Runs statements, one after the other."""

    def run(self, statement: str, settings: Mapping[str, str] | None = None) -> pa.Table:
        """Return the result of a statement that runs with some settings of its own.

        Raises:
            ConcurrentWriterError: Another writer of the table came first; nothing was written.
            FailingValuesError: A value can't be computed with; nothing was written.
            SparkError: The server failed, or can't be reached.
        """
        ...


class ConnectServer:
    """A session of a Spark Connect server.

    Args:
        engine: Where the server is.
    """

    def __init__(self, engine: SparkEngine) -> None:
        self._address = engine.address
        self._errors = _loaded("pyspark.errors"), _loaded("grpc")
        sql = _loaded("pyspark.sql")
        with self._guarded("Connecting"):
            self._session: Any = sql.SparkSession.builder.remote(engine.remote).create()
            for name, value in SETTINGS.items():
                self._session.conf.set(name, value)

    def run(self, statement: str, settings: Mapping[str, str] | None = None) -> pa.Table:
        """See `SparkServer.run`."""
        given = settings or {}
        with self._guarded("Running a statement"):
            for name, value in given.items():
                self._session.conf.set(name, value)
            try:
                found = self._session.sql(statement).toArrow()
            finally:
                for name in given:
                    self._session.conf.unset(name)
        assert isinstance(found, pa.Table)  # pyspark has no types here
        return found

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """Turn errors of the client into ours."""
        errors, grpc = self._errors
        try:
            yield
        except (errors.PySparkException, grpc.RpcError) as error:
            raise _converted(error, f"{doing} on the Spark server at {self._address}") from error


def _converted(error: Exception, doing: str) -> Exception:
    text = str(error).partition("\n\nJVM stacktrace")[0]
    if any(one in text for one in _NOT_VALUES):
        return FailingValuesError(shown(text, 300))
    if any(one in text for one in _LOST_RACES):
        return ConcurrentWriterError(
            f"{doing}: another writer committed first.",
            safe="Nothing of this attempt was written.",
            hint="The next run continues from the new state.",
        )
    return SparkError(
        f"{doing} failed: {shown(text, 600)}",
        safe="The position tells whether the chunk was committed; the next run looks.",
        hint="Check that the server runs, that it reaches the lakehouse, and that it has Delta "
        "Lake: spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension.",
    )


def _loaded(name: str) -> Any:
    """Import a module of the extra.

    Raises:
        DefinitionError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DefinitionError(
            f"A SparkEngine needs the client of Spark Connect: {error}.",
            safe="Nothing was read or written.",
            hint='Install it: pip install "datazone-dagster[spark]".',
        ) from error


_servers: dict[str, ConnectServer] = {}
_lock = threading.Lock()


def connected(engine: SparkEngine) -> SparkServer:
    """Return the session of this process with a server.

    Raises:
        DefinitionError: The extra is not installed.
        SparkError: The server can't be reached.
    """
    with _lock:
        if engine.remote not in _servers:
            _servers[engine.remote] = ConnectServer(engine)
        return _servers[engine.remote]


def disconnected(engine: SparkEngine) -> None:
    """Forget the session with a server: the next call of `connected` makes a new one."""
    with _lock:
        _servers.pop(engine.remote, None)
