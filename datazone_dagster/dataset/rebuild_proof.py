"""Proof of a rebuilt dataset: an independent count of the change log, compared key by key.

The count knows nothing of chunks, collapse, merges and tombstones: the highest version of each key
in the change log decides. What it can't know is which changes the function leaves out: a key
without rows is counted, not refused. Values are the function's own and are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from datazone_dagster.database.database import Task, opened

CHANGES = pa.schema([("key", pa.string()), ("version", pa.string()), ("is_delete", pa.bool_())])

ROWS = pa.schema(
    [
        ("key", pa.string()),
        ("version", pa.string()),
        ("deleted", pa.bool_()),
        ("current", pa.bool_()),
    ]
)

_TASK = Task(
    "compare the rebuilt dataset with the change log",
    "The dataset is as it was; the rebuilt table is not used.",
    "Rebuild it where there is more memory and disk.",
)


@dataclass(frozen=True, slots=True)
class RebuildProof:
    """Result of a comparison.

    Args:
        changes: Changes with a key in the change log.
        keys: Keys in the change log.
        rows: Rows of the rebuilt dataset.
        rows_keys: Keys with rows.
        without_rows: Keys whose last change is no delete and that have no rows: the function left
            them out, or they are in the quarantine.
        wrong: Keys whose rows contradict the change log.
        examples: Some of these.
    """

    changes: int
    keys: int
    rows: int
    rows_keys: int
    without_rows: int
    wrong: int
    examples: tuple[str, ...]


def prove(
    changes: Iterable[pa.RecordBatch],
    rows: Iterable[pa.RecordBatch],
    quarantined: pa.Array,
    mode: str,
    *,
    is_complete: bool,
) -> RebuildProof:
    """Compare a dataset with the change log; keys that do not fit in memory are spilled.

    Args:
        changes: The changes that the dataset has applied, in `CHANGES`.
        rows: Rows of the dataset, in `ROWS`.
        quarantined: Keys with a change in the quarantine: their rows may be older.
        mode: Mode of the dataset: merge, append or history.
        is_complete: Whether `changes` has all changes; otherwise rows of others are not compared.
    """
    with opened(task=_TASK) as connection:
        for name, batches, schema in (("changes", changes, CHANGES), ("rows", rows, ROWS)):
            connection.register("batch", schema.empty_table())
            connection.execute(f"create temp table {name} as from batch")
            for batch in batches:
                connection.register("batch", pa.Table.from_batches([batch], schema))
                connection.execute(f"insert into {name} from batch where key is not null")
        connection.register("held", pa.table({"key": quarantined.cast(pa.string())}))
        for statement in (*_STATEMENTS, _WRONG[mode]):
            connection.execute(
                statement, {"is_complete": is_complete} if "$" in statement else None
            )
        counts = connection.execute(_COUNTS).fetchone()
        examples = connection.execute(_EXAMPLES).fetchall()
    assert counts is not None
    found, keys, in_rows, rows_keys, without_rows, wrong = counts
    return RebuildProof(
        changes=found,
        keys=keys,
        rows=in_rows,
        rows_keys=rows_keys,
        without_rows=without_rows,
        wrong=wrong,
        examples=tuple(key for (key,) in examples),
    )


_STATEMENTS = (
    "create temp table expected as select key, max(version) as version, "
    "arg_max(is_delete, version) as is_delete from changes group by key",
    "create temp table built as select key, min(version) as lowest, max(version) as highest, "
    "bool_or(deleted) as deleted, count(*) filter (current) as current from rows group by key",
)

_WRONG = {
    "merge": """
        create temp table wrong as
        select b.key from built b left join expected e using (key)
        where b.key not in (select key from held) and ((e.key is null and $is_complete)
            or b.lowest <> e.version or b.highest <> e.version or b.deleted <> e.is_delete)
    """,
    "append": """
        create temp table wrong as
        select key from (select distinct key, version from rows)
        anti join changes using (key, version) where $is_complete
    """,
    "history": """
        create temp table wrong as
        select key from (select distinct key, version from rows)
        anti join changes using (key, version) where $is_complete
        union all
        select b.key from built b join expected e using (key)
        where b.key not in (select key from held)
            and e.is_delete and b.current > 0 and not b.deleted
    """,
}

_COUNTS = """
    select (select count(*) from changes), (select count(*) from expected),
        (select count(*) from rows), (select count(*) from built),
        (select count(*) from expected e anti join built using (key) where not e.is_delete),
        (select count(distinct key) from wrong)
"""

_EXAMPLES = "select distinct key from wrong order by key limit 5"
