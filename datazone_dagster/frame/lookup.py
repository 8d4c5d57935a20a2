"""Lookup that `Input(Dataset)` gives a function: a full table to read and join."""

from __future__ import annotations

import pyarrow as pa

from datazone_dagster.database.database import DEFAULT_MEMORY_LIMIT_BYTES
from datazone_dagster.errors import DefinitionError
from datazone_dagster.frame.query_session import Session
from datazone_dagster.frame.record_view import FieldNames
from datazone_dagster.frame.relation import Relation
from datazone_dagster.frame.relation_plan import Plan
from datazone_dagster.frame.syntax import quoted
from datazone_dagster.model.column_names import HIDDEN, RESERVED_PREFIX

CHANGES = "changes"


def lookup_table(name: str, table: pa.Table) -> pa.Table:
    """Return the table that a lookup shows, without the hidden columns of its dataset.

    SQL would mistake those hidden columns for the ones of the rows that the lookup is joined to.

    Raises:
        DefinitionError: The name is reserved.
    """
    folded = name.casefold()
    if folded == CHANGES or folded.startswith(RESERVED_PREFIX):
        raise DefinitionError(
            f"input_mapping: a lookup can't be named {name!r}.",
            hint=f"In sql(), {CHANGES!r} is the stream; {RESERVED_PREFIX!r} is a reserved prefix.",
        )
    return table.drop_columns([column for column in HIDDEN if column in table.column_names])


class Lookup(Relation):
    """A read-only table of a dataset, as of the moment when the run read it.

    Its table name is the name of the parameter, both in `frame.sql(...)` and in its own
    `sql(...)`.
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
        """Make a lookup over an Arrow table.

        Args:
            name: Name of the function's parameter.
            table: All rows; not copied.
            memory_limit_bytes: DuckDB's limit for intermediate results.
            threads: Number of DuckDB threads; None for DuckDB's default (one per core).

        Raises:
            DefinitionError: The name is reserved.
        """
        session = Session(
            {name: lookup_table(name, table)},
            memory_limit_bytes=memory_limit_bytes,
            threads=threads,
        )
        query = f"SELECT * FROM {quoted(name)}"  # noqa: S608  # quoted
        plan = Plan(session, FieldNames(), lambda _needs, _names: query, source=name)
        return cls(plan.rebound())
