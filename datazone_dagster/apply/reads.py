"""What the frames of a function found while they read chunks: values of another type, typos."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pyarrow as pa

from datazone_dagster.apply.chunk import ReadReport
from datazone_dagster.apply.function_errors import SAFE
from datazone_dagster.apply.path_mismatches import (
    NO_OLD_IMAGES,
    Mismatches,
    mismatch_error,
    mismatches_in,
)
from datazone_dagster.frame.record_view import FieldNames
from datazone_dagster.model.path_history import PathHistory
from datazone_dagster.model.report import PathMismatch


class Reads:
    """Reads of the chunks so far.

    `names` are those of the last call's frames, `paths` the history of the paths of SQL, `report`
    is that of the last chunk.

    Args:
        paths: History before the first chunk.
        on_mismatch: The transform's setting.
    """

    def __init__(self, paths: PathHistory, on_mismatch: str) -> None:
        self.names = FieldNames()
        self.paths = paths
        self.report = ReadReport()
        self._on_mismatch = on_mismatch

    def problem(
        self, changes: pa.Table, rows: Mapping[str, pa.Table], view_types: Collection[str]
    ) -> str | None:
        """Return why changes must be evaluated, if values of another type are not only counted.

        Without such values, the chunk is recorded.

        Args:
            changes: The changes, with the hidden columns.
            rows: Rows of each output.
            view_types: View types of the stream that the changes came from.
        """
        found = mismatches_in(self.names, changes, rows.values(), self._on_mismatch)
        for one in found:
            if one.treatment != "null":
                return one.reason
        self.record(changes, tuple(one.counted for one in found), view_types, rows)
        return None

    def mismatches(self, changes: pa.Table, rows: Mapping[str, pa.Table]) -> list[Mismatches]:
        """Return the values of another type than the paths of the last call read.

        Raises:
            TransformError: There are some, and they fail the run.
        """
        found = mismatches_in(self.names, changes, rows.values(), self._on_mismatch)
        for one in found:
            if one.treatment == "fail":
                raise mismatch_error(one, changes, safe=SAFE)
        return found

    def record(
        self,
        changes: pa.Table,
        mismatches: tuple[PathMismatch, ...],
        view_types: Collection[str],
        rows: Mapping[str, pa.Table],
    ) -> None:
        """Add a chunk that was evaluated to the history, and make its report."""
        columns = {name for table in rows.values() for name in table.column_names}
        self.record_counted(len(changes), mismatches, view_types, columns)

    def record_counted(
        self,
        changes: int,
        mismatches: tuple[PathMismatch, ...],
        view_types: Collection[str],
        columns: Collection[str],
    ) -> None:
        """Add a chunk as `record` does, by its number of changes and the columns of its rows."""
        self.paths = self.paths.after(self.names.found(), changes)
        unfound = self.paths.never_found(self.names.paths())
        lacks_old = self.names.reads_old_images and NO_OLD_IMAGES in view_types
        sources = {name: self.names.sources(name) for name in columns}
        self.report = ReadReport(self.names.sibling_values, mismatches, unfound, lacks_old, sources)
