"""The table of the sweep in the document, made from the ledger."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tests.store.sweep import Struck
from tests.store.sweep_table import MARKS, SweptStep, main

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_the_last_sweep_of_each_step_is_in_the_table(tmp_path: Path) -> None:
    found = [Struck(), Struck(raw=("an error",), lost=2, wrong=("lost",)), Struck(doubled=1)]
    steps = [
        SweptStep("run", 1, 1, 1, 1, 1),
        SweptStep.of("tick", 1000, [Struck()] * 1500),
        SweptStep.of("run", 17, found),
    ]
    ledger, document = tmp_path / "ledger", tmp_path / "doc.md"
    ledger.write_text("\n".join(json.dumps(asdict(one)) for one in steps))
    document.write_text("\n".join(["above", *MARKS, "below"]))
    main(str(ledger), str(document))
    rows = [line for line in document.read_text().splitlines() if line.startswith("| ")][1:]
    assert rows == [
        "| run | 17 | 3 | 1 | 2 | 1 |",
        "| tick | 1,000 | 1,500 | 0 | 0 | 0 |",
        "| all | 1,017 | 1,503 | 1 | 2 | 1 |",
    ]


def test_the_page_has_a_place_for_it() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert all(text.count(mark) == 1 for mark in MARKS)
