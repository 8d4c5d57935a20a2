"""The statements of a chunk for soft deletes: what `dataset.soft_delete` plans, in Spark SQL.

Two changes of each key count: its newest image and its newest delete. They are found among the
changes of the chunk, the row of the key and its tombstones, and decided once, in a view of the
session: tombstones, counts and MERGE are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from datazone_dagster.dataset.tombstones import IMAGE_VERSION
from datazone_dagster.model.column_names import DELETE_CAUSE, DELETED, EVENT_TIME, KEY, VERSION
from datazone_dagster.rows.merge_batch import CAUSE
from datazone_dagster.spark.statements import LEFT, table_of, tombstone_values, values_of

_DELETES = f"{CAUSE} IN ('user', 'ttl', 'resync_absent')"
_OF, _IMAGE, _FINAL_VERSION = "_dz_of", "_dz_what", "_dz_final_version"
_FINAL_TIME, _FINAL_CAUSE = "_dz_final_time", "_dz_final_cause"
_MARKS = {
    VERSION: f"s.{_FINAL_VERSION}",
    DELETED: f"s.{_FINAL_CAUSE} IS NOT NULL",
    DELETE_CAUSE: f"s.{_FINAL_CAUSE}",
}
"""Columns of a row that say which changes it is from, each with its SQL."""


@dataclass(frozen=True)
class SoftStatements:
    """Statements of one chunk.

    Args:
        view: Name of the batch, every change of which counts.
        table: The dataset, as Spark reaches it.
        tombstones: Table of tombstones, as Spark reaches it.
    """

    view: str
    table: str
    tombstones: str

    def decided(self) -> str:
        """Return the query of what happens to each key of the chunk.

        Each table is read once, and all that is known of a key comes together in one place.
        """
        of_keys = f"LEFT SEMI JOIN {self.view} AS k ON r.{KEY} = k.{KEY}"
        known = (
            f"SELECT 'chunk' AS origin, {KEY}, {VERSION} AS version, {EVENT_TIME} AS event_time, "
            f"{LEFT} AS {CAUSE}, false AS deleted, NULL AS image_version FROM {self.view} "
            f"UNION ALL SELECT 'table', r.{KEY}, r.{VERSION}, r.{EVENT_TIME}, r.{DELETE_CAUSE}, "
            f"coalesce(r.{DELETED}, false), NULL FROM {table_of(self.table)} AS r {of_keys} "
            f"UNION ALL SELECT 'tombstone', r.{KEY}, r.{VERSION}, r.{EVENT_TIME}, r.{CAUSE}, "
            f"false, r.{IMAGE_VERSION} FROM {table_of(self.tombstones)} AS r {of_keys}"
        )
        parts = {
            "known": known,
            "with_row": _WITH_ROW,
            "with_image": _WITH_IMAGE,
            "roles": _ROLES,
            "facts": _FACTS,
        }
        listed = ", ".join(f"{name} AS ({query})" for name, query in parts.items())
        return f"WITH {listed} {_DECIDED}"

    def facts(self, decided: str) -> str:
        """Return the query of the numbers of keys that change, and of tombstones to write."""
        leaves = "(was_live AND NOT (image <> 'none' AND NOT is_deleted))"
        counted = {
            "inserted": "changes AND existing_version IS NULL",
            "updated": f"changes AND existing_version IS NOT NULL AND NOT {leaves}",
            "deleted": f"changes AND {leaves}",
            "removed": f"is_deleted OR ({_IS_FILTERED})",
        }
        listed = ", ".join(f"count_if({sql}) AS {name}" for name, sql in counted.items())
        return f"SELECT {listed} FROM {decided}"

    def tombstones_statement(self, decided: str, now: datetime) -> str:
        """Return the INSERT of the tombstones that are not there yet."""
        made = (
            f"SELECT {KEY}, delete_version AS {VERSION}, delete_cause AS {CAUSE}, "
            f"delete_time AS {EVENT_TIME}, image_version AS {IMAGE_VERSION} "
            f"FROM {decided} WHERE is_deleted "
            f"UNION ALL SELECT {KEY}, image_version, 'filtered', image_time, NULL "
            f"FROM {decided} WHERE {_IS_FILTERED}"
        )
        values = {
            **tombstone_values(now, CAUSE),
            EVENT_TIME: EVENT_TIME,
            IMAGE_VERSION: IMAGE_VERSION,
        }
        new = (
            f"SELECT m.* FROM ({made}) AS m LEFT ANTI JOIN {table_of(self.tombstones)} AS t "
            f"ON t.{KEY} = m.{KEY} AND t.{VERSION} = m.{VERSION} AND t.{CAUSE} = m.{CAUSE} "
            f"AND (m.{CAUSE} = 'filtered' OR t.{IMAGE_VERSION} <=> m.{IMAGE_VERSION})"
        )
        return (
            f"INSERT INTO {table_of(self.tombstones)} ({', '.join(values)}) "
            f"SELECT {', '.join(values.values())} FROM ({new})"
        )

    def merge(self, decided: str, table: pa.Schema, result: pa.Schema) -> str:
        """Return the MERGE.

        Args:
            decided: Name of what was decided.
            table: Schema of the dataset.
            result: Schema of the rows of the batch.
        """
        source = (
            f"SELECT b.*, d.{KEY} AS {_OF}, d.image AS {_IMAGE}, "
            f"d.final_version AS {_FINAL_VERSION}, d.final_time AS {_FINAL_TIME}, "
            f"d.final_cause AS {_FINAL_CAUSE} FROM {decided} AS d LEFT JOIN {self.view} AS b "
            f"ON d.image = 'new' AND b.{KEY} = d.{KEY} AND b.{VERSION} = d.image_version "
            "WHERE d.changes"
        )
        moved = {**_MARKS, EVENT_TIME: f"coalesce(s.{_FINAL_TIME}, t.{EVENT_TIME})"}
        given = {**_MARKS, EVENT_TIME: f"coalesce(s.{_FINAL_TIME}, s.{EVENT_TIME})"}
        values = values_of(table, result, given)
        return (
            f"MERGE INTO {table_of(self.table)} AS t USING ({source}) AS s ON t.{KEY} = s.{_OF} "
            f"WHEN MATCHED AND s.{_IMAGE} = 'none' THEN DELETE "
            f"WHEN MATCHED AND s.{_IMAGE} = 'existing' THEN UPDATE SET "
            f"{', '.join(f't.{name} = {sql}' for name, sql in moved.items())} "
            "WHEN MATCHED THEN UPDATE SET "
            f"{', '.join(f't.{name} = {sql}' for name, sql in values.items())} "
            f"WHEN NOT MATCHED AND s.{_IMAGE} = 'new' THEN "
            f"INSERT ({', '.join(values)}) VALUES ({', '.join(values.values())})"
        )


_IS_FILTERED = "image = 'none' AND image_version IS NOT NULL"


def _newest(role: str, value: str) -> str:
    """Return the aggregate of a value of the newest row in a role that has the value."""
    newest = f"if({value} IS NULL OR {role}_at IS NULL, NULL, struct({role}_at, {role}_rank))"
    return f"max_by({value}, {newest})"


_WITH_ROW = f"""
    SELECT *, max(if(origin = 'table', version, NULL)) OVER (PARTITION BY {KEY}) AS existing_version
    FROM known
