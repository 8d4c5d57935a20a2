"""Connection to a Spark Connect server: statements in, Arrow tables out."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import unquote

import pyarrow as pa

from datazone_dagster.api.spark_engine import SparkEngine
from datazone_dagster.errors import ConcurrentWriterError, DefinitionError, SparkError
from datazone_dagster.text import shown

SETTINGS = {
    "spark.sql.ansi.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "false",
    "spark.sql.json.enablePartialResults": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.mapKeyDedupPolicy": "EXCEPTION",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    "spark.sql.parser.escapedStringLiterals": "false",
    "spark.sql.storeAssignmentPolicy": "ANSI",
    "spark.databricks.delta.autoCompact.enabled": "false",
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
)
"""Classes of errors about a value. Spark begins a message with its class, in brackets: a statement
that an error of another class quotes is not one of these."""

IDLE_SECONDS = 30 * 60.0
"""Time after which a session is not used again: a server ends one after an hour, by default."""

RETRIES = 7
"""Retries of a call that the server does not answer: about two minutes."""

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
        failed: SparkError | None = None
        try:
            with self._guarded("Connecting"):
                self._begin(sql.SparkSession.builder.remote(engine.remote).create())
                for policy in self._session.client.get_retry_policies():
                    policy.max_retries = RETRIES
                for name, value in SETTINGS.items():
                    if self._session.conf.get(name, None) != value:  # Spark warns of some
                        self._session.conf.set(name, value)
        except SparkError as error:
            failed = without_parameters(error, engine)
        if failed is not None:  # without its cause, which may show the parameters of the URL
            raise failed

    def _begin(self, session: Any) -> None:
        self._session = session
        self._one_at_a_time = threading.Lock()
        self._used_seconds = time.monotonic()

    def run(self, statement: str, settings: Mapping[str, str] | None = None) -> pa.Table:
        """See `SparkServer.run`. Threads wait for one another: the settings are the session's."""
        with self._one_at_a_time:
            try:
                return self._run(statement, settings or {})
            finally:
                self._used_seconds = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """Time since the last statement."""
        return time.monotonic() - self._used_seconds

    def _run(self, statement: str, given: Mapping[str, str]) -> pa.Table:
        is_lost = False
        try:
            with self._guarded("Running a statement"):
                for name, value in given.items():
                    self._session.conf.set(name, value)
                found = self._session.sql(statement).toArrow()
        except SparkError:  # the session is given up: a dead server would be waited for again
            is_lost = True
            raise
        finally:
            if not is_lost:
                self._unset(given)
        assert isinstance(found, pa.Table)  # pyspark has no types here
        return found

    def _unset(self, names: Iterable[str]) -> None:
        with self._guarded("Ending a statement"):
            for name in names:
                self._session.conf.unset(name)

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """Turn errors of the client into ours."""
        errors, grpc = self._errors
        try:
            yield
        except (errors.PySparkException, grpc.RpcError) as error:
            raise converted(error, f"{doing} on the Spark server at {self._address}") from error


def converted(error: Exception, doing: str) -> Exception:
    """Return an error of the client as ours: see `SparkServer.run`."""
    text = str(error).partition("\n\nJVM stacktrace")[0]
    if any(f"[{one}" in text for one in _NOT_VALUES):
        return FailingValuesError(shown(text, 300))
    if any(one in text for one in _LOST_RACES):
        return ConcurrentWriterError(
            f"{doing}: another writer committed first.",
            safe="Nothing of this attempt was written.",
            hint="The next run continues from the new state.",
        )
    return SparkError(
        f"{doing} failed: {shown(text, 600)}{_cause(error)}",
        safe="The position tells whether the chunk was committed; the next run looks.",
        hint="Check that the server runs, that it reaches the lakehouse, and that it has Delta "
        "Lake: spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension.",
    )


def _cause(error: Exception) -> str:
    """Return what a client that has given up was told last."""
    details = getattr(error.__cause__, "details", None)  # of gRPC
    text = details() if callable(details) else error.__cause__
    return f" ({shown(str(text), 300)})" if text else ""


def without_parameters(error: SparkError, engine: SparkEngine) -> SparkError:
    """Return an error without the parameters of the URL, of which values may be secret."""
    what, parameters = error.what, engine.remote.partition("/;")[2]
    parts = parameters.split(";")
    values = [one.partition("=")[2] for one in parts]
    for part in (parameters, *parts, *values, *map(unquote, values)):
        if len(part) > len("false"):
            what = what.replace(part, "...")
    return SparkError(what, safe=error.safe, hint=error.hint)


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
    """Return the session of this process with a server; a new one after a long pause.

    Raises:
        DefinitionError: The extra is not installed.
        SparkError: The server can't be reached.
    """
    with _lock:
        server = _servers.get(engine.remote)
        if server is None or server.idle_seconds > IDLE_SECONDS:
            server = _servers[engine.remote] = ConnectServer(engine)
        return server


def disconnected(engine: SparkEngine) -> None:
    """Forget the session with a server: the next call of `connected` makes a new one."""
    with _lock:
        _servers.pop(engine.remote, None)
