"""Records of a frame whose SQL ran once, so that several queries can read the same rows.

The rows of SQL with a window or a group may come in another order each time that it runs. What two
runs of it give does not belong together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from datazone_dagster.frame.item_queries import field_of
from datazone_dagster.frame.query_session import Session
from datazone_dagster.frame.record_view import IMAGES, RECORD_COLUMN
from datazone_dagster.frame.syntax import quoted

_TABLE = "_dz_records"


@dataclass(frozen=True, slots=True)
class Records:
    """Texts of the images, keys included, by name, and other columns of the same rows."""

    images: Mapping[str, pa.ChunkedArray]
    carried: pa.Table

    def first(self, count: int) -> dict[str, pa.ChunkedArray]:
        """Return the texts of the first rows."""
        return {name: texts.slice(0, count) for name, texts in self.images.items()}

    @contextmanager
    def queried(self, session: Session) -> Iterator[str]:
        """Give SQL of these rows, with the record that has these images, while the block runs."""
        own = {f"_dz_{name}": texts for name, texts in self.images.items()}
        carried = dict(zip(self.carried.column_names, self.carried.columns, strict=True))
        fields = ", ".join(f"{name} := _dz_{name}" for name in self.images)
        listed = [f"struct_pack({fields}) AS {RECORD_COLUMN}", *map(quoted, carried)]
        with session.holding(_TABLE, pa.table({**own, **carried})):
            yield f"SELECT {', '.join(listed)} FROM {_TABLE}"  # noqa: S608  # quoted names


def records_of(
    session: Session,
    query: str,
    images: Sequence[str],
    carried: Sequence[str],
    chunk: pa.Table | None,
) -> Records:
    """Run a query of records.

    Args:
        session: Session that the query runs in.
        query: SQL that gives the records, in the column `dynamodb`.
        images: Images to read, keys included.
        carried: Other columns to read.
        chunk: Rows of the change log, if they are the query's rows: then it does not run.

    Raises:
        duckdb.Error: The query fails.
    """
    if chunk is not None:
        return Records({name: chunk.column(IMAGES[name]) for name in images}, chunk.select(carried))
    listed = [*map(quoted, carried), *(f"{field_of(name)} AS _dz_{name}" for name in images)]
    rows = session.table(f"SELECT {', '.join(listed)} FROM ({query})")  # noqa: S608  # quoted names
    return Records({name: rows.column(f"_dz_{name}") for name in images}, rows.select(carried))
