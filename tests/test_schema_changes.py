"""What happens to a dataset when its result changes: evolution, contracts, type changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake import Field as DeltaField
from deltalake.schema import PrimitiveType
from pydantic import BaseModel

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.dataset.quarantine import KIND as QUARANTINE
from datazone_dagster.delta import open_table
from datazone_dagster.errors import DefinitionError, ResultError, SchemaChangeError
from datazone_dagster.model.column_names import HIDDEN
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    ApplySettings,
    apply_transform,
    drain_once,
    read_dataset,
    redrive_dataset,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import Crash, ScriptedStream, crash_at

SOURCE = DynamoDBSource("orders")
EVERY_BATCH = ApplySettings(chunk_bytes=1)


class World:
    """A stream and a dataset whose columns change from one run to the next."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(str(root))
        self.stream = ScriptedStream("orders")

    def put(self, key: str, **numbers: object) -> None:
        typed = {
            name: {"N": str(value)} if isinstance(value, int | float) else {"S": str(value)}
            for name, value in numbers.items()
        }
        self.stream.put({"id": {"S": key}, **typed})

    def apply(self, *columns: str, **dataset: Any) -> Any:
        drain_once(SOURCE, self.stream, self.layout)
        flow = transform_of(columns, **dataset)
        return apply_transform(flow, self.layout, settings=EVERY_BATCH)["d"]

    @property
    def table(self) -> DeltaTable:
        return DeltaTable(self.layout.dataset("d"))

    def rows(self, column: str) -> dict[str, Any]:
        found = read_dataset(self.layout, "d").to_pylist()
        return {row["id"]: row[column] for row in found}

    def type_of(self, column: str) -> pa.DataType:
        return pa.schema(self.table.schema().to_arrow()).field(column).type

    def quarantined(self) -> list[dict[str, Any]]:
        table = open_table(self.layout.quarantine("d"), {}, QUARANTINE)
        return [] if table is None else table.to_pyarrow_table().to_pylist()


def transform_of(columns: Sequence[str], **dataset: Any) -> Transform:
    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"d": Output(Dataset("d", **dataset))},
    )
    def flow(changes: Any) -> object:
        return changes.select("dynamodb.Keys.id.S as id", *columns)

    return flow


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def number(kind: str, name: str = "n") -> str:
    return f"cast(dynamodb.NewImage.{name}.N as {kind}) as {name}"


# -- evolve


def test_a_type_is_refused_by_its_values_not_by_the_example(world: World) -> None:
    world.put("a", n=2)
    world.apply(number("decimal(38, 20)"))
    world.put("a", n=3)
    with pytest.raises(SchemaChangeError, match=r"int64, for example '3'. .* every such value"):
        world.apply(number("bigint"))


@pytest.mark.parametrize(
    "dataset",
    [
        {},
        {"deletion_vectors": True},
        {"deletes": "soft"},
        {"mode": "append"},
        {"mode": "history"},
    ],
    ids=str,
)
def test_a_new_column_comes_in_the_commit_of_its_first_rows(
    world: World, dataset: dict[str, Any]
) -> None:
    world.put("old", n=3)
    world.put("both", n=4)
    world.apply(number("bigint"), **dataset)
    # Another row of a replaced key makes merges with deletion vectors write one.
    world.put("both", n=5)
    world.apply(number("bigint"), **dataset)
    before = world.table.version()

    world.put("both", n=6, m=7)
    report = world.apply(number("bigint"), number("bigint", "m"), **dataset)

    assert report.new_columns == ("m",)
    recorded = (
        before + 1
    )  # the function and its paths changed, too: stored in a commit of their own
    log = Path(world.layout.dataset("d"), "_delta_log")
    entry, *later = sorted(log.glob("*.json"))[recorded + 1 :]
    assert entry.name == f"{recorded + 1:020d}.json"
    assert not any('"add"' in one.read_text() for one in later)  # of maintenance
    kinds = {kind for line in entry.read_text().splitlines() for kind in json.loads(line)}
    assert {"metaData", "add", "txn"} <= kinds
    found = read_dataset(world.layout, "d").to_pylist()
    assert [(row["id"], row["n"]) for row in found if row["m"] == 7] == [("both", 6)]
    assert world.type_of("m") == pa.int64()
    seen = pl.scan_delta(world.table.table_uri).filter(pl.col("m") == 7).collect()
    assert seen["n"].to_list() == [6]
    world.put("new", n=8)
    world.apply(number("bigint"), **dataset)
    assert world.rows("n")["new"] == 8


