"""The statements of one chunk in Spark SQL.

A chunk is read from one version of the change log, so every statement over it gives the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from datazone_dagster.changelog.schema import bucket_of
from datazone_dagster.dataset.deletes import TTL_PRINCIPAL
from datazone_dagster.model.column_names import DELETED, EVENT_TIME, HIDDEN, KEY, VERSION, Log
from datazone_dagster.model.snapshot_state import ABSENT, SNAPSHOT_EVENT
from datazone_dagster.model.version import EPOCH_DIGITS, split_version
from datazone_dagster.rows.merge_batch import CAUSE
from datazone_dagster.spark.frame_query import FrameQuery, relation
from datazone_dagster.spark.partition_sql import has_no_folder
from datazone_dagster.spark.record_sql import KEY_MAP, KEY_MAP_SQL, key_sql, view_columns
from datazone_dagster.spark.spark_text import converted, name_of, text_of
from datazone_dagster.spark.translate import KEPT

REMOVED, EXPIRED, SWEPT = "_dz_removed", "_dz_expired", "_dz_swept"
BATCH, PROBLEM = "_dz_batch", "_dz_problem"
LEFT = "_dz_left"
"""Why a change has no row, the `CAUSE` of its tombstone: results may have a column of that name."""

HAS_IMAGE, HAS_ATTRIBUTE = "_dz_image_{}", "_dz_attribute_{}"


def carried_columns(fields: int) -> tuple[str, ...]:
    """Return the columns of every stage beside those of the frame.

    Args:
        fields: Number of fields whose attribute is looked for.
    """
    found = [one.format(at) for at in range(fields) for one in (HAS_IMAGE, HAS_ATTRIBUTE)]
    return (*HIDDEN, REMOVED, EXPIRED, SWEPT, BATCH, PROBLEM, *found)


@dataclass(frozen=True)
class LogRange:
    """Batches of the change log.

    Args:
        uri: Location of the change log, as Spark reaches it.
        version: Version of its table.
        after_batch: Start, exclusive.
        through_batch: End, inclusive.
        ignore_ttl: Whether deletes by time to live have no effect.
    """

    uri: str
    version: int
    after_batch: int
    through_batch: int
    ignore_ttl: bool

    @property
    def keyed(self) -> str:
        """The CTEs `dz_log` and `dz_keyed`: its changes, and these with their keys."""
        buckets = f"{bucket_of(self.after_batch)} AND {bucket_of(self.through_batch)}"
        return (
            f"dz_log AS (SELECT * FROM {table_of(self.uri)} VERSION AS OF {self.version} "
            f"WHERE {Log.BUCKET} BETWEEN {buckets} AND {Log.BATCH} > {self.after_batch} "
            f"AND {Log.BATCH} <= {self.through_batch}), "
            f"dz_keyed AS (SELECT *, {key_sql()} AS {KEY} "
            f"FROM (SELECT *, {KEY_MAP_SQL} AS {KEY_MAP} FROM dz_log))"
        )

    def facts(self) -> str:
        """Return the query of what is known of the changes without their images."""
        return (
            f"WITH {self.keyed} SELECT count(*) AS records, "
            f"coalesce(sum({Log.SIZE_BYTES}), 0) AS record_bytes, min({Log.BATCH}) AS first_batch, "
            f"min({Log.EVENT_TIME}) AS event_time_min, max({Log.EVENT_TIME}) AS event_time_max, "
            f"min({Log.VERSION}) AS lowest, max({Log.VERSION}) AS highest, "
            f"max(CASE WHEN {KEY} IS NULL THEN {Log.BATCH} END) AS unclear_through, "
            f"count_if({_EXPIRED}) AS expired, "
            f"array_sort(collect_set(CASE WHEN NOT {_OF_SNAPSHOT} THEN {Log.VIEW_TYPE} END)) "
            "AS view_types FROM dz_keyed"
        )


_IS_REMOVED = f"coalesce({Log.EVENT_NAME} = 'REMOVE', false)"
_EXPIRED = f"({_IS_REMOVED} AND coalesce({Log.USER_PRINCIPAL} = {text_of(TTL_PRINCIPAL)}, false))"
_SWEPT = f"({_IS_REMOVED} AND coalesce({Log.USER_PRINCIPAL} = {text_of(ABSENT)}, false))"

_OF_SNAPSHOT = (
    f"(coalesce({Log.EVENT_NAME} = {text_of(SNAPSHOT_EVENT)}, false) OR "
    f"coalesce({Log.USER_PRINCIPAL} = {text_of(ABSENT)}, false))"
)


def batch_query(log: LogRange, query: FrameQuery, latest_of: Sequence[str]) -> str:
    """Return the query of the changes of a chunk with their rows: one row each.

    Its columns are those of the frame, the hidden ones, `LEFT` (null: the change has a row), and
    those of `carried_columns`.

    Args:
        log: The range.
        query: Query of the frame.
        latest_of: Columns of which only the latest change counts: `KEY`, or `KEY` and `Log.VERSION`
            for each change once; none: a change log that has each once.
    """
    ignored = f" WHERE NOT {_EXPIRED}" if log.ignore_ttl else ""
    rank = (
        f"row_number() OVER (PARTITION BY {', '.join(latest_of)} ORDER BY {Log.VERSION} DESC)"
        if latest_of
        else "1"
    )
    parsed = ", ".join(["*", *(f"{sql} AS {name}" for name, sql in query.view.parsed)])
    carried = {
        KEY: KEY,
        VERSION: Log.VERSION,
        EVENT_TIME: Log.EVENT_TIME,
        REMOVED: _IS_REMOVED,
        EXPIRED: _EXPIRED,
        SWEPT: _SWEPT,
        BATCH: Log.BATCH,
        PROBLEM: query.view.problem,
    }
    for at, (_, image, attribute) in enumerate(query.view.found):
        carried |= {HAS_IMAGE.format(at): image, HAS_ATTRIBUTE.format(at): attribute}
    record = [*view_columns(query.view), *(f"{sql} AS {name}" for name, sql in carried.items())]
    parts = [
        log.keyed,
        f"dz_ranked AS (SELECT *, {rank} AS dz_rank FROM dz_keyed{ignored})",
        f"dz_parsed AS (SELECT {parsed} FROM dz_ranked WHERE dz_rank = 1)",
        f"{relation(0)} AS (SELECT {', '.join(record)}, true AS {KEPT} FROM dz_parsed)",
        *(f"{relation(at)} AS ({text})" for at, text in enumerate(query.stages, 1)),
    ]
    cause = (
        f"CASE WHEN {EXPIRED} THEN 'ttl' WHEN {SWEPT} THEN {text_of(ABSENT)} "
        f"WHEN {REMOVED} THEN 'user' WHEN NOT {KEPT} THEN 'filtered' END AS {LEFT}"
    )
    listed = [*query.columns, *carried_columns(len(query.view.found)), KEPT, cause]
    last = relation(len(query.stages))
    return f"WITH {', '.join(parts)} SELECT {', '.join(listed)} FROM {last}"


def batch_facts(view: str, fields: int, partition_by: Sequence[pa.Field]) -> str:
    """Return the query of what is known of a batch.

    Args:
        view: Name of the batch.
        fields: Number of fields whose attribute is looked for.
        partition_by: Columns of the batch that the dataset is partitioned by.
    """
    counted = {
        "removed": f"{LEFT} IS NOT NULL",
        "filtered": f"{REMOVED} AND NOT {KEPT}",
        "filtered_by_ttl": f"{EXPIRED} AND NOT {KEPT}",
        "rows": KEPT,
    }
    for at in range(fields):
        image, attribute = HAS_IMAGE.format(at), HAS_ATTRIBUTE.format(at)
        counted |= {image: image, attribute: f"{image} AND {attribute}"}
    listed = [f"count_if({sql}) AS {name}" for name, sql in counted.items()]
    reasons = {
        "problem_through": PROBLEM,
        "no_folder_through": f"{KEPT} AND ({has_no_folder(partition_by)})",
    }
    last = [f"max(CASE WHEN {sql} THEN {BATCH} END) AS {name}" for name, sql in reasons.items()]
    return f"SELECT count(*) AS changes, {', '.join([*last, *listed])} FROM {view}"


@dataclass(frozen=True)
class MergeSource:
    """The changes of a batch that no tombstone supersedes.

    Args:
        view: Name of the batch.
        tombstones: Table of tombstones, as Spark reaches it; None: there is none.
        lowest: Lowest version of the changes: older tombstones supersede none of them.
    """

    view: str
    tombstones: str | None
    lowest: str

    @property
    def sql(self) -> str:
        """The query of the changes."""
        if self.tombstones is None:
            return f"SELECT * FROM {self.view}"
        epoch, number = split_version(self.lowest)
        reach = f"epoch > {epoch} OR (epoch = {epoch} AND sequence_rank >= {float(number)!r}D)"
        return (
            f"SELECT c.* FROM {self.view} AS c LEFT ANTI JOIN "
            f"(SELECT {KEY}, max({VERSION}) AS {VERSION} FROM {table_of(self.tombstones)} "
            f"WHERE {reach} GROUP BY {KEY}) AS b ON c.{KEY} = b.{KEY} AND b.{VERSION} > c.{VERSION}"
        )


def merge_statement(uri: str, table: pa.Schema, result: pa.Schema, source: str) -> str:
    """Return the MERGE of a batch into a dataset: winning changes replace the row of their key."""
    values = values_of(table, result)
    listed, given = ", ".join(values), ", ".join(values.values())
    wins = f"(t.{VERSION} IS NULL OR s.{VERSION} > t.{VERSION})"
    assigned = ", ".join(f"t.{name} = {value}" for name, value in values.items())
    return (
        f"MERGE INTO {table_of(uri)} AS t USING ({source}) AS s ON t.{KEY} = s.{KEY} "
        f"WHEN MATCHED AND {wins} AND s.{LEFT} IS NOT NULL THEN DELETE "
        f"WHEN MATCHED AND {wins} THEN UPDATE SET {assigned} "
        f"WHEN NOT MATCHED AND s.{LEFT} IS NULL THEN INSERT ({listed}) VALUES ({given})"
    )


def append_statement(
    uri: str, table: pa.Schema, result: pa.Schema, view: str, versions: tuple[str, str]
) -> str:
    """Return the MERGE that adds the events of a batch that a dataset does not have yet.

    Args:
        uri: The dataset, as Spark reaches it.
        table: Schema of the dataset.
        result: Columns of the batch that go there.
        view: Name of the batch.
        versions: Lowest and highest version of the batch: other rows of the dataset are not read.
    """
    values = values_of(table, result)
    lowest, highest = map(text_of, versions)
    return (
        f"MERGE INTO {table_of(uri)} AS t "
        f"USING (SELECT * FROM {view} WHERE {KEPT}) AS s ON t.{KEY} = s.{KEY} "
        f"AND t.{VERSION} = s.{VERSION} AND t.{VERSION} BETWEEN {lowest} AND {highest} "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(values)}) VALUES ({', '.join(values.values())})"
    )


def values_of(
    table: pa.Schema, result: pa.Schema, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the SQL of each column of a dataset, by its quoted name.

    Args:
        table: Schema of the dataset.
        result: Columns of the batch that go there.
        given: SQL of columns that are not those of the batch.
    """
    values = {}
    for field in table:
        name = name_of(field.name)
        if given and field.name in given:
            values[name] = given[field.name]
        elif field.name in result.names:
            values[name] = converted(f"s.{name}", result.field(field.name).type, field.type)
        else:
            values[name] = "false" if field.name == DELETED else "NULL"
    return values


