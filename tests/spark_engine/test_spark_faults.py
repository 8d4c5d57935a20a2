"""Processes that die in the middle, and a table that is restored: nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from deltalake import DeltaTable

from datazone_dagster import SparkEngine
from datazone_dagster.errors import SparkError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform
from datazone_dagster.process import crash_points
from datazone_dagster.spark import spark_server
from datazone_dagster.testing import at_point
from tests.spark_engine.server import ORDER, Change, Server, applied, both, flow, rows, uses_spark

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]

Mode = Literal["merge", "append"]


def changes_from(first: int, *, deletes: bool) -> list[Change]:
    """200 changes of 100 keys; with deletes, every third key leaves."""
    return [
        (first + at, f"k{at % 100}", None if deletes and at % 3 == 0 else ORDER)
        for at in range(200)
    ]


def test_executors_are_processes_of_their_own(server: Server, engine: SparkEngine) -> None:
    spark_server.connected(engine).run("SELECT count(*) FROM range(1000)")
    assert len(server.executors()) >= 2


def when(is_so: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """Do something in the moment in which something is so, while others go on."""

    def wait() -> None:
        while not is_so():
            time.sleep(0.001)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def is_new(folder: Path, pattern: str) -> Callable[[], bool]:
    before = set(folder.glob(pattern))
    return lambda: set(folder.glob(pattern)) != before


MOMENTS: dict[str, Callable[[Path], Callable[[], bool]]] = {
    "before the MERGE": lambda table: lambda: True,
    "files are written": lambda table: is_new(table, "*.parquet"),
    "it is committed": lambda table: is_new(table / "_delta_log", "*.json"),
}


@pytest.mark.parametrize(
    ("moment", "mode"),
    [*((moment, "merge") for moment in MOMENTS), ("files are written", "append")],
)
def test_the_server_is_killed(
    server: Server,
    engine: SparkEngine,
    tmp_path: Path,
    moment: str,
    mode: Mode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The chunk is there as a whole or not at all, and the next run, on a new server, knows."""
    monkeypatch.setattr(spark_server, "RETRIES", 1)
    spark_server.disconnected(engine)
    by_spark, by_us = flow(engine, mode=mode), flow(None, mode=mode)
    spark, ours = both(tmp_path, changes_from(1, deletes=False))
    before = applied(spark, by_spark)
    assert before == applied(ours, by_us)
    both(tmp_path, changes_from(1000, deletes=True))
    expected = applied(ours, by_us)
    killers: list[threading.Thread] = []

    def begin() -> None:
        killers.append(when(MOMENTS[moment](spark / "d"), server.kill))
        if moment == "before the MERGE":
            killers[0].join()

    try:
        with at_point(crash_points.AFTER_TOMBSTONES, begin), pytest.raises(SparkError):
            apply_transform(by_spark, Layout(str(spark)))
        monkeypatch.undo()
    finally:
        for one in killers:
            one.join()
        server.start()
    found = rows(spark)
    if moment == "before the MERGE":
        assert found == before
    elif moment == "it is committed":
        assert found == expected
    else:
        assert found in (before, expected)
    assert applied(spark, by_spark) == expected
    both(tmp_path, changes_from(2000, deletes=True))
    assert applied(spark, by_spark) == applied(ours, by_us)
    assert uses_spark(caplog)


def test_executors_are_killed(server: Server, engine: SparkEngine, tmp_path: Path) -> None:
    """Spark computes again what they had, and the run does not notice."""
    by_spark, by_us = flow(engine), flow(None)
    spark, ours = both(tmp_path, changes_from(1, deletes=False))
    assert applied(spark, by_spark) == applied(ours, by_us)
    both(tmp_path, changes_from(1000, deletes=True))
    killed = server.executors()

    def kill() -> None:
        for one in killed:
            os.kill(one, signal.SIGKILL)

    with at_point(crash_points.AFTER_TOMBSTONES, kill):
        found = applied(spark, by_spark)
    assert found == applied(ours, by_us)
    assert killed
    assert not set(killed) & set(server.executors())


RUN = """
import sys
from datazone_dagster import SparkEngine
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform
from datazone_dagster.spark import spark_server
from tests.spark_engine.server import flow

run = spark_server.ConnectServer.run


def told(self, statement, settings=None):
    if statement.startswith("MERGE") and "dz_batch" in statement:
        print("merging", flush=True)
    return run(self, statement, settings)


spark_server.ConnectServer.run = told
apply_transform(flow(SparkEngine(sys.argv[1]), mode=sys.argv[3]), Layout(sys.argv[2]))
"""


@pytest.mark.parametrize(("wakes", "mode"), [(True, "append"), (False, "merge")])
def test_the_process_of_a_run_freezes_or_dies(
    engine: SparkEngine, tmp_path: Path, wakes: bool, mode: Mode
) -> None:
    """The server may finish the commit of a client that is gone: it counts once."""
    by_spark, by_us = flow(engine, mode=mode), flow(None, mode=mode)
    spark, ours = both(tmp_path, changes_from(1, deletes=True))
    command = [sys.executable, "-c", RUN, engine.remote, str(spark), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("merging" in line for line in process.stdout)
        process.send_signal(signal.SIGSTOP)
        frozen = applied(spark, by_spark)
        process.send_signal(signal.SIGCONT if wakes else signal.SIGKILL)
        assert process.wait(300) == (0 if wakes else -signal.SIGKILL)
    assert frozen == applied(ours, by_us)
    both(tmp_path, changes_from(1000, deletes=True))
    assert applied(spark, by_spark) == applied(ours, by_us)


def restored_by_delta_rs(engine: SparkEngine, uri: str, version: int) -> None:
    DeltaTable(uri).restore(version)


def restored_by_spark(engine: SparkEngine, uri: str, version: int) -> None:
    spark_server.connected(engine).run(f"RESTORE TABLE delta.`{uri}` TO VERSION AS OF {version}")


@pytest.mark.parametrize(
    ("restore", "mode"), [(restored_by_delta_rs, "merge"), (restored_by_spark, "append")]
)
def test_a_restored_table_goes_on_from_where_its_rows_are(
    engine: SparkEngine,
    tmp_path: Path,
    restore: Callable[[SparkEngine, str, int], None],
    mode: Mode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    by_spark, by_us = flow(engine, mode=mode), flow(None, mode=mode)
    states = []
    for number in (1, 11, 21):
        changes: list[Change] = [(number, "a", ORDER), (number + 1, f"k{number}", {})]
        spark, ours = both(tmp_path, [*changes, (number + 2, "b", None)])
        found = applied(spark, by_spark)
        states.append((DeltaTable(str(spark / "d")).version(), found))
    assert found == applied(ours, by_us)
    assert uses_spark(caplog)
    version, of_version = states[1]
    restore(engine, str(spark / "d"), version)
    assert rows(spark) == of_version
    assert applied(spark, by_spark) == found
    caplog.clear()
    both(tmp_path, [(31, "a", ORDER), (32, "k1", None)])
    assert applied(spark, by_spark) == applied(ours, by_us)
    assert uses_spark(caplog)
