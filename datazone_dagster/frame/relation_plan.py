"""Plan of a relation: the stages of its query, and what is known of their columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from datazone_dagster.frame.expressions import PREVIOUS, Expression
from datazone_dagster.frame.key_scope import Columns, Mixing
from datazone_dagster.frame.query_session import Session
from datazone_dagster.frame.record_view import FieldNames
from datazone_dagster.frame.volatile import Deciding, VolatileColumns
from datazone_dagster.model.column_names import HIDDEN


@dataclass(frozen=True, slots=True)
class Plan:
    """Computation of a relation's rows.

    `root` makes the first query from the record fields that are needed. Each of `stages` reads
    the stage before it as `PREVIOUS`. `bound` holds the names and DuckDB types of the last stage's
    columns, `calls` the user's calls. `row_wise` says that each row comes from one change alone.
    `ready` holds the rows if they need no query. `columns` are the columns of the last stage that
    are exactly an attribute, `mixing` the operations over several rows (`frame.key_scope`).
    `volatile` are its columns with values of a volatile function, `deciding` the volatile functions
    that decide which rows there are (`frame.volatile`).
    """

    session: Session
    names: FieldNames
    root: Callable[[frozenset[str], FieldNames], str]
    source: str
    stages: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    bound: tuple[tuple[str, str], ...] = ()
    calls: tuple[str, ...] = ()
    row_wise: bool = False
    ready: pa.Table | None = None
    columns: Columns = field(default_factory=dict)
    mixing: tuple[Mixing, ...] = ()
    volatile: VolatileColumns = field(default_factory=dict)
    deciding: tuple[Deciding, ...] = ()

    def query(self, more: frozenset[str] = frozenset()) -> str:
        """Return the SQL of all stages."""
        text = self.root(self.needs | more, self.names)
        for stage in self.stages:
            before, _, after = stage.partition(PREVIOUS)  # the first occurrence is always ours
            text = f"{before}({text}){after}"
        return text

    def then(self, call: str, stage: str, found: Sequence[Expression]) -> Plan:
        """Return this plan with one more stage, which is made of these expressions.

        Raises:
            duckdb.Error: The stage does not bind.
        """
        return replace(
            self,
            stages=(*self.stages, stage),
            needs=self.needs.union(*(item.needs for item in found)),
            calls=(*self.calls, call),
            row_wise=self.row_wise and all(item.row_wise for item in found),
            ready=None,
            columns=_columns_after(self.columns, found),
            mixing=(*self.mixing, *(one for item in found for one in item.mixing)),
            volatile=_volatile_after(self.volatile, found),
            deciding=(*self.deciding, *(one for item in found for one in item.deciding)),
        ).rebound()

    def rebound(self) -> Plan:
        """Return this plan with the columns of its last stage in `bound`."""
        return replace(self, bound=tuple(self.session.columns(self.query())))


def _columns_after(before: Columns, found: Sequence[Expression]) -> Columns:
    """Return the columns of a stage that are exactly an attribute."""
    hidden = {name: before[name] for name in map(str.casefold, HIDDEN) if name in before}
    after = {**hidden, **_untouched(before, found)}
    for item in found:
        after |= item.columns
    return after


def _volatile_after(before: VolatileColumns, found: Sequence[Expression]) -> VolatileColumns:
    """Return the columns of a stage with values of a volatile function."""
    after = _untouched(before, found)
    for item in found:
        after |= item.volatile
    return after


def _untouched(before: Mapping[str, str], found: Sequence[Expression]) -> dict[str, str]:
    """Return what is known of the columns before that a stage keeps: `with_columns` keeps some."""
    if found[0].method != "with_columns":
        return {}
    replaced = {item.name.casefold() for item in found}
    return {name: one for name, one in before.items() if name not in replaced}
