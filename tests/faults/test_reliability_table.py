from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.guards import GUARDS
from tests.faults.ledger import ENVIRONMENT, Entry, entries_of, record
from tests.faults.reliability_table import FAULTS, GUARDED, guard_rows, main, markdown


def test_lost_and_doubled_events_are_counted_separately(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "ledger"))
    entry = record("a fault", 3, Counter("abc"), Counter("abb"))
    assert entry == Entry("a fault", 3, written=3, in_dataset=3, lost=1, doubled=1)
    record("a fault", 1, Counter("abc"), Counter("abc"))
    document = tmp_path / "doc.md"
    lines = ["above", FAULTS[0], "old", FAULTS[1], "between", *GUARDED, "below"]
    document.write_text("\n".join(lines))
    main(str(tmp_path / "ledger"), str(document))
    text = document.read_text()
    assert "| a fault | 4 | 6 | 6 | 1 | 1 |" in text
    assert guard_rows(GUARDS) in text
    left = [line for line in text.splitlines() if line in lines]
    assert left == ["above", *FAULTS, "between", *GUARDED, "below"]


def test_only_the_last_run_of_a_test_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run was stopped, and a second run executed the remaining tests."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "ledger"))
    for run, tests in (("first", "ab"), ("second", "bc")):
        monkeypatch.setattr(ledger, "RUN", run)
        for test in tests:
            monkeypatch.setenv("PYTEST_CURRENT_TEST", f"tests/test_it.py::test_{test} (call)")
            record(f"{test} in the {run} run", 1, Counter("abc"), Counter("abc"))
            record(f"{test} once more", 1, Counter("abc"), Counter("abc"))
    entries = entries_of((tmp_path / "ledger").read_text().splitlines())
    assert [entry.fault for entry in entries] == [
        "a in the first run",
        "a once more",
        "b in the second run",
        "b once more",
        "c in the second run",
        "c once more",
    ]


def test_the_sum_is_above_the_table() -> None:
    entries = [Entry("b", 1, 1000, 1000, 0, 0), Entry("A", 2, 500, 500, 0, 0)]
    text = markdown(entries, date(2030, 1, 2))
    assert text.startswith("Made on 2030-01-02: 3 faults, 0 events lost, 0 doubled.")
    assert text.index("| A |") < text.index("| b |")