def test_a_table_with_rules_of_others_gets_its_new_column_first(world: World) -> None:
    world.put("old", n=3)
    world.apply(number("bigint"))
    world.table.alter.set_table_properties({"delta.enableChangeDataFeed": "true"})
    world.put("old", n=4, m=7)
    world.apply(number("bigint"), number("bigint", "m"))
    assert world.rows("m") == {"old": 7}


AT = "cast(dynamodb.NewImage.at.S as timestamp) as at"


def test_a_time_without_zone_is_utc_and_leaves_the_protocol_as_it_is(world: World) -> None:
    world.put("old", n=3)
    world.apply(number("bigint"))
    before = world.table.protocol()
    world.put("new", n=4, at="2026-01-02 03:04:05")
    world.apply(number("bigint"), AT)
    assert world.rows("at")["new"].isoformat() == "2026-01-02T03:04:05+00:00"
    assert world.table.protocol() == before
    assert pl.scan_delta(world.table.table_uri).select("at").collect().height == 2


@pytest.mark.parametrize("declared", [True, False])
def test_a_declared_or_existing_column_of_times_without_zone_stays_one(
    world: World, declared: bool
) -> None:
    naive = pa.schema([("id", pa.string()), ("at", pa.timestamp("us"))])
    world.put("old", at="2026-01-02 03:04:05")
    world.apply(AT, schema=naive)
    world.put("new", at="2026-01-02 03:04:06")
    world.apply(AT, **({"schema": naive} if declared else {}))
    assert world.type_of("at") == pa.timestamp("us")
    assert sorted(time.isoformat() for time in world.rows("at").values()) == [
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:06",
    ]


@pytest.mark.parametrize("name", ["unit price", "a,b;c", "f(x)", "{a}", "a=b", "a\tb", "a\nb"])
def test_names_that_delta_refuses_are_made_safe(world: World, name: str) -> None:
    world.put("a", price=7)
    world.apply(f'dynamodb.NewImage.price.N as "{name}"', "eventName as unit_price")
    (field,) = [
        one
        for one in pa.schema(world.table.schema().to_arrow())
        if (one.metadata or {}).get(b"datazone.attribute") == name.encode()
    ]
    assert field.name.replace("_", "").isalnum()
    assert world.rows(field.name) == {"a": "7"}
    assert world.rows("unit_price") == {"a": "INSERT"}
    world.put("b", price=8)
    world.apply(f'dynamodb.NewImage.price.N as "{name}"')
    assert world.rows(field.name) == {"a": "7", "b": "8"}


def test_a_table_of_an_older_version_keeps_a_name_that_delta_refuses(world: World) -> None:
    world.put("a", price=7)
    world.apply("dynamodb.NewImage.price.N as price")
    world.table.alter.add_columns([DeltaField("unit price", PrimitiveType("string"))])
    world.put("b", price=8)
    world.apply('dynamodb.NewImage.price.N as "unit price"')
    assert world.rows("unit price") == {"a": None, "b": "8"}


def test_settings_name_no_column_that_delta_refuses() -> None:
    for setting in ({"partition_by": "unit price"}, {"schema": pa.schema([("a b", pa.int64())])}):
        with pytest.raises(DefinitionError, match="that Delta refuses"):
            Dataset("d", **setting)


@pytest.mark.parametrize(
    ("before", "after", "held", "value"),
    [
        ("integer", "bigint", pa.int64(), 3),
        ("integer", "double", pa.float64(), 3.0),
        ("float", "double", pa.float64(), 3.0),
        ("decimal(10,2)", "decimal(18,4)", pa.decimal128(18, 4), Decimal(3)),
        ("bigint", "decimal(18,2)", pa.decimal128(21, 2), Decimal(3)),
        ("bigint", "integer", pa.int64(), 3),
    ],
)
def test_a_wider_type_widens_the_column(
    world: World, before: str, after: str, held: pa.DataType, value: object
) -> None:
    world.put("old", n=3)
    world.apply(number(before), partition_by="id")
    position = world.apply(number(before), partition_by="id").position
    world.put("new", n=3)
    report = world.apply(number(after), partition_by="id")
    assert world.type_of("n") == held
    assert world.rows("n") == {"old": value, "new": value}
    assert (report.position, report.unexpected_columns) == (position + 1, ())
    seen = pl.read_delta(world.layout.dataset("d")).sort("id")
    assert seen["n"].to_list() == [value, value]


