"""Tables hold what plain Python computes though records are refused, wait and are redriven later.

Each case refuses the values `x` and `y` in its own way: the function raises, a contract, an
expectation or a partition does not take them. Level 1 takes `x`, level 2 takes both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster import Expect
from datazone_dagster.frame.frame import Frame
from datazone_dagster.pipeline import quarantine_report
from datazone_dagster.process import crash_points
from datazone_dagster.testing import Crash, crash_at
from tests.examples import examples
from tests.truth.reference import Admission, Change, Row, merged, value
from tests.truth.world import MODES, World

BAD: Sequence[Sequence[str]] = (("x", "y"), ("y",), ())
"""Values that are refused at each level."""

Settings = Mapping[str, Any]
Written = tuple[str, str] | str
"""Texts of `s` and `u` of an item that is put; or a delete, by a user or by time to live."""


def quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in (*names, "none"))


class Case(NamedTuple):
    """One way to refuse a value.

    Args:
        columns: Expressions of `s` and `u`, by level.
        raises: Whether Python code raises, on values of which images.
        dataset: Settings of the dataset, by level.
        flow: Settings of the transform, by level.
        of_rows: Whether rows are refused, so that a change without rows is not.
        shown: What a row shows for a value.
        item: What an item has for a value.
    """

    columns: Callable[[int], Sequence[str]] = lambda _: (PLAIN, U)
    raises: Sequence[str] = ()
    dataset: Callable[[int], Settings] = lambda _: {}
    flow: Callable[[int], Settings] = lambda _: {}
    of_rows: bool = True
    shown: Callable[[str | None], str | None] = lambda text: text
    item: Callable[[str], Mapping[str, Any]] = lambda text: {"S": text}
    levels: Sequence[Sequence[str]] = BAD


PLAIN = "dynamodb.NewImage.s.S as s"
U = "dynamodb.NewImage.u.N as u"
SCHEMA = pa.schema([("s", pa.string()), ("u", pa.string()), ("c", pa.int32())])
STRICT = pa.schema([*list(SCHEMA)[:2], pa.field("c", pa.int32(), nullable=False)])
ALL_OR_NONE = (("x", "y"), ("x", "y"), ())


def marked_by(number: str) -> Callable[[int], Sequence[str]]:
    return lambda level: (
        PLAIN,
        U,
        f"case when dynamodb.NewImage.s.S in ({quoted(BAD[level])}) then {number} "
        "else cast(1 as bigint) end as c",
    )


CASES: Mapping[str, Case] = {
    "raises": Case(raises=["new_image"], flow=lambda _: {"on_error": "quarantine"}, of_rows=False),
    "raises on both": Case(
        raises=["new_image", "old_image"],
        flow=lambda _: {"on_error": "quarantine"},
        of_rows=False,
    ),
    "cast": Case(
        columns=lambda level: (
            f"case when dynamodb.NewImage.s.S in ({quoted(BAD[level])}) then "
            "cast(cast('?' || dynamodb.NewImage.s.S as bigint) as varchar) "
            "else dynamodb.NewImage.s.S end as s",
            U,
        ),
        flow=lambda _: {"on_error": "quarantine"},
    ),
    "expectation": Case(
        dataset=lambda level: {
            "expect": {"known": Expect(f"s not in ({quoted(BAD[level])})", "quarantine")}
        }
    ),
    "expectation of one row": Case(
        columns=lambda _: (PLAIN, U, "unnest([1, 2]) as part"),
        dataset=lambda level: {
            "expect": {
                "known": Expect(f"part = 1 or s not in ({quoted(BAD[level])})", "quarantine")
            }
        },
    ),
    "contract": Case(
        columns=marked_by("cast(3000000000 as bigint)"),
        dataset=lambda _: {"schema": SCHEMA, "schema_policy": "quarantine"},
    ),
    "no null": Case(
        columns=marked_by("null"),
        dataset=lambda _: {"schema": STRICT, "schema_policy": "quarantine"},
    ),
    "mismatch": Case(
        flow=lambda level: {"on_mismatch": "null" if level == 2 else "quarantine"},
        item=lambda text: {"N": "1"} if text in {"x", "y"} else {"S": text},
        shown=lambda text: None if text in {"x", "y"} else text,
        levels=ALL_OR_NONE,
    ),
    "partition": Case(
        columns=lambda level: (
            "dynamodb.NewImage.s.S as s"
            if level < 2
            else "case when dynamodb.NewImage.s.S = '' then 'e' "
            "else dynamodb.NewImage.s.S end as s",
            U,
        ),
        dataset=lambda _: {"partition_by": ["s"]},
        item=lambda text: {"S": "" if text in {"x", "y"} else text},
        shown=lambda text: "e" if text in {"x", "y"} else text,
        levels=ALL_OR_NONE,
    ),
}

LIMITS = {"quarantine_limit": 1.0}


def columns_of(case: Case) -> set[str]:
    return {text.rsplit(" ", 1)[1] for text in case.columns(0)}


class Flow:
    """A world whose function and settings follow the level, next to its reference."""

    def __init__(
        self,
        root: Path,
        mode: str,
        case: Case,
        *,
        filters: bool = False,
        reads: bool = False,
        ignores: bool = False,
        chunk_bytes: int = 0,
    ) -> None:
        self.case, self.filters, self.reads = case, filters, reads
        self.world = World(root, mode, self.function, chunk_bytes=chunk_bytes)
        ttl_deletes = "ignore" if ignores else "apply"
        self.ignores, self.of_mode = ignores, {**self.world.dataset, "ttl_deletes": ttl_deletes}
        self.expected = Admission(mode == "append", self.is_bad)
        self.set_level(0)

    def function(self, changes: Frame) -> object:
        level = self.level
        for image in self.case.raises:
            name = {"new_image": "NewImage", "old_image": "OldImage"}[image]
            texts = changes.select(f"dynamodb.{name}.s.S as s").arrow()["s"].to_pylist()
            if bad := set(texts) & set(BAD[level]):
                raise ValueError(f"refused: {bad}")
        if self.filters:
            changes = changes.filter("dynamodb.NewImage.u.N is distinct from '2'")
        rows = changes.select(*self.case.columns(level))
        return rows.arrow() if self.reads else rows

    def set_level(self, level: int) -> None:
        self.level = level
        self.world.dataset = {**self.of_mode, **self.case.dataset(level), **LIMITS}
        self.world.flow_settings = self.case.flow(level)

    def write(self, operations: Sequence[tuple[str, Written]]) -> None:
        self.world.write(
            (key, written)
            if isinstance(written, str)
            else (
                key,
                {"s": self.case.item(written[0]), "u": {"N": written[1]}, "was": {"S": written[0]}},
            )
            for key, written in operations
        )

    def apply(self) -> None:
        self.world.apply()
        self.expected.apply(self.changes())

    def redrive(self) -> None:
        waiting = self.world.redrive()
        self.expected.redrive()
        if self.world.reference is not merged and not self.ignores:
            assert waiting == len(self.expected.waiting)

    def rebuild(self) -> None:
        self.world.rebuild()
        self.expected.rebuild()
        self.apply()

    def changes(self) -> list[Change]:
        """Return the changes that have an effect on the dataset."""
        return [one for one in self.world.changes() if not (self.ignores and one.is_ttl)]

    def rows_of(self, change: Change) -> Sequence[Row]:
        text, number = value(change.new, "was", "S"), value(change.new, "u", "N")
        if self.filters and number == "2":
            return []
        row = {"s": self.case.shown(text), "u": number}
        more = [{"c": 1}] if "c" in columns_of(self.case) else [{}]
        if "part" in columns_of(self.case):
            more = [{"part": 1}, {"part": 2}]
        return [{**row, **one} for one in more]

    def is_bad(self, change: Change) -> bool:
        old = change.old if "old_image" in self.case.raises else None
        texts = {value(image, "was", "S") for image in (change.new, old)}
        is_bad = bool(texts & set(self.case.levels[self.level]))
        return is_bad and (not self.case.of_rows or bool(self.rows_of(change)))

    def check(self) -> None:
        self.world.check(self.world.reference(self.expected.taken, self.rows_of))


KEYS = st.sampled_from(["k", "K", 'é"'])
WRITTEN = st.tuples(st.sampled_from("abxy"), st.sampled_from("12"))
STEPS = st.one_of(
    st.lists(
        st.tuples(KEYS, WRITTEN | st.sampled_from(["delete", "expire"])), min_size=1, max_size=8
    ),
    st.sampled_from(["redrive", "rebuild", "apply", 0, 1, 2]),
)
POINTS = (*crash_points.POINTS, *crash_points.OPERATOR_POINTS)
CRASHES = st.none() | st.tuples(st.sampled_from(POINTS), st.integers(1, 2))


def survived(action: Callable[[], None], crash: tuple[str, int] | None) -> None:
    """Do something, again if it dies; what is expected follows the time that it works."""
    if crash is not None:
        try:
            with crash_at(*crash):
                action()
        except Crash:
            pass
        else:
            return
    action()


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=examples(12), deadline=None)
@given(
    mode=st.sampled_from(list(MODES)),
    first=st.lists(st.tuples(KEYS, WRITTEN), min_size=1, max_size=8),
    steps=st.lists(st.tuples(STEPS, CRASHES), max_size=6),
    filters=st.booleans(),
    reads=st.booleans(),
    ignores=st.booleans(),
    chunk_bytes=st.sampled_from([0, 1, 900]),
)
def test_refused_records_are_left_out_until_they_are_redriven(
    tmp_path_factory: pytest.TempPathFactory,
    case: str,
    mode: str,
    first: list[tuple[str, Written]],
    steps: list[tuple[Any, tuple[str, int] | None]],
    filters: bool,
    reads: bool,
    ignores: bool,
    chunk_bytes: int,
) -> None:
    flow = Flow(
        tmp_path_factory.mktemp("lake"),
        mode,
        CASES[case],
        filters=filters,
        reads=reads,
        ignores=ignores,
        chunk_bytes=chunk_bytes,
    )
    flow.write(first)
    flow.apply()
    flow.check()
    for step, crash in steps:
        if isinstance(step, int):
            flow.set_level(step)
        elif isinstance(step, str):
            survived(getattr(flow, step), crash)
            flow.check()
        else:
            flow.write(step)
    survived(flow.apply, None)
    flow.check()
    flow.set_level(2)
    flow.redrive()
    assert not flow.expected.waiting
    flow.check()
    everything = flow.world.reference(flow.changes(), flow.rows_of)
    flow.world.check(everything)
    flow.rebuild()
    flow.world.check(everything)


def test_what_a_rebuild_has_taken_does_not_wait(tmp_path: Path) -> None:
    flow = Flow(tmp_path, "append", CASES["raises"])
    flow.write([("k", ("a", "1")), ("K", ("x", "1")), ('"', ("y", "1")), ('"', ("a", "1"))])
    flow.apply()
    flow.set_level(1)
    flow.rebuild()
    assert quarantine_report(flow.world.flow, "d", flow.world.layout).waiting == 2
    flow.write([("K", ("b", "1"))])
    flow.apply()
    flow.check()


def test_no_change_waits_behind_a_delete_that_the_dataset_ignores(tmp_path: Path) -> None:
    flow = Flow(tmp_path, "append", CASES["raises on both"], ignores=True)
    flow.set_level(2)
    flow.write([("k", ("x", "1"))])
    flow.apply()
    flow.set_level(0)
    flow.write([("k", "expire")])
    flow.apply()
    flow.write([("k", ("a", "1"))])
    flow.apply()
    flow.check()
    flow.redrive()
    flow.check()
