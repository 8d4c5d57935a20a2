"""What every merge engine must do, whatever it writes. Each engine's test module runs it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.delta import create_table, open_table, transaction
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.merge.claims import CLAIMS_SCHEMA, MergeBatch
from datazone_dagster.merge.dataset import KIND
from datazone_dagster.merge.engine import MergeEngine, MergeTarget
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.model.version import row_version

SCHEMA = pa.schema(
    [
        ("value", pa.int64()),
        ("part", pa.string()),
        ("_dz_key", pa.string()),
        ("_dz_version", pa.string()),
        ("_dz_event_time", pa.timestamp("us", tz="UTC")),
    ]
)

Claim = tuple[str, int, tuple[int, ...]]
"""Key, sequence number, values of its rows; no values: the key leaves."""


def version(number: int) -> str:
    return row_version(1, 10**25 + number)


def batch_of(claims: Iterable[Claim]) -> MergeBatch:
    claims = list(claims)
    return MergeBatch(
        pa.Table.from_pylist(
            [
                {
                    "_dz_key": key,
                    "_dz_version": version(number),
                    "cause": None if values else "user",
                }
                for key, number, values in claims
            ],
            schema=CLAIMS_SCHEMA,
        ),
        pa.Table.from_pylist(
            [
                {
                    "value": value,
                    "part": "ab"[value % 2],
                    "_dz_key": key,
                    "_dz_version": version(number),
                }
                for key, number, values in claims
                for value in values
            ],
            schema=SCHEMA,
        ),
    )


class EngineConformance:
    """Subclass with `engine` set, and `read` where rows need more than delta-rs' reader."""

    engine: MergeEngine
    partition_by: tuple[str, ...] = ()
    configuration: dict[str, str] = {}

    def new(self, root: Path) -> str:
        uri = str(root)
        create_table(
            uri,
            {},
            KIND,
            SCHEMA,
            partition_by=self.partition_by,
            configuration=self.configuration,
        )
        return uri

    def open(self, uri: str) -> DeltaTable:
        table = open_table(uri, {}, KIND)
        assert table is not None
        return table

    def merge(
        self, uri: str, claims: Iterable[Claim], table: DeltaTable | None = None, number: int = 0
    ) -> MergeCounts:
        table = table or self.open(uri)
        number = number or (table.transaction_version("apply/t") or 0) + 1
        target = MergeTarget("t", uri, {}, table, SCHEMA)
        return self.engine.merge(target, batch_of(claims), transaction("apply/t", number))

    def read(self, uri: str) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = pa.table(self.open(uri).scan()).to_pylist()
        return rows

    def state(self, uri: str) -> dict[str, tuple[str, tuple[int, ...]]]:
        found: dict[str, tuple[str, list[int]]] = {}
        for row in self.read(uri):
            held = found.setdefault(str(row["_dz_key"]), (str(row["_dz_version"]), []))
            assert held[0] == row["_dz_version"], "rows of one key have two versions"
            assert isinstance(row["value"], int)
            held[1].append(row["value"])
        return {key: (held, tuple(sorted(values))) for key, (held, values) in found.items()}

    def test_inserts_updates_and_deletes_are_counted_and_seen(self, tmp_path: Path) -> None:
        uri = self.new(tmp_path)
        assert self.merge(uri, [("a", 1, (1,)), ("b", 2, (2,))]) == MergeCounts(2, 0, 0)
        assert self.merge(uri, [("a", 3, (3,)), ("b", 4, ()), ("c", 5, (5,))]) == MergeCounts(
            1, 1, 1
        )
        assert self.state(uri) == {"a": (version(3), (3,)), "c": (version(5), (5,))}

    def test_an_older_or_equal_version_changes_nothing(self, tmp_path: Path) -> None:
        uri = self.new(tmp_path)
        self.merge(uri, [("a", 5, (5,))])
        assert self.merge(uri, [("a", 5, (6,))]) == MergeCounts()
        assert self.merge(uri, [("a", 4, ())]) == MergeCounts()
        assert self.state(uri) == {"a": (version(5), (5,))}

    def test_the_rows_of_a_key_are_replaced_as_one(self, tmp_path: Path) -> None:
        uri = self.new(tmp_path)
        self.merge(uri, [("a", 1, (1, 2, 3)), ("b", 1, (9, 9))])
        self.merge(uri, [("a", 2, (7, 8))])
        assert self.state(uri) == {"a": (version(2), (7, 8)), "b": (version(1), (9, 9))}

    def test_the_position_moves_even_if_no_row_changes(self, tmp_path: Path) -> None:
        uri = self.new(tmp_path)
        self.merge(uri, [("a", 5, (5,))])
        self.merge(uri, [("a", 4, (4,)), ("never", 4, ())])
        self.merge(uri, [])
        assert self.open(uri).transaction_version("apply/t") == 3

    def test_of_two_merges_from_one_version_the_second_fails_and_writes_nothing(
        self, tmp_path: Path
    ) -> None:
        uri = self.new(tmp_path)
        self.merge(uri, [("a", 1, (1,))])
        for first, second in [
            ([("a", 2, (2,))], [("b", 2, (2,))]),
            ([("b", 3, (3,))], [("a", 3, (9,))]),
            ([("c", 4, (4,))], [("d", 4, (4,))]),
        ]:
            number = (self.open(uri).transaction_version("apply/t") or 0) + 1
            one, other = self.open(uri), self.open(uri)
            self.merge(uri, first, table=one, number=number)
            before = self.state(uri)
            try:
                self.merge(uri, second, table=other, number=number)
            except ConcurrentWriterError:
                pass
            else:
                raise AssertionError("both merges from one version succeeded")
            assert self.state(uri) == before

    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(
        batches=st.lists(
            st.lists(
                st.tuples(
                    st.sampled_from("abcdef"),
                    st.integers(1, 30),
                    st.lists(st.integers(0, 99), max_size=3).map(tuple),
                ),
                max_size=6,
                unique_by=lambda claim: claim[0],
            ),
            max_size=6,
        )
    )
    def test_any_sequence_of_batches_equals_the_model(
        self, tmp_path_factory: object, batches: list[list[Claim]]
    ) -> None:
        uri = self.new(tmp_path_factory.mktemp("table"))  # type: ignore[attr-defined] # pytest's factory
        model: dict[str, tuple[str, tuple[int, ...]]] = {}
        for claims in batches:
            self.merge(uri, claims)
            for key, number, values in claims:
                if key not in model or version(number) > model[key][0]:
                    if values:
                        model[key] = (version(number), tuple(sorted(values)))
                    else:
                        model.pop(key, None)
            assert self.state(uri) == model