def test_dates_become_timestamps_and_structs_get_fields(world: World) -> None:
    world.put("old", n=3)
    world.apply("date '2024-02-29' as day", "{'a': 1::integer} as s")
    world.put("new", n=3)
    world.apply("timestamp '2024-02-29 12:00:00' as day", "{'a': 1::bigint, 'b': 'x'} as s")
    assert world.type_of("day") == pa.timestamp("us", tz="UTC")
    assert [str(day)[:19] for day in world.rows("day").values()].count("2024-02-29 00:00:00") == 1
    assert world.rows("s") == {"old": {"a": 1, "b": None}, "new": {"a": 1, "b": "x"}}


def test_rows_that_deletion_vectors_hide_stay_hidden(world: World) -> None:
    options: dict[str, Any] = {"deletion_vectors": True}
    for key in ("a", "b", "c", "d"):
        world.put(key, n=3)
    world.apply(number("integer"), **options)
    world.put("a", n=4)
    world.stream.delete({"id": {"S": "b"}})
    world.apply(number("integer"), **options)
    world.put("c", n=2**40)
    world.apply(number("bigint"), **options)
    assert world.type_of("n") == pa.int64()
    assert world.rows("n") == {"a": 4, "c": 2**40, "d": 3}
    world.put("d", n=1)
    world.apply(number("bigint"), **options)
    assert world.rows("n") == {"a": 4, "c": 2**40, "d": 1}


def test_readers_of_the_version_before_are_not_disturbed(world: World) -> None:
    world.put("old", n=3)
    world.apply(number("integer"))
    reader = world.table
    world.put("new", n=3)
    world.apply(number("bigint"))
    assert reader.to_pyarrow_table()["n"].type == pa.int32()
    assert reader.to_pyarrow_table().num_rows == 1


def test_killed_between_the_widening_and_its_first_rows(world: World) -> None:
    world.put("old", n=3)
    world.apply(number("integer"))
    world.put("new", n=2**40)
    with pytest.raises(Crash), crash_at("after widening"):
        world.apply(number("bigint"))
    assert world.type_of("n") == pa.int64()
    assert world.rows("n") == {"old": 3}
    world.apply(number("bigint"))
    assert world.rows("n") == {"old": 3, "new": 2**40}


@pytest.mark.parametrize("mode", ["merge", "append", "history"])
def test_a_table_is_not_made_with_a_partition_that_no_row_has(world: World, mode: str) -> None:
    world.put("a", n=3)
    with pytest.raises(ResultError, match="partitioned by 'region', which the function does not"):
        world.apply(number("bigint"), mode=mode, partition_by=["region"])
    world.apply(number("bigint"), mode=mode, partition_by=["n"])
    assert world.rows("n") == {"a": 3}


def test_another_type_fails_before_the_commit_and_says_the_ways_out(world: World) -> None:
    world.put("old", n=3)
    world.apply(number("bigint"))
    version = world.table.version()
    world.put("new", n=4.25)
    with pytest.raises(SchemaChangeError) as caught:
        world.apply("dynamodb.NewImage.n.N as n")
    text = str(caught.value)
    for part in ("'d'", "'n'", "int64", "string", "'4.25'", "cast it", "another name"):
        assert part in text
    assert "datazone-dagster rebuild d" in text
    assert world.table.version() == version
    assert world.rows("n") == {"old": 3}
    world.apply(number("bigint"))
    assert world.rows("n") == {"old": 3, "new": 4}


# -- freeze


def test_a_frozen_table_keeps_an_unexpected_column_out_and_says_so(world: World) -> None:
    world.put("a", n=1)
    world.apply(number("bigint"), schema_policy="freeze")
    world.put("b", n=2, m=7)
    report = world.apply(number("bigint"), number("bigint", "m"), schema_policy="freeze")
    assert report.unexpected_columns == (("m", "int64", 2),)
    assert world.rows("n") == {"a": 1, "b": 2}
    assert "m" not in world.table.schema().to_arrow().names
    # It is said until it is settled, also by runs that do not see it.
    world.put("c", n=3)
    again = world.apply(number("bigint"), schema_policy="freeze")
    assert again.unexpected_columns == report.unexpected_columns
    world.put("d", n=4, m=8)
    updated_checkpoint = world.apply(number("bigint"), number("bigint", "m"))
    assert updated_checkpoint.unexpected_columns == ()
    assert world.rows("m") == {"a": None, "b": None, "c": None, "d": 8}


def test_a_frozen_column_is_not_widened(world: World) -> None:
    world.put("a", n=1)
    policy = {"n": "freeze"}
    world.apply(number("integer"), schema_policy=policy)
    world.put("b", n=2**40)
    with pytest.raises(SchemaChangeError, match=r"'n' is int32.*1099511627776"):
        world.apply(number("bigint"), number("bigint", "m"), schema_policy=policy)
    world.put("b", n=7, m=1)
    world.apply(number("bigint", "m"), schema_policy=policy)
    assert world.rows("m") == {"a": None, "b": 1}


