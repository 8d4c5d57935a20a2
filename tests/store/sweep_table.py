"""The table of the sweep: at the end of pytest's output, and in docs/reliability.md.

`make test-store` has pytest write the steps to DATAZONE_SWEEP_LEDGER, and runs
`python -m tests.store.sweep_table LEDGER DOCUMENT`. If a step was swept several times, the last
one counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.reliability_table import put_into

if TYPE_CHECKING:
    from tests.store.sweep import Struck

SWEEP = "sweep"
"""Name of the property of a test's report."""

ENVIRONMENT = "DATAZONE_SWEEP_LEDGER"
MARKS = ("<!-- made by make test-store: sweep -->", "<!-- end of sweep -->")


@dataclass(frozen=True, slots=True)
class SweptStep:
    """Result of the sweep of one step.

    Args:
        step: Name of the step.
        requests: Requests that it takes.
        struck: Requests that failed, one at a time.
        raw: Errors that were not of the library.
        lost: Events lost.
        doubled: Events doubled.
    """

    step: str
    requests: int
    struck: int
    raw: int
    lost: int
    doubled: int

    @classmethod
    def of(cls, step: str, requests: int, found: Sequence[Struck]) -> SweptStep:
        return cls(
            step,
            requests,
            len(found),
            sum(len(one.raw) for one in found),
            sum(one.lost for one in found),
            sum(one.doubled for one in found),
        )


def table_of(steps: Iterable[SweptStep]) -> str:
    """Return the table in Markdown."""
    rows = sorted(steps, key=lambda one: one.step)
    total = SweptStep(
        "all",
        sum(one.requests for one in rows),
        sum(one.struck for one in rows),
        sum(one.raw for one in rows),
        sum(one.lost for one in rows),
        sum(one.doubled for one in rows),
    )
    return "\n".join(
        [
            "| Step | Its requests | Failed, one at a time | Raw errors | Lost | Doubled |",
            "|---|--:|--:|--:|--:|--:|",
            *(_row(one) for one in (*rows, total)),
        ]
    )


def _row(one: SweptStep) -> str:
    numbers = (one.requests, one.struck, one.raw, one.lost, one.doubled)
    return f"| {one.step} | " + " | ".join(f"{number:,}" for number in numbers) + " |"


def main(ledger: str, document: str) -> None:
    lines = Path(ledger).read_text("utf-8").splitlines()
    last = {one["step"]: SweptStep(**one) for one in map(json.loads, lines)}
    path = Path(document)
    path.write_text(put_into(path.read_text("utf-8"), MARKS, table_of(last.values())), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