"""

_WITH_IMAGE = f"""
    SELECT *, max(if(origin = 'tombstone' AND version = existing_version, image_version, NULL))
        OVER (PARTITION BY {KEY}) AS existing_image
    FROM with_row
"""

# An image that came with the chunk, the row, and a filtered image of a tombstone, are images; a
# marked row whose tombstone has expired counts as new as its delete.
_ROLES = f"""
    SELECT *,
        CASE WHEN origin = 'chunk' AND ({CAUSE} IS NULL OR {CAUSE} = 'filtered') THEN version
            WHEN origin = 'table' AND deleted THEN coalesce(existing_image, version)
            WHEN origin = 'table' THEN version
            WHEN origin = 'tombstone' AND {CAUSE} = 'filtered' THEN version END AS image_at,
        CASE WHEN origin = 'chunk' THEN 1 WHEN origin = 'table' AND NOT deleted THEN 2
            ELSE 0 END AS image_rank,
        CASE WHEN origin = 'table' THEN 'existing' WHEN origin = 'chunk' AND {CAUSE} IS NULL
            THEN 'new' ELSE 'none' END AS image,
        CASE WHEN origin = 'chunk' OR (origin = 'table' AND NOT deleted)
            THEN event_time END AS image_time,
        CASE WHEN origin <> 'table' AND {_DELETES} THEN version
            WHEN origin = 'table' AND deleted THEN version END AS delete_at,
        CASE origin WHEN 'chunk' THEN 1 WHEN 'table' THEN 2 ELSE 0 END AS delete_rank
    FROM with_image
"""

_FACTS = f"""
    SELECT {KEY}, coalesce({_newest("image", "image")}, 'none') AS image,
        max(image_at) AS image_version, {_newest("image", "image_time")} AS image_time,
        max(existing_version) AS existing_version,
        coalesce(max(if(origin = 'table', NOT deleted, NULL)), false) AS was_live,
        max(delete_at) AS delete_version, {_newest("delete", CAUSE)} AS delete_cause,
        {_newest("delete", "event_time")} AS delete_time,
        coalesce(max(delete_at) >= coalesce(max(image_at), ''), false) AS is_deleted
    FROM roles GROUP BY {KEY}
"""

_DECIDED = """
    SELECT *, if(is_deleted, delete_version, image_version) AS final_version,
        if(is_deleted, delete_time, NULL) AS final_time,
        if(is_deleted, delete_cause, NULL) AS final_cause,
        CASE WHEN image = 'none' THEN existing_version IS NOT NULL
            WHEN image = 'existing' THEN is_deleted AND existing_version <> delete_version
            ELSE true END AS changes
    FROM facts
"""