# -- quarantine


def test_rows_that_do_not_fit_go_to_the_quarantine_and_the_others_in(world: World) -> None:
    world.put("a", n=1)
    world.put("b", n=1)
    world.apply(number("bigint"), schema_policy="quarantine")
    world.put("b", n=2.5)
    world.put("c", n=3)
    world.put("d", n=4, m=1)
    rows = [number("decimal(18,2)"), number("bigint", "m")]
    report = world.apply(*rows, schema_policy="quarantine")
    assert report.quarantined == 2
    assert world.rows("n") == {"a": 1, "b": 1, "c": 3}
    found = {row["new_image"]: row for row in world.quarantined()}
    assert [row["reason"] for _, row in sorted(found.items())] == [
        "the contract refuses it: column 'n' holds a value that is no int64",
        "the contract refuses it: there is no column 'm' in the table",
    ]
    first = next(iter(found.values()))
    assert (first["shard_id"], first["batch"]) == (world.stream.shard_ids()[0], 2)
    assert len(first["version"]) == 48
    assert first["first_seen_at"] == first["last_seen_at"]
    assert '"2.5"' in "".join(found)


def test_in_an_append_table_later_events_wait_behind_a_refused_one(world: World) -> None:
    refusing = {"mode": "append", "schema_policy": "quarantine"}
    world.put("a", n=1)
    world.apply(number("bigint"), **refusing)
    for value in (2.5, 3):
        world.put("a", n=value)
    world.put("b", n=4)
    world.apply(number("decimal(18,2)"), **refusing)
    world.put("a", n=5)
    world.apply(number("decimal(18,2)"), **refusing)
    assert world.rows("n") == {"a": 1, "b": 4}
    flow = transform_of([number("decimal(18,2)")], mode="append")
    done = redrive_dataset(flow, "d", world.layout)
    assert (done.redriven, done.waiting) == (3, 0)
    events = [row for row in read_dataset(world.layout, "d").to_pylist() if row["id"] == "a"]
    events.sort(key=lambda row: str(row["_dz_version"]))
    assert [row["n"] for row in events] == [1, Decimal("2.5"), 3, 5]


def test_a_change_is_refused_as_one_whatever_rows_it_has(world: World) -> None:
    def exploded(changes: Any) -> object:
        return changes.sql(
            "select dynamodb.Keys.id.S as id, dynamodb.NewImage.n.N::bigint + i as n, "
            "case when i = 1 then 'x' end as extra, _dz_key, _dz_version, _dz_event_time "
            "from changes, range(2) as r(i)"
        )

    schema = pa.schema([("id", pa.string()), ("n", pa.int64())])
    world.put("a", n=1)
    run(world, exploded, schema=schema, schema_policy="quarantine")
    assert world.rows("n") == {}
    assert len(world.quarantined()) == 1


def run(world: World, function: Callable[[Any], object], **dataset: Any) -> Any:
    drain_once(SOURCE, world.stream, world.layout)
    flow = transform(
        name="flow",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"d": Output(Dataset("d", **dataset))},
    )(function)
    return apply_transform(flow, world.layout, settings=EVERY_BATCH)["d"]


# -- declared


class Order(BaseModel):
    id: str
    n: int
    note: str | None = None


def test_a_declared_schema_is_the_table_s_from_the_start(world: World) -> None:
    world.put("a", n=1)
    world.apply(number("decimal(38,9)"), "'x' as extra", schema=Order, schema_policy="freeze")
    names = [name for name in world.table.schema().to_arrow().names if name not in HIDDEN]
    assert names == ["id", "n", "note"]
    assert world.type_of("n") == pa.int64()
    assert world.rows("n") == {"a": 1}
    assert world.apply(number("bigint")).unexpected_columns == (("extra", "string", 1),)


def test_a_declared_column_that_must_not_be_null(world: World) -> None:
    world.put("a", n=1)
    world.put("b")
    with pytest.raises(SchemaChangeError, match=r"'n' must not be null.*1 rows.*1:b"):
        world.apply(number("bigint"), schema=Order)
    world.stream.delete({"id": {"S": "a"}})
    report = world.apply(number("bigint"), schema=Order, schema_policy={"n": "quarantine"})
    assert report.quarantined == 1
    assert world.rows("n") == {}
    reasons = [row["reason"] for row in world.quarantined()]
    assert reasons == ["the contract refuses it: column 'n' must not be null"]


