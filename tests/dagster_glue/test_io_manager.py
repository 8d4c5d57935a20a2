"""The IO manager for any asset: as Dagster runs it."""

# No postponed annotations here: Dagster reads the real ones of assets.

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional, cast

import dagster as dg
import duckdb
import pandas as pd  # type: ignore[import-untyped,unused-ignore]  # has no types
import polars as pl
import pyarrow as pa
import pytest
from dagster import AssetIn, AssetKey, TableSchemaMetadataValue

from datazone_dagster import DatasetReader, Lakehouse
from datazone_dagster.dagster_glue.assets.io_manager import DatasetIOManager
from datazone_dagster.dagster_glue.names import IO_MANAGER_KEY
from datazone_dagster.errors import (
    DefinitionError,
    SchemaChangeError,
    StorageError,
    UnrecognisedTableError,
)
from datazone_dagster.process import crash_points
from datazone_dagster.testing import storage_fails_at
from tests.dagster_glue.conftest import MakeWorld, orders_transform

TWO = pa.table({"id": [1, 2], "name": ["a", "b"]})
DAYS = dg.DailyPartitionsDefinition("2024-01-01")
Result = dg.ExecuteInProcessResult


class Lake:
    """Assets and a lakehouse."""

    def __init__(self, folder: Path) -> None:
        self.lakehouse = Lakehouse(uri=str(folder / "lake"))
        self.instance = dg.DagsterInstance.ephemeral()

    def run(self, *assets: Any, **options: Any) -> Result:
        """Materialize assets."""
        manager = DatasetIOManager(lakehouse=self.lakehouse)
        return dg.materialize(
            assets, resources={IO_MANAGER_KEY: manager}, instance=self.instance, **options
        )

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a table."""
        found: list[dict[str, Any]] = self.lakehouse.read(name).arrow().to_pylist()
        return found


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def written(**arguments: Any) -> Callable[[Callable[..., object]], dg.AssetsDefinition]:
    """Decorate an asset that the IO manager writes."""
    return cast(Any, dg.asset)(io_manager_key=IO_MANAGER_KEY, **arguments)  # type: ignore[no-any-return]  # of many overloads


def shown(result: Result, name: str = "customers") -> dict[str, Any]:
    """Return the metadata of the materialization of an asset."""
    events = [one.materialization for one in map(_data, result.get_asset_materialization_events())]
    (event,) = [one for one in events if one.asset_key.path[-1] == name]
    return {key: value.value for key, value in event.metadata.items()}


def _data(event: dg.DagsterEvent) -> Any:
    return event.event_specific_data


@written(kinds={"deltalake"})
def customers() -> pa.Table:
    return TWO


def test_metadata_of_a_materialization(lake: Lake) -> None:
    lake.run(customers)

    @written(name="customers", metadata={"mode": "merge", "key": ["id"], "owner": "me"})
    def merged() -> pa.Table:
        return pa.table({"id": [2, 3], "total": [1.5, None]})

    result = lake.run(merged)
    found = shown(result)
    assert {name: found[name] for name in found if name not in ("bytes", "schema_change")} == {
        "dagster/table_name": "customers",
        "dagster/uri": lake.lakehouse.layout.table("customers"),
        "dagster/row_count": 3,
        "dagster/storage_kind": "deltalake",
        "dagster/column_schema": found["dagster/column_schema"],
        "table_version": 2,
        "write_mode": "merge",
        "rows_written": 2,
        "rows_removed": 1,
        "keys_inserted": 1,
        "keys_updated": 1,
        "keys_deleted": 0,
        "files": 1,
        "rows_hidden": 0,
        "columns_missing": "name",
    }
    schema = result.get_asset_materialization_events()[0]
    columns = _data(schema).materialization.metadata["dagster/column_schema"]
    assert isinstance(columns, TableSchemaMetadataValue)
    assert [(one.name, one.type) for one in columns.schema.columns] == [
        ("id", "int64"),
        ("name", "string"),
        ("total", "double"),
    ]
    assert "total" in found["schema_change"]


READS: dict[str, tuple[Any, Any]] = {
    "nothing": (None, lambda table: table.to_pylist()),
    "arrow": (pa.Table, lambda table: table.to_pylist()),
    "reader": (pa.RecordBatchReader, lambda reader: reader.read_all().to_pylist()),
    "polars": (pl.DataFrame, lambda frame: frame.to_dicts()),
    "lazy": (pl.LazyFrame, lambda frame: frame.collect().to_dicts()),
    "pandas": (pd.DataFrame, lambda frame: frame.to_dict("records")),
    "duckdb": (duckdb.DuckDBPyRelation, lambda relation: relation.to_arrow_table().to_pylist()),
    "dataset": (DatasetReader, lambda reader: reader.arrow().to_pylist()),
    "optional": (
        Optional[pl.DataFrame],  # noqa: UP045  # the other spelling
        lambda frame: frame.to_dicts(),
    ),
    "union": (pa.Table | None, lambda table: table.to_pylist()),
}


def reading(annotation: Any, seen: list[Any], **arguments: Any) -> Any:
    """Return an asset that reads `customers` in a type."""

    def read(customers: Any) -> None:
        seen.append(customers)

    if annotation is not None:
        read.__annotations__["customers"] = annotation
    else:
        del read.__annotations__["customers"]
    return dg.asset(**arguments)(read)


@pytest.mark.parametrize("kind", READS)
def test_what_an_asset_gets(lake: Lake, kind: str) -> None:
    annotation, as_rows = READS[kind]
    seen: list[Any] = []
    lake.run(customers, reading(annotation, seen))
    assert as_rows(seen.pop()) == TWO.to_pylist()
    columns = {"customers": AssetIn(metadata={"columns": ["name"]})}
    lake.run(customers, reading(annotation, seen, ins=columns))
    assert as_rows(seen.pop()) == [{"name": "a"}, {"name": "b"}]


def test_inputs_that_can_not_be_read(lake: Lake) -> None:
    seen: list[Any] = []
    with pytest.raises(DefinitionError, match="int") as caught:
        lake.run(customers, reading(int, seen))
    assert "polars.LazyFrame" in caught.value.hint
    for columns, message in (("name", "not a list"), (["nmae"], "no column 'nmae'")):
        with pytest.raises(DefinitionError, match=message):
            lake.run(
                customers,
                reading(pa.Table, seen, ins={"customers": AssetIn(metadata={"columns": columns})}),
            )

    @written(name="customers")
    def without_columns() -> pd.DataFrame:
        return pd.DataFrame()

    other = Lake(Path(lake.lakehouse.layout.uri))
    with pytest.raises(StorageError, match="first materialization"):
        other.run(without_columns, reading(pa.Table, seen))
    other.run(without_columns, reading(pa.Table | None, seen))
    assert seen == [None]


def test_batches_of_a_generator(lake: Lake) -> None:
    @written(name="customers")
    def batches() -> dg.Output[Any]:
        def made() -> Iterator[pa.RecordBatch]:
            yield from TWO.to_batches(1)

        return dg.Output(made())

    assert shown(lake.run(batches))["rows_written"] == 2


def test_a_retried_step_appends_once(lake: Lake) -> None:
    tries: list[int] = []

    @written(
        name="customers", metadata={"mode": "append"}, retry_policy=dg.RetryPolicy(max_retries=1)
    )
    def appended(context: dg.AssetExecutionContext) -> pa.Table:
        tries.append(context.retry_number)
        return TWO

    with storage_fails_at(crash_points.AFTER_DATASET_COMMIT):  # the answer is lost
        result = lake.run(appended)
    assert tries == [0, 1]
    assert "added nothing" in shown(result)["already_written"]
    assert len(lake.rows("customers")) == 2
    lake.run(appended)
    assert len(lake.rows("customers")) == 4


def daily(day: str, number: int) -> pl.DataFrame:
    return pl.DataFrame({"day": [day], "n": [number]}).with_columns(pl.col("day").str.to_date())


@written(partitions_def=DAYS, metadata={"partition_expr": "day"})
def visits(context: dg.AssetExecutionContext) -> pl.DataFrame:
    return daily(context.partition_key, len(context.run.run_id))


def test_partitions_are_replaced_and_loaded(lake: Lake) -> None:
    for key in ("2024-01-01", "2024-01-02", "2024-01-01"):
        result = lake.run(visits, partition_key=key)
    assert shown(result, "visits")["dagster/partition_row_count"] == 1
    assert shown(result, "visits")["dagster/row_count"] == 2
    seen: list[Any] = []

    @dg.asset(partitions_def=DAYS)
    def one_day(visits: pl.LazyFrame) -> None:
        seen.append(visits.collect()["day"].to_list())

    @dg.asset(
        ins={
            "visits": AssetIn(
                partition_mapping=dg.SpecificPartitionsPartitionMapping(
                    ["2024-01-01", "2024-01-02"]
                )
            )
        }
    )
    def by_day(visits: dict[str, pa.Table]) -> None:
        seen.append({key: len(table) for key, table in visits.items()})

    lake.run(visits, one_day, partition_key="2024-01-02")
    assert [str(day) for day in seen.pop()] == ["2024-01-02"]
    lake.run(by_day, visits, selection=[by_day])
    assert seen.pop() == {"2024-01-01": 1, "2024-01-02": 1}


def test_a_backfill_in_one_run(lake: Lake) -> None:
    @written(
        name="visits",
        partitions_def=DAYS,
        metadata={"partition_expr": "day"},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def many(context: dg.AssetExecutionContext) -> dict[str, pl.DataFrame]:
        return {key: daily(key, 1) for key in context.partition_keys}

    between = {
        "dagster/asset_partition_range_start": "2024-01-02",
        "dagster/asset_partition_range_end": "2024-01-04",
    }
    lake.run(visits, partition_key="2024-01-01")
    lake.run(many, tags=between)
    assert sorted(row["day"].day for row in lake.rows("visits")) == [1, 2, 3, 4]


def test_partitions_of_two_dimensions(lake: Lake) -> None:
    regions = dg.StaticPartitionsDefinition(["eu", "us"])

    @written(
        partitions_def=dg.MultiPartitionsDefinition({"day": DAYS, "region": regions}),
        metadata={"partition_expr": {"day": "day", "region": "where"}},
    )
    def visits(context: dg.AssetExecutionContext) -> pl.DataFrame:
        keys = context.partition_key.keys_by_dimension
        return daily(keys["day"], 1).with_columns(where=pl.lit(keys["region"]))

    for key in ("2024-01-01|eu", "2024-01-01|us", "2024-01-02|eu", "2024-01-01|eu"):
        lake.run(visits, partition_key=key)
    assert len(lake.rows("visits")) == 3


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"mode": "upsert"}, "mode='upsert' is unknown"),
        ({"mode": "merge"}, "needs the columns that identify a row"),
        ({"mode": "merge", "key": []}, "not a list of different column names"),
        ({"key": ["id"]}, "'key' has no effect with mode='overwrite'"),
        ({"mode": "append", "delete_where": "x"}, "'delete_where' has no effect"),
        ({"keys": ["id"]}, "'keys' looks like the option 'key'"),
        ({"Partition_Expr": "day"}, "looks like the option 'partition_expr'"),
        ({"merge_config": {}}, "option of another IO manager"),
        ({"partition_expr": "day"}, "no partitions"),
        ({"schema_mode": "overwrite", "mode": "append"}, "schema_mode='overwrite' replaces"),
        ({"deletion_vectors": "yes"}, "deletion_vectors='yes' is unknown"),
        ({"mode": "merge", "key": "id", "order": 3}, "order=3 is not a text"),
    ],
)
def test_metadata_that_is_wrong(lake: Lake, metadata: dict[str, Any], message: str) -> None:
    @written(metadata=metadata)
    def wrong() -> pa.Table:
        return TWO

    with pytest.raises(DefinitionError, match=message):
        lake.run(wrong)


@pytest.mark.parametrize("expression", [None, {"day": "day"}, 3, ""])
def test_partitions_without_their_column(lake: Lake, expression: Any) -> None:
    metadata = {} if expression is None else {"partition_expr": expression}

    @written(partitions_def=DAYS, metadata=metadata)
    def wrong() -> pa.Table:
        return TWO

    with pytest.raises(DefinitionError, match="does not name the column"):
        lake.run(wrong, partition_key="2024-01-01")


def test_a_type_that_does_not_fit_fails_the_run(lake: Lake) -> None:
    @written(name="customers")
    def changed() -> pa.Table:
        return pa.table({"id": [1.5], "name": ["x"]})

    lake.run(customers)
    with pytest.raises(SchemaChangeError, match="'id' is int64 in the table and double"):
        lake.run(changed)
    assert lake.rows("customers") == TWO.to_pylist()


def test_keys_with_several_parts(lake: Lake) -> None:
    @written(key=["sales", "eu"])
    def parts() -> pa.Table:
        return TWO

    @written(name="sales")
    def sales() -> pa.Table:
        return TWO.slice(0, 1)

    assert shown(lake.run(parts, sales), "eu")["dagster/table_name"] == "sales.eu"
    assert (len(lake.rows("sales.eu")), len(lake.rows("sales"))) == (2, 1)

    @written(key=["_changelog", "orders"])
    def ours() -> pa.Table:
        return TWO

    with pytest.raises(DefinitionError, match="_changelog"):
        lake.run(ours)


def test_a_dataset_is_never_written_by_another_asset(make_world: MakeWorld) -> None:
    world = make_world(orders_transform())
    world.put("a")
    world.run_until_idle()
    manager = DatasetIOManager(lakehouse=Lakehouse(uri=world.layout.uri))

    @written(name="orders")
    def other() -> pa.Table:
        return TWO

    with pytest.raises(UnrecognisedTableError, match="but its dataset table"):
        dg.materialize([other], resources={IO_MANAGER_KEY: manager})
    assert world.rows() == {"a": "placed"}


def test_the_nightly_job_maintains_the_tables_of_assets(make_world: MakeWorld) -> None:
    world = make_world(orders_transform())
    manager = DatasetIOManager(lakehouse=Lakehouse(uri=world.layout.uri))
    for _ in range(3):
        dg.materialize([customers], resources={IO_MANAGER_KEY: manager})
    result = world.run("datazone_maintenance")
    observed = [
        one.asset_observation_data
        for one in result.all_events
        if one.event_type_value == "ASSET_OBSERVATION"
    ]
    keys = [one.asset_observation.asset_key for one in observed]
    assert AssetKey("customers") in keys


def test_outputs_that_are_no_assets_are_refused(lake: Lake) -> None:
    @dg.op(out=dg.Out(io_manager_key=IO_MANAGER_KEY))
    def plain() -> pa.Table:
        return TWO

    @dg.job(resource_defs={IO_MANAGER_KEY: DatasetIOManager(lakehouse=lake.lakehouse)})
    def work() -> None:
        plain()

    with pytest.raises(DefinitionError, match="is not an asset"):
        work.execute_in_process()
