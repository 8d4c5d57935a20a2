"""What `Input(Dataset)` gives a function: a whole table to read and join."""

from __future__ import annotations

import pyarrow as pa

from datazone_dagster.errors import DefinitionError
from datazone_dagster.frame.query_session import DEFAULT_MEMORY_LIMIT_BYTES, Session
from datazone_dagster.frame.record_view import FieldNames
from datazone_dagster.frame.relation import Plan, Relation
from datazone_dagster.frame.syntax import quoted
from datazone_dagster.model.column_names import HIDDEN, RESERVED_PREFIX

CHANGES = "changes"


def lookup_table(name: str, table: pa.Table) -> pa.Table:
    """The table that a lookup shows: without the hidden columns of the dataset it comes from.

    They would be taken for those of the rows that it is joined to.

    Raises:
        DefinitionError: The name is one of ours.
    """
    folded = name.casefold()
    if folded == CHANGES or folded.startswith(RESERVED_PREFIX):
        raise DefinitionError(
            f"input_mapping: a lookup can't be named {name!r}.",
            hint=f"{CHANGES!r} is the stream in sql(), names with {RESERVED_PREFIX!r} are ours.",
        )
    return table.drop_columns([column for column in HIDDEN if column in table.column_names])


class Lookup(Relation):
    """A dataset's table as it was when the run read it, read-only.

    In `frame.sql(...)` it is a table under its parameter's name; in its own `sql(...)` too.
    """

    @classmethod
    def of_table(
        cls,
        name: str,
        table: pa.Table,
        *,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        threads: int | None = None,
    ) -> Lookup:
        """A lookup over an Arrow table.

        Args:
            name: The parameter of the function.
            table: All rows. Not copied.
            memory_limit_bytes: What DuckDB may use for intermediate results.
            threads: Of DuckDB; None leaves it to DuckDB.

        Raises:
            DefinitionError: The name is one of ours.
        """
        session = Session(
            {name: lookup_table(name, table)},
            memory_limit_bytes=memory_limit_bytes,
            threads=threads,
        )
        query = f"SELECT * FROM {quoted(name)}"  # noqa: S608  # quoted
        plan = Plan(session, FieldNames(), lambda _needs, _names: query, source=name)
        return cls(plan.rebound())
