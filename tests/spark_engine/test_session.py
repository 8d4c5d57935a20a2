"""The session of a process with a server: one statement at a time, a new one after a pause."""

from __future__ import annotations

import threading
import time
from typing import Any

import pyarrow as pa
import pytest

from datazone_dagster import SparkEngine
from datazone_dagster.spark import spark_server
from datazone_dagster.spark.spark_server import APP_VERSION, ConnectServer

ENGINE = SparkEngine("sc://sessions")


class Conf(dict[str, str]):
    def set(self, name: str, value: str) -> None:
        self[name] = value

    def unset(self, name: str) -> None:
        self.pop(name, None)


class Session:
    """What a server needs of a session; each statement answers with its transaction."""

    def __init__(self) -> None:
        self.conf = Conf()

    def sql(self, statement: str) -> Any:
        time.sleep(0.01)
        found = pa.table({"version": [self.conf.get(APP_VERSION, "none")]})
        return type("Frame", (), {"toArrow": staticmethod(lambda: found)})


@pytest.fixture(autouse=True)
def no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    def connected(self: ConnectServer, engine: SparkEngine) -> None:
        errors = type("Errors", (), {"PySparkException": ValueError})
        self._errors = errors, type("Grpc", (), {"RpcError": ValueError})
        self._address = engine.address
        self._begin(Session())

    monkeypatch.setattr(ConnectServer, "__init__", connected)
    monkeypatch.setattr(spark_server, "_servers", {})


def test_a_statement_has_its_own_settings_whatever_other_threads_do() -> None:
    """With the transaction of another MERGE, changes would be taken for applied."""
    server = spark_server.connected(ENGINE)
    wrong: list[str] = []

    def run(version: str) -> None:
        for _ in range(10):
            (found,) = server.run("MERGE", {APP_VERSION: version})["version"].to_pylist()
            wrong.extend([] if found == version else [found])

    threads = [threading.Thread(target=run, args=(str(at),)) for at in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []


def test_a_session_that_the_server_may_have_ended_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = spark_server.connected(ENGINE)
    assert spark_server.connected(ENGINE) is first
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + spark_server.IDLE_SECONDS + 1)
    second = spark_server.connected(ENGINE)
    assert second is not first
    assert spark_server.connected(ENGINE) is second
