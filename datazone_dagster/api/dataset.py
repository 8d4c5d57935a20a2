"""Datasets: the Delta tables that transforms write and read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from datazone_dagster.api import checked
from datazone_dagster.api.calls import explained_class
from datazone_dagster.api.columns import checked_columns, checked_policies
from datazone_dagster.api.expect import Expect, Expectations, checked_expectations
from datazone_dagster.api.spark_engine import SparkEngine, checked_engine
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.column_names import RESERVED_PREFIX, has_refused_characters
from datazone_dagster.model.contract import Column, Contract, Policies, SchemaPolicy
from datazone_dagster.model.layout import checked_dataset_id

DEFAULT_MAX_LAG = timedelta(minutes=5)
DEFAULT_QUARANTINE_THRESHOLD = 100
DEFAULT_QUARANTINE_LIMIT = 0.1
DEFAULT_KINDS = ("deltalake", "dynamodb")


_BY_KEY = "Rows are merged by the key of the DynamoDB table, which needs no argument."
_ABSENT = {
    **dict.fromkeys(("key", "keys", "primary_key", "unique_key", "merge_keys"), _BY_KEY),
    **dict.fromkeys(("uri", "path", "location"), "The location is Lakehouse(uri=...)."),
    "name": "The name of a dataset is its id.",
    "types": "Types of attributes are declared where the function reads them: items(types={...}).",
    "columns": "Columns that a table must have are declared by schema=.",
}


@explained_class('Dataset("orders", mode="merge", tags=["team"])', _ABSENT)
@dataclass(frozen=True, init=False, slots=True)
class Dataset:
    """A Delta table at `<lakehouse>/<id>`, and the Dagster asset of that name.

    Frozen and hashable. Collections given as arguments are stored as tuples.

    Args:
        id: Name of the folder and of the asset: letters, digits, `_` and `-`. On macOS and Windows,
            two ids of a local lakehouse must differ in more than case.
        tags: Dagster tags: strings `key` or `key=value`, or a mapping; stored as such strings.
        mode: `"merge"` stores the newest rows of each item. `"append"` stores every event.
            `"history"` stores a row per interval in which an item did not change (SCD2), with
            `_dz_valid_from`, `_dz_valid_to` (null for the current interval) and
            `_dz_is_current`.
        deletes: `"hard"` removes the rows of a deleted item. `"soft"` keeps them, with
            `_dz_deleted` and `_dz_delete_cause` (`user` or `ttl`). In history mode a delete ends
            the interval either way, and `"soft"` marks the intervals that a delete ended.
            `"soft"` is not allowed in append mode.
        partition_by: Columns that partition the table. Fixed once the table exists; changed by
            `datazone-dagster rebuild`.
        max_lag: Lag from which the `lag` check fails with ERROR; positive.
        deletion_vectors: Whether merges hide replaced rows instead of rewriting their files.
            True: from the start. False: never; every Delta reader can open the table, but a
            merge into a large one rewrites much of it. `"auto"`: from the first merge that would
            rewrite 32 MB of rows that stay, or 256 MB with the merges that the backlog still
            brings; the table then keeps deletion vectors.
        schema_policy: Handling of columns that the table does not have, and of values that its
            columns can't hold. `"evolve"` adds and widens columns. `"freeze"` leaves such columns
            out of the table and fails the `schema` check. `"quarantine"` moves the records to
            the quarantine. A mapping sets the policy of single columns, `"*"` that of the others.
        schema: Required columns, as a `pyarrow.Schema` or a Pydantic 2 model class; stored as
            declared columns. Without it, the first result of the function defines the columns.
        quarantine_threshold: Number of waiting records, 0 or more, above which the `quarantine`
            check fails with ERROR. It warns as soon as one record waits.
        quarantine_limit: Largest share of a chunk's keys, over 0 and at most 1, that the function
            may fail on with `on_error="quarantine"`; above it the run fails. Fewer than 16 keys
            are always quarantined.
        description: Text shown in Dagster; defaults to that of the transform.
        owners: E-mail addresses or `team:<name>`; defaults to those of the transform.
        kinds: Kinds of the asset, shown as icons; at most ten.
        group_name: Asset group; defaults to that of the transform.
        track: Columns that start a new interval when they change, in history mode only.
            Changes of other columns update the current interval. Defaults to all columns.
        ttl_deletes: Handling of deletes that DynamoDB makes by time to live, in every mode.
            `"apply"` treats them as deletes by users. `"ignore"` leaves the dataset as it is:
            rows and intervals stay, no tombstone is written, append mode stores no event. A later
            change of the item applies as usual.
        expect: Conditions on the rows by name, each a string of SQL over the dataset's columns or
            an `Expect`, which says what a violation does. Each has a check `expect_<name>`. Rows
            of deleted items are not checked.
        buckets: Number of shares of the keys that runs apply independently of one another: a power
            of two, up to 256. The asset has a static partition per bucket. Another number takes
            effect with the next run; no row is written anew.
        engine: Engine that applies the changes: a `SparkEngine`, for `mode="merge"` and
            `mode="append"`, without `schema`, `schema_policy`, `expect` and `buckets`. None: the
            library's own.

    Raises:
        DefinitionError: An argument is invalid; the message names it and its allowed values.
    """

    id: str
    tags: tuple[str, ...]
    mode: Literal["merge", "append", "history"]
    deletes: Literal["hard", "soft"]
    partition_by: tuple[str, ...]
    max_lag: timedelta
    deletion_vectors: Literal["auto"] | bool
    schema_policy: Policies
    schema: tuple[Column, ...]
    quarantine_threshold: int
    quarantine_limit: float
    description: str | None
    owners: tuple[str, ...]
    kinds: tuple[str, ...]
    group_name: str | None
    track: tuple[str, ...]
    ttl_deletes: Literal["apply", "ignore"]
    expect: Expectations
    buckets: int
    engine: SparkEngine | None

    def __init__(
        self,
        id: str,
        tags: Sequence[str] | Mapping[str, str] = (),
        mode: Literal["merge", "append", "history"] = "merge",
        deletes: Literal["hard", "soft"] = "hard",
        partition_by: str | Sequence[str] = (),
        max_lag: timedelta = DEFAULT_MAX_LAG,
        deletion_vectors: Literal["auto"] | bool = "auto",
        *,
        schema_policy: SchemaPolicy | Mapping[str, SchemaPolicy] | Policies = "evolve",
        schema: object = None,
        quarantine_threshold: int = DEFAULT_QUARANTINE_THRESHOLD,
        quarantine_limit: float = DEFAULT_QUARANTINE_LIMIT,
        description: str | None = None,
        owners: str | Sequence[str] = (),
        kinds: str | Collection[str] = DEFAULT_KINDS,
        group_name: str | None = None,
        track: str | Sequence[str] = (),
        ttl_deletes: Literal["apply", "ignore"] = "apply",
        expect: Mapping[str, str | Expect] | Expectations = (),
        buckets: int = 1,
        engine: SparkEngine | None = None,
    ) -> None:
        where = f"Dataset({checked_dataset_id(id)!r})"
        values: dict[str, object] = {
            "id": id,
            "tags": checked.tags(where, tags),
            "mode": checked.choice(where, "mode", mode),
            "deletes": checked.choice(where, "deletes", deletes),
            "partition_by": _result_columns(where, "partition_by", partition_by),
            "max_lag": _positive(where, max_lag),
            "deletion_vectors": checked.deletion_vectors(where, deletion_vectors),
            "schema_policy": checked_policies(where, schema_policy),
            "schema": checked_columns(where, schema),
            "quarantine_threshold": _threshold(where, quarantine_threshold),
            "quarantine_limit": _limit(where, quarantine_limit),
            "description": checked.optional_text(where, "description", description),
            "owners": checked.owners(where, owners),
            "kinds": checked.kinds(where, kinds),
            "group_name": checked.group_name(where, group_name),
            "track": _tracked(where, mode, track),
            "ttl_deletes": checked.choice(where, "ttl_deletes", ttl_deletes),
            "expect": checked_expectations(where, expect),
            "buckets": checked.buckets(where, buckets),
        }
        values["engine"] = checked_engine(where, engine, values)
        if (mode, deletes) == ("append", "soft"):
            raise DefinitionError(
                f"{where}: mode='append' stores every event, deletes included, so deletes='soft' "
                "has nothing to mark.",
                hint="Leave deletes out, or choose mode='merge'.",
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _check_partitions_declared(where, self)

    @property
    def contract(self) -> Contract:
        """The declared columns and the schema policies."""
        return Contract(self.schema_policy, self.schema)


def _tracked(where: str, mode: str, track: object) -> tuple[str, ...]:
    columns = _result_columns(where, "track", track)
    if columns and mode != "history":
        raise DefinitionError(
            f"{where}: track names {checked.quoted(columns)}, but mode={mode!r} has no intervals.",
            hint="Set mode='history', or leave track out.",
        )
    return columns


def _result_columns(where: str, argument: str, names: object) -> tuple[str, ...]:
    columns = checked.texts(where, argument, names)
    reserved = [name for name in columns if name.startswith(RESERVED_PREFIX)]
    if reserved:
        raise DefinitionError(
            f"{where}: {argument} names columns that the library adds: {checked.quoted(reserved)}.",
            hint=f"Choose columns of the function's result; {RESERVED_PREFIX!r} is reserved.",
        )
    refused = [name for name in columns if has_refused_characters(name)]
    if refused:
        raise DefinitionError(
            f"{where}: {argument} names columns that Delta refuses: {checked.quoted(refused)}.",
            hint="Give the column an alias of letters, digits and '_' in the function.",
        )
    return columns


def _positive(where: str, max_lag: object) -> timedelta:
    lag = checked.instance(where, "max_lag", max_lag, timedelta, "max_lag=timedelta(minutes=5)")
    if lag <= timedelta(0):
        raise DefinitionError(
            f"{where}: max_lag={lag} is not positive.",
            hint="Give the lag at which the check fails, such as timedelta(minutes=5).",
        )
    return lag


def _threshold(where: str, threshold: object) -> int:
    if isinstance(threshold, int) and not isinstance(threshold, bool) and threshold >= 0:
        return threshold
    raise DefinitionError(
        f"{where}: quarantine_threshold={threshold!r} is not a number of records.",
        hint="Give an int, 0 or more.",
    )


def _limit(where: str, limit: object) -> float:
    if isinstance(limit, (int, float)) and not isinstance(limit, bool) and 0 < limit <= 1:
        return float(limit)
    raise DefinitionError(
        f"{where}: quarantine_limit={limit!r} is not a share of a chunk's keys.",
        hint="Give a number over 0 and at most 1, such as 0.1 for ten percent.",
    )


def _check_partitions_declared(where: str, dataset: Dataset) -> None:
    declared = {column.name for column in dataset.schema}
    missing = [name for name in dataset.partition_by if declared and name not in declared]
    if missing:
        raise DefinitionError(
            f"{where}: partition_by names {checked.quoted(missing)}, which schema does not have.",
            hint="Declare these columns in schema.",
        )
