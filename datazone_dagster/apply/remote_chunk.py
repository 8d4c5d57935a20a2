"""A chunk that another engine reads: the function is called for its expressions alone."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from datazone_dagster.apply.chunk import CHANGES_SCHEMA
from datazone_dagster.errors import DefinitionError
from datazone_dagster.frame.query_session import Unread


@dataclass(frozen=True, slots=True)
class RemoteChunk:
    """The batches of a chunk of which no row is read here.

    Args:
        name: Name of the transform, for errors.
        first_batch: First batch.
        last_batch: Last batch.
    """

    name: str
    first_batch: int
    last_batch: int

    def unread(self) -> Unread:
        """Return a table whose columns are known and that refuses to be read."""
        return Unread(CHANGES_SCHEMA, self._refuse)

    def changes_with(self, _: frozenset[str]) -> pa.Table:
        """Return no changes: errors show the first ones."""
        return CHANGES_SCHEMA.empty_table()

    @property
    def location(self) -> str:
        """Range of batches in the change log, for errors."""
        return f"batches {self.first_batch} to {self.last_batch}"

    def _refuse(self, _: frozenset[str]) -> pa.Table:
        raise python_error(self.name)


def python_error(name: str) -> DefinitionError:
    """Return the error of a function whose rows Spark can't compute."""
    return DefinitionError(
        f"The function of transform {name!r} reads its rows in Python, or by items(), or computes "
        "a row from several changes: a SparkEngine evaluates expressions only.",
        safe="Nothing was applied; the change log keeps the changes.",
        hint="Return frame.select(), filter(), with_columns() or a plain sql() of them; do the "
        "rest downstream of the dataset; or leave engine out.",
    )
