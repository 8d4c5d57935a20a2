"""Tables hold what plain Python computes though columns come, go and change their types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.frame.frame import Frame
from tests.examples import examples
from tests.truth.reference import Admission, Change, Item, Row, value
from tests.truth.world import MODES, World

TEXT, NOTE = "dynamodb.NewImage.s.S", "dynamodb.NewImage.note.S"
NUMBER, DAY = "dynamodb.NewImage.n.N", "dynamodb.NewImage.day.S"
COLUMNS: Mapping[str, Sequence[str]] = {
    "s": [TEXT],
    "note": [NOTE],
    "n": [
        f"cast({NUMBER} as {kind})"
        for kind in ("tinyint", "smallint", "integer", "bigint", "decimal(9, 2)", "decimal(38, 9)")
    ],
    "f": [f"cast({NUMBER} as {kind})" for kind in ("tinyint", "integer", "double")],
    "day": [f"cast({DAY} as date)", f"cast({DAY} as timestamptz)"],
    "list": [f"[cast({NUMBER} as {kind})]" for kind in ("tinyint", "bigint", "decimal(20, 1)")],
    "pair": [
        f"{{'x': cast({NUMBER} as smallint)}}",
        f"{{'x': cast({NUMBER} as bigint), 'y': {TEXT}}}",
        f"{{'y': {TEXT}}}",
    ],
}
"""Expressions of a column: any two of them have a type that holds the values of both."""


@dataclass(frozen=True)
class Version:
    """One version of the function.

    Args:
        columns: Expression of each column, as an index into those of `COLUMNS`.
        refuses: Whether it raises where the text is `x`.
        reads: Whether it reads its chunk itself.
    """

    columns: Mapping[str, int]
    refuses: bool = False
    reads: bool = False

    def __call__(self, changes: Frame) -> object:
        """Select the columns."""
        if self.refuses:
            texts = changes.select(f"{TEXT} as s").arrow()["s"].to_pylist()
            if "x" in texts:
                raise ValueError("an x")
        columns = [f"{COLUMNS[name][at]} as {name}" for name, at in self.columns.items()]
        rows = changes.select(*columns)
        return rows.arrow() if self.reads else rows

    def is_refused(self, change: Change) -> bool:
        return self.refuses and value(change.new, "s", "S") == "x"

    def row(self, change: Change) -> Row:
        text, number = value(change.new, "s", "S"), value(change.new, "n", "N")
        day, exact = value(change.new, "day", "S"), None if number is None else Decimal(number)
        pairs: Sequence[Mapping[str, Any]] = ({"x": exact}, {"x": exact, "y": text}, {"y": text})
        found = {
            "s": text,
            "note": value(change.new, "note", "S"),
            "n": exact,
            "f": exact,
            "day": None if day is None else date.fromisoformat(day),
            "list": [exact],
            "pair": pairs[self.columns.get("pair", 0)],
        }
        return {name: plain(found[name] if name in self.columns else None) for name in found}


def plain(found: Any) -> Any:
    """Return a value in one form whatever its type: numbers and times as texts."""
    if isinstance(found, Mapping):
        return {name: plain(one) for name, one in found.items() if one is not None}
    if isinstance(found, list):
        return [plain(one) for one in found]
    if isinstance(found, date):
        day = datetime(found.year, found.month, found.day, tzinfo=timezone.utc)
        return (found if isinstance(found, datetime) else day).isoformat()
    if isinstance(found, (int, float, Decimal)) and not isinstance(found, bool):
        return str(Decimal(found).normalize())
    return found


class Flow:
    """A world whose function changes, next to its reference."""

    def __init__(self, root: Path, mode: str, version: Version, **settings: Any) -> None:
        self.version = version
        self.made_by: dict[int, Version] = {}
        self.world = World(root, mode, self.function, flow={"on_error": "quarantine"}, **settings)
        self.admission = Admission(mode == "append", self.is_refused)

    def function(self, changes: Frame) -> object:
        return self.version(changes)

    def is_refused(self, change: Change) -> bool:
        return self.version.is_refused(change)

    def do(self, action: str) -> None:
        """Apply, redrive or rebuild; the changes that are taken are made by this version."""
        getattr(self.world, action)()
        admission = self.admission
        taken: Mapping[str, Callable[[], list[Change]]] = {
            "apply": lambda: admission.apply(self.world.changes()),
            "redrive": admission.redrive,
            "rebuild": admission.rebuild,
        }
        self.made_by |= {one.number: self.version for one in taken[action]()}
        if action == "rebuild":  # it may have gone on to changes that were not applied before
            self.do("apply")
        self.check()

    def check(self) -> None:
        def rows_of(change: Change) -> Sequence[Row]:
            return [self.made_by[change.number].row(change)]

        self.world.check(self.world.reference(self.admission.taken, rows_of), form=plain)


PARTITIONS = st.lists(st.sampled_from(["s", "n", "day", "f"]), max_size=2, unique=True)
VERSIONS = st.builds(
    Version,
    st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(range(len(found))) for name, found in COLUMNS.items()}
    ).filter(bool),
    st.booleans(),
    st.booleans(),
)
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "s": st.sampled_from(["a", "b", "x"]).map(lambda text: {"S": text}),
        "note": st.sampled_from(["p", "q"]).map(lambda text: {"S": text}),
        "n": st.sampled_from(["1", "-7", "100"]).map(lambda text: {"N": text}),
        "day": st.sampled_from(["2024-01-01", "2024-02-29"]).map(lambda text: {"S": text}),
    },
)
WRITES = st.lists(
    st.tuples(st.sampled_from(["k", "K", 'é"']), ITEM | st.just("delete")), min_size=1, max_size=7
)
STEPS = st.one_of(WRITES, VERSIONS, st.sampled_from(["apply", "redrive", "rebuild"]))


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=examples(12), deadline=None)
@given(
    partition_by=PARTITIONS,
    chunk_bytes=st.sampled_from([0, 1, 900]),
    first=VERSIONS,
    begins=WRITES,
    steps=st.lists(STEPS, min_size=2, max_size=9),
)
def test_each_row_is_as_the_version_of_the_function_made_it(
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
    partition_by: list[str],
    chunk_bytes: int,
    first: Version,
    begins: list[tuple[str, Item | str]],
    steps: list[list[tuple[str, Item | str]] | Version | str],
) -> None:
    first = Version({**dict.fromkeys(partition_by, 0), **first.columns}, first.refuses, first.reads)
    dataset = {"partition_by": partition_by, "quarantine_limit": 1.0}
    root = tmp_path_factory.mktemp("lake")
    flow = Flow(root, mode, first, dataset=dataset, chunk_bytes=chunk_bytes)
    flow.world.write([("k", {"n": {"N": "1"}}), *begins])
    flow.do("apply")
    for step in steps:
        if isinstance(step, Version):
            flow.version = step
        elif isinstance(step, str):
            if step == "rebuild":  # it makes the table again, which has to have these columns
                flow.version = Version({**dict.fromkeys(partition_by, 0), **flow.version.columns})
            flow.do(step)
        else:
            flow.world.write(step)
    flow.do("apply")
    flow.version = Version({**dict.fromkeys(partition_by, 0), **flow.version.columns})
    flow.do("redrive")
    assert not flow.admission.waiting
    flow.do("rebuild")
