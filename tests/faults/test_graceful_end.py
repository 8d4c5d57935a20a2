"""SIGTERM in a drain: the records read so far are committed, the next drain reads the rest."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection
from types import FrameType

import pytest

from datazone_dagster.local import Fault, FaultKind, LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import DrainSettings, drain_once
from datazone_dagster.process.shutdown import notice_sigterm, shutdown_requested
from tests.faults.orders import SOURCE, landed_event_ids
from tests.faults.world import (
    OrdersTable,
    assert_exactly_once,
    catch_up,
    grace_seconds,
    stream_client,
)
from tests.forked import forked


def drain_slowly(endpoint_url: str, root: str, sender: Connection) -> None:
    """Drain in a process that handles SIGTERM, as Dagster's code server does."""
    handled = []

    def handle(number: int, _frame: FrameType | None) -> None:
        handled.append(number)

    def noticed_before_the_handler_was_replaced() -> bool:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        noticed = notice_sigterm()
        signal.signal(signal.SIGTERM, handle)
        return noticed

    assert noticed_before_the_handler_was_replaced()
    sender.send("ready")
    settings = DrainSettings(budget_seconds=60, max_workers=1)
    report = drain_once(SOURCE, stream_client(endpoint_url), Layout(root), settings=settings)
    sender.send((report.records, report.caught_up, handled))


def test_a_drain_commits_what_it_read_before_a_shutdown(
    server: LocalDynamoDB, layout: Layout
) -> None:
    table = OrdersTable(server.endpoint_url, seed=4)
    table.create()
    written = table.write_many_pages(pages=8)
    table.admin.set_faults([Fault("GetRecords", FaultKind.SLOW, times=None, delay_seconds=0.7)])
    context = forked()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=drain_slowly, args=(server.endpoint_url, layout.uri, sender), daemon=True
    )
    process.start()
    sender.close()
    assert receiver.recv() == "ready"
    while not table.admin.counters()["records"]:
        process.join(0.02)
    assert process.pid is not None
    started = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    records, caught_up, handled = receiver.recv()
    process.join(grace_seconds())
    assert time.monotonic() - started < grace_seconds()
    assert process.exitcode == 0
    assert handled == [signal.SIGTERM], "its own handler has to run too"
    assert not caught_up
    table.admin.clear_faults()
    assert 0 < records == landed_event_ids(layout).total() < written

    catch_up(server.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="SIGTERM in a drain")


@pytest.mark.parametrize("forked", [False, True])
def test_signals_of_other_processes_are_ignored(forked: bool) -> None:
    """This process was sent no signal, even if its forks were."""
    assert not shutdown_requested()
    if forked:
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            noticed = notice_sigterm()
            signal.signal(signal.SIGTERM, lambda _number, _frame: None)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0 if noticed and shutdown_requested() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert not shutdown_requested()
