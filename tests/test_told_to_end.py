"""A run of tests that is told to end, as by a time limit, ends: its drains read nothing more."""

from __future__ import annotations

import threading

import pytest

from datazone_dagster.process import shutdown
from tests import conftest


def test_no_further_test_runs_in_a_process_that_was_told_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = threading.Event()
    monkeypatch.setattr(shutdown, "_requested", told)
    conftest.pytest_runtest_teardown()
    told.set()
    with pytest.raises(pytest.exit.Exception, match="told to end"):
        conftest.pytest_runtest_teardown()
