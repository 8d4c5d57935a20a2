"""Put the results of the fault tests, and the guards, into docs/reliability.md.

`python -m tests.faults.reliability_table LEDGER DOCUMENT`
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

from tests.faults.guards import GUARDS, Guard
from tests.faults.ledger import Entry, entries_of

FAULTS = ("<!-- made by make test-faults: faults -->", "<!-- end of faults -->")
GUARDED = ("<!-- made by make test-faults: guards -->", "<!-- end of guards -->")


def by_fault(entries: Iterable[Entry]) -> Mapping[str, Entry]:
    """Return one entry per fault: the sum of its tests."""
    sums: dict[str, Entry] = {}
    for entry in entries:
        known = sums.get(entry.fault, Entry(entry.fault, 0, 0, 0, 0, 0))
        sums[entry.fault] = Entry(
            entry.fault,
            known.injected + entry.injected,
            known.written + entry.written,
            known.in_dataset + entry.in_dataset,
            known.lost + entry.lost,
            known.doubled + entry.doubled,
        )
    return sums


def markdown(entries: Iterable[Entry], made_on: date) -> str:
    sums = by_fault(entries)
    total = by_fault(
        Entry("all", one.injected, one.written, one.in_dataset, one.lost, one.doubled)
        for one in sums.values()
    )["all"]
    rows = [_row(sums[fault]) for fault in sorted(sums, key=str.casefold)]
    return "\n".join(
        [
            f"Made on {made_on.isoformat()}: {total.injected:,} faults, {total.lost} events lost, "
            f"{total.doubled} doubled.",
            "",
            "| Fault | Injected | Events written | In the dataset | Lost | Doubled |",
            "|---|--:|--:|--:|--:|--:|",
            *rows,
        ]
    )


def _row(entry: Entry) -> str:
    numbers = (entry.injected, entry.written, entry.in_dataset, entry.lost, entry.doubled)
    return f"| {entry.fault} | " + " | ".join(f"{number:,}" for number in numbers) + " |"


def guard_rows(guards: Iterable[Guard]) -> str:
    rows = [f"| {one.what} | `{one.file}` | `tests/{one.test}` |" for one in guards]
    return "\n".join(["| Guard | Where | The test that fails without it |", "|---|---|---|", *rows])


def put_into(document: str, marks: tuple[str, str], made: str) -> str:
    before, begin, rest = document.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise SystemExit(f"The document has no lines {marks[0]!r} and {marks[1]!r}.")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def main(ledger: str, document: str) -> None:
    lines = Path(ledger).read_text("utf-8").splitlines()
    table = markdown(entries_of(lines), date.today())
    path = Path(document)
    text = put_into(path.read_text("utf-8"), FAULTS, table)
    path.write_text(put_into(text, GUARDED, guard_rows(GUARDS)), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
