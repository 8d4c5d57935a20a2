"""Count of the keys of a dataset that have rows of several changes, by one scan of two columns."""

from __future__ import annotations

import duckdb

from datazone_dagster.database.database import Task, opened
from datazone_dagster.dataset.read_dataset import read
from datazone_dagster.errors import StorageError
from datazone_dagster.model.column_names import IS_CURRENT, KEY, VERSION
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import KeyReport
from datazone_dagster.text import shown

LIMIT_ROWS = 20_000_000

_QUERY = f"""
SELECT count(*), coalesce(sum(found), 0)::BIGINT, count(*) FILTER (doubled),
       count(*) FILTER (found > 1), any_value(key) FILTER (doubled)
FROM (
    SELECT {KEY} AS key, count(*) AS found, min(hash({VERSION})) <> max(hash({VERSION})) AS doubled
    FROM rows GROUP BY ALL
)
"""  # noqa: S608  # names are ours


def key_report(
    layout: Layout, dataset_id: str, memory_limit_bytes: int, *, limit_rows: int = LIMIT_ROWS
) -> KeyReport | None:
    """Return the counts of a dataset in merge or history mode; None if it has no table.

    In merge mode, the rows of a key are all of one change. In history mode, so are its current
    rows.

    Args:
        layout: Locations of the tables.
        dataset_id: The dataset.
        memory_limit_bytes: DuckDB's memory limit; it spills beyond it.
        limit_rows: Rows beyond which nothing is read.

    Raises:
        StorageError: The table can't be read.
    """
    reader = read(layout, dataset_id)
    if reader is None:
        return None
    if reader.row_count > limit_rows:
        return KeyReport(reader.row_count, limit_rows)
    where = IS_CURRENT if IS_CURRENT in reader.schema.names else None
    task = Task(
        f"look for keys of dataset {dataset_id!r} that are there twice",
        "Nothing was written; the check keeps its last result.",
        "Run the check where there is more memory, or less at the same time.",
    )
    with opened(memory_limit_bytes, task=task) as connection:
        connection.register("rows", reader.batches([KEY, VERSION], where))
        try:
            found = connection.execute(_QUERY).fetchall()[0]
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise StorageError(
                f"The keys of dataset {dataset_id!r} can't be read: {shown(error)}.",
                safe="Nothing was written.",
            ) from error
    keys, rows, doubled, several, example = found
    return KeyReport(
        rows, limit_rows, keys, doubled, several, None if example is None else shown(example)
    )
