"""The checks `small_files` and `unique_keys` of a dataset's table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.model.report import KeyReport
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import Plain

MANY_FILES = 200
SMALL_BYTES = 4 << 20
"""Mean size of files, in bytes, below which many files are too many for readers."""


@dataclass(frozen=True, slots=True)
class TableStatus:
    """Result of a check of a table."""

    level: Level
    reason: str
    plain: dict[str, Plain]


def small_files_status(files: int, size_bytes: int) -> TableStatus:
    """Return a warning for more than 200 files of less than 4 MiB on average."""
    mean = size_bytes // files if files else 0
    plain: dict[str, Plain] = {"files": files, "bytes": size_bytes, "bytes_per_file": mean}
    if files <= MANY_FILES or mean >= SMALL_BYTES:
        count = "1 file" if files == 1 else f"{files:,} files"
        return TableStatus(Level.OK, f"{count} of {mean:,} bytes on average.", plain)
    return TableStatus(
        Level.WARN,
        f"{files:,} files of {mean:,} bytes on average: readers open every one. The nightly "
        "maintenance (or `datazone-dagster maintain`) joins those of one partition; if they stay, "
        "partition_by makes too many partitions.",
        plain,
    )


NOT_CHECKED = TableStatus(
    Level.OK,
    "Not checked yet: the nightly maintenance checks it, and so does a run of this check alone.",
    {},
)


def unique_keys_status(report: KeyReport, checked_at: datetime) -> TableStatus:
    """Return an error if a key has rows of several changes that should show it at one time."""
    plain: dict[str, Plain] = {
        "keys": report.keys,
        "rows_checked": report.rows,
        "keys_doubled": report.doubled,
        "keys_with_several_rows": report.several_rows,
        "checked_at": checked_at,
    }
    if report.rows > report.limit_rows:
        reason = (
            f"Not checked: {report.rows:,} rows are more than the {report.limit_rows:,} that are "
            "read for it."
        )
        return TableStatus(Level.OK, reason, {"checked_at": checked_at})
    if report.doubled:
        reason = (
            f"{report.doubled:,} of {report.keys:,} keys have rows of several changes at once, for "
            f"example {report.example_key}. Another program has written to the table, or the "
            "library has a fault: rebuild the dataset, and report it."
        )
        return TableStatus(Level.ERROR, reason, plain)
    return TableStatus(
        Level.OK, f"The rows of each of {report.keys:,} keys are those of one change.", plain
    )