def test_a_declared_type_holds_what_fits_and_nothing_else(world: World) -> None:
    world.put("a", n=1.5)
    with pytest.raises(SchemaChangeError, match=r"'n' is int64.*now decimal\(18, 2\).*'1.50'"):
        world.apply(number("decimal(18,2)"), schema=Order)
    with pytest.raises(SchemaChangeError, match=r"is now string, for example '1.5'"):
        world.apply("dynamodb.NewImage.n.N as n", schema=Order)


def test_a_declaration_that_comes_later_widens_or_says_rebuild(world: World) -> None:
    world.put("a", n=1)
    world.apply(number("integer"))
    world.put("b", n=2)
    world.apply(number("integer"), schema=Order, schema_policy="freeze")
    assert world.type_of("n") == pa.int64()
    world.put("c", n=3)
    text = pa.schema([("id", pa.string()), ("n", pa.string())])
    with pytest.raises(SchemaChangeError, match=r"declared as string.*rebuild d"):
        world.apply("dynamodb.NewImage.n.N as n", schema=text)


# -- another mode


@pytest.mark.parametrize("made", ["merge", "append", "history"])
@pytest.mark.parametrize("declared", ["merge", "append", "history"])
def test_a_table_takes_rows_of_its_own_mode_only(world: World, made: str, declared: str) -> None:
    world.put("old", n=3)
    world.apply(number("bigint"), mode=made)
    version = world.table.version()
    world.put("new", n=4)
    if made == declared:
        world.apply(number("bigint"), mode=declared)
        assert world.rows("n") == {"old": 3, "new": 4}
        return
    with pytest.raises(SchemaChangeError, match=f"made with mode={made!r}.*rebuild d"):
        world.apply(number("bigint"), mode=declared)
    assert world.table.version() == version


@pytest.mark.parametrize("seconds", [1_700_000_000_000, -70_000_000_000])
def test_a_time_that_names_no_partition_fails_in_words_or_is_set_aside(
    tmp_path: Path, seconds: int
) -> None:
    """Milliseconds taken for seconds; Polars and pyarrow open no table with such a partition."""
    world = World(tmp_path)
    at = "to_timestamp(cast(dynamodb.NewImage.at.N as double)) as at"
    world.put("a", at=1_700_000_000)
    world.apply(at, partition_by="at")
    world.put("b", at=seconds)
    world.put("c", at=1_700_000_000)
    with pytest.raises(
        SchemaChangeError, match="partition column 'at' must be in the years 1"
    ) as e:
        world.apply(at, partition_by="at")
    assert "Dataset(schema_policy={'at': 'quarantine'})" in str(e.value)
    assert set(world.rows("at")) == {"a"}
    world.apply(at, partition_by="at", schema_policy={"at": "quarantine"})
    assert set(world.rows("at")) == {"a", "c"}
    assert ["must be in the years" in one["reason"] for one in world.quarantined()] == [True]
    assert len(pl.read_delta(world.layout.dataset("d"))) == 2


def items_of(stream: ScriptedStream, layout: Layout, **dataset: Any) -> Any:
    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"d": Output(Dataset("d", **dataset))},
    )
    def flow(changes: Any) -> object:
        return changes.items()

    drain_once(SOURCE, stream, layout)
    return apply_transform(flow, layout, settings=EVERY_BATCH)["d"]


def test_a_frozen_table_of_items_refuses_a_text_in_a_column_of_numbers(world: World) -> None:
    world.put("a", total=5)
    items_of(world.stream, world.layout, schema_policy="freeze")
    world.put("a", total="seven")
    with pytest.raises(SchemaChangeError, match=r"'total'.*can't hold.*'seven'.*'total__s'"):
        items_of(world.stream, world.layout, schema_policy="freeze")
    assert world.rows("total") == {"a": 5}
    policy = {"total": "quarantine", "*": "freeze"}
    report = items_of(world.stream, world.layout, schema_policy=policy)
    assert (report.quarantined, world.rows("total")) == (1, {"a": 5})
    assert world.quarantined()[0]["reason"].endswith(
        "column 'total' holds a value that is no int64"
    )


def test_a_sibling_that_is_let_in_takes_the_text(world: World) -> None:
    world.put("a", total=5)
    items_of(world.stream, world.layout, schema_policy="freeze")
    world.put("a", total="seven", more=1)
    policy = {"total__s": "evolve", "*": "freeze"}
    report = items_of(world.stream, world.layout, schema_policy=policy)
    assert world.rows("total__s") == {"a": "seven"}
    assert [name for name, _, _ in report.unexpected_columns] == ["more"]
