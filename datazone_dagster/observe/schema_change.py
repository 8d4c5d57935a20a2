"""What became of a dataset's columns since its last materialization, and what was kept out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datazone_dagster.model.contract import Contract
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.preview import escaped

Columns = Sequence[tuple[str, str]]
"""Names and types of a table's columns, in its order."""

_SHOWN = 50
_NAMED = 10


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """One column before and after; None where it was not, or is not, there."""

    column: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """What the `schema` check of a dataset says."""

    level: Level
    reason: str
    changes: tuple[ColumnChange, ...] = ()
    unexpected: tuple[tuple[str, str, int], ...] = ()


def schema_changes(before: Columns | None, after: Columns) -> tuple[ColumnChange, ...]:
    """The difference between two schemas, by column name; none if the first is not known."""
    if before is None:
        return ()
    was, now = dict(before), dict(after)
    return tuple(
        ColumnChange(name, was.get(name), now.get(name))
        for name in dict.fromkeys((*was, *now))
        if was.get(name) != now.get(name)
    )


def schema_status(
    before: Columns | None,
    after: Columns,
    unexpected: Sequence[tuple[str, str, int]],
    *,
    contract: Contract,
    dataset_id: str,
) -> SchemaStatus:
    """A schema that changed warns once; columns that a frozen table keeps out are an error.

    Args:
        before: The columns at the last materialization; None if there was none.
        after: The columns now.
        unexpected: Columns kept out: name, type, and the batch in which they first came.
        contract: What the columns have to be.
        dataset_id: For the text.
    """
    changes = schema_changes(before, after)
    level = Level.WARN if changes or unexpected else Level.OK
    parts = []
    if changes:
        parts.append(f"The schema changed: {_listed([_told(change) for change in changes])}.")
    if unexpected:
        frozen = any(contract.policy_of(name) == "freeze" for name, _, _ in unexpected)
        level = Level.ERROR if frozen else level
        told = [f"{name!r} ({kind}, since batch {batch})" for name, kind, batch in unexpected]
        parts.append(
            f"The function returns columns that the contract keeps out: {_listed(told)}. The "
            "change log has their values. Take them out of the function; or let them in, by "
            "schema or schema_policy, and fill the rows that are there by "
            f"`datazone-dagster rebuild {dataset_id}`."
        )
    reason = " ".join(parts) or "The columns are those of the last materialization."
    return SchemaStatus(level, reason, changes, tuple(unexpected))


def schema_change_markdown(changes: Sequence[ColumnChange]) -> str:
    """The difference as a Markdown table, safe to show; empty if there is none."""
    if not changes:
        return ""
    rows = [
        f"| {escaped(change.column)} | {escaped(change.before or '')} | "
        f"{escaped(change.after or '')} |"
        for change in changes[:_SHOWN]
    ]
    return "\n".join(["| column | before | after |", "| --- | --- | --- |", *rows])


def _told(change: ColumnChange) -> str:
    if change.before is None:
        return f"{change.column!r} ({change.after}) is new"
    if change.after is None:
        return f"{change.column!r} ({change.before}) is gone"
    return f"{change.column!r} was {change.before} and is {change.after}"


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more
