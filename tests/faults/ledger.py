"""What each fault did: injected, written, in the dataset, lost, doubled. Made by the tests.

With `DATAZONE_FAULT_LEDGER` set to a path, every fault test adds a line to that file;
`python -m tests.faults.reliability_table` puts them into docs/reliability.md.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass

ENVIRONMENT = "DATAZONE_FAULT_LEDGER"


@dataclass(frozen=True)
class Entry:
    fault: str
    injected: int
    written: int
    in_dataset: int
    lost: int
    doubled: int


def note(fault: str, injected: int, written: Counter[str], in_dataset: Counter[str]) -> Entry:
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
            lines.write(json.dumps(asdict(entry)) + "\n")
    return entry
