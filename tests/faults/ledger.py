"""Ledger of the fault tests: for each fault, events injected, written, found, lost and doubled.

With `DATAZONE_FAULT_LEDGER` set to a path, every fault test adds a line to that file, and
`python -m tests.faults.reliability_table` puts the sums into docs/reliability.md. A line names
its test: if a test ran in several runs of pytest, its last run counts.
"""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

ENVIRONMENT = "DATAZONE_FAULT_LEDGER"
RUN = uuid.uuid4().hex
"""Id of this run of pytest."""


@dataclass(frozen=True)
class Entry:
    fault: str
    injected: int
    written: int
    in_dataset: int
    lost: int
    doubled: int


def record(fault: str, injected: int, written: Counter[str], in_dataset: Counter[str]) -> Entry:
    entry = Entry(
        fault,
        injected,
        written.total(),
        in_dataset.total(),
        lost=(written - in_dataset).total(),
        doubled=(in_dataset - written).total(),
    )
    path = os.environ.get(ENVIRONMENT)
    if path:
        with open(path, "a", encoding="utf-8") as lines:
            test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
            lines.write(json.dumps({"run": RUN, "test": test, **asdict(entry)}) + "\n")
    return entry


def entries_of(lines: Iterable[str]) -> list[Entry]:
    """Return the entries of a ledger, for each test only those of its last run."""
    found = [json.loads(line) for line in lines]
    last_run = {one["test"]: one["run"] for one in found}
    return [
        Entry(**{name: one[name] for name in Entry.__dataclass_fields__})
        for one in found
        if one["run"] == last_run[one["test"]]
    ]