def tombstones_statement(uri: str, source: str, now: datetime) -> str:
    """Return the INSERT of a tombstone for each change of a batch that has a cause."""
    values = tombstone_values(now, LEFT)
    return (
        f"INSERT INTO {table_of(uri)} ({', '.join(values)}) "
        f"SELECT {', '.join(values.values())} FROM ({source}) WHERE {LEFT} IS NOT NULL"
    )


def tombstone_values(now: datetime, cause: str) -> dict[str, str]:
    """Return the SQL of the columns of a tombstone, by their names.

    Args:
        now: The current time.
        cause: Column with its cause.
    """
    return {
        "day": text_of(f"{now:%Y-%m-%d}"),
        KEY: KEY,
        VERSION: VERSION,
        CAUSE: cause,
        "deleted_at": f"CAST({text_of(f'{now:%Y-%m-%d %H:%M:%S.%f}')} AS TIMESTAMP)",
        "epoch": f"CAST(substr({VERSION}, 1, {EPOCH_DIGITS}) AS BIGINT)",
        "sequence_rank": f"CAST(substr({VERSION}, {EPOCH_DIGITS + 1}) AS DOUBLE)",
    }


def doubled_query(uri: str) -> str:
    """Return the query of a key with several rows."""
    return f"SELECT {KEY} FROM {table_of(uri)} GROUP BY {KEY} HAVING count(*) > 1 LIMIT 1"


def history_query(uri: str) -> str:
    """Return the query of the newest commits of a table."""
    return f"DESCRIBE HISTORY {table_of(uri)} LIMIT 50"


def table_of(uri: str) -> str:
    """Return the name of the Delta table at a location."""
    return f"delta.{name_of(uri)}"
