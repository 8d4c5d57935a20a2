"""Puts what the fault tests wrote down into docs/reliability.md.

`python -m tests.faults.reliability_table LEDGER DOCUMENT`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

from tests.faults.ledger import Entry

BEGIN = "<!-- made by make test-faults -->"
END = "<!-- end of what is made -->"


def by_fault(entries: Iterable[Entry]) -> Mapping[str, Entry]:
    """One entry a fault: the sum of its tests."""
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
            f"Made on {made_on.isoformat()}: {total.injected:,} faults, {total.written:,} events, "
            f"{total.lost} lost, {total.doubled} doubled.",
            "",
            "| Fault | Injected | Events written | In the dataset | Lost | Doubled |",
            "|---|--:|--:|--:|--:|--:|",
            *rows,
        ]
    )


def _row(entry: Entry) -> str:
    numbers = (entry.injected, entry.written, entry.in_dataset, entry.lost, entry.doubled)
    return f"| {entry.fault} | " + " | ".join(f"{number:,}" for number in numbers) + " |"


def put_into(document: str, table: str) -> str:
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(
            f"The document has no lines {BEGIN!r} and {END!r} to put the table between."
        )
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main(ledger: str, document: str) -> None:
    lines = Path(ledger).read_text("utf-8").splitlines()
    table = markdown((Entry(**json.loads(line)) for line in lines), date.today())
    path = Path(document)
    path.write_text(put_into(path.read_text("utf-8"), table), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
