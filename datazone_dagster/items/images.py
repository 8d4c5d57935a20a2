"""Search for images that are not JSON, run only when a chunk turns out to contain one.

The change log stores a row whatever its content, so an image can be text that no parser accepts
(a lone surrogate, a truncated end). Reading such a chunk fails completely. These rows are then
found and quarantined, and the other rows are read again.
"""

from __future__ import annotations

import pyarrow as pa

from datazone_dagster.database.database import DEFAULT_MEMORY_LIMIT_BYTES, opened
from datazone_dagster.items.failure import DecodeFailure
from datazone_dagster.model.column_names import Log

_IMAGES = ((Log.NEW_IMAGE, "new image"), (Log.OLD_IMAGE, "old image"))


def image_failures(
    changes: pa.Table, memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES
) -> list[DecodeFailure]:
    """Return the rows whose new or old image is not a JSON object, in row order.

    Args:
        changes: A chunk with the columns `new_image` and `old_image` as JSON text.
        memory_limit_bytes: DuckDB's memory limit.

    Returns:
        One failure per row, with the reason of the first image that fails.
    """
    reasons: dict[int, str] = {}
    with opened(memory_limit_bytes) as connection:
        for column, words in _IMAGES:
            connection.register("chunk", pa.table({"image": changes.column(column)}))
            query = """
                SELECT row FROM (SELECT image, row_number() OVER () - 1 AS row FROM chunk)
                WHERE CASE WHEN image IS NULL THEN false WHEN NOT json_valid(image) THEN true
                      ELSE json_type(image) <> 'OBJECT' END
            """
            for (row,) in connection.execute(query).fetchall():
                reasons.setdefault(row, f"the {words} is not a JSON object")
    return [DecodeFailure(row, reasons[row]) for row in sorted(reasons)]
