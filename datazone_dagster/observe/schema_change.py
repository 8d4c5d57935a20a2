"""Changes of a dataset's columns since its last materialization, and columns that were rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datazone_dagster.model.contract import Contract
from datazone_dagster.model.report import PathMismatch
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.preview import markdown_cell
from datazone_dagster.text import shown

Columns = Sequence[tuple[str, str]]
"""Names and types of a table's columns, in table order."""

_SHOWN = 50
_NAMED = 10


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """Type of one column before and after; None where the column did not or does not exist."""

    column: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """Result of the `schema` check of a dataset.

    `shown_before`: a materialization shows exactly these columns already. `values_not_fitting`:
    values of the run that did not fit their column or the type of their path.
    """

    level: Level
    reason: str
    changes: tuple[ColumnChange, ...] = ()
    unexpected: tuple[tuple[str, str, int], ...] = ()
    shown_before: bool = False
    values_not_fitting: int = 0


def schema_changes(before: Columns | None, after: Columns) -> tuple[ColumnChange, ...]:
    """Return the differences of two schemas by column name; none if the first is unknown."""
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
    sibling_values: Sequence[tuple[str, int]] = (),
    mismatches: Sequence[PathMismatch] = (),
    unfound_paths: Sequence[tuple[str, int]] = (),
    records: int = 0,
    lacks_old_images: bool = False,
) -> SchemaStatus:
    """Return a warning, once, for a changed schema; an error for columns that a freeze rejects.

    Values that did not fit their column are a warning of the run that brought them.

    Args:
        before: Columns at the last materialization; None if there was none.
        after: Current columns.
        unexpected: Rejected columns: name, type, and the batch in which each first appeared.
        contract: Contract of the dataset.
        dataset_id: Id of the dataset, for the message.
        sibling_values: Number of values of the run in each sibling column.
        mismatches: Values of the run that the function's paths could not read.
        unfound_paths: Paths whose attribute no record ever had, with the number of records.
        records: Number of records that the run read.
        lacks_old_images: Whether the function reads old images that the stream does not have.
    """
    changes = schema_changes(before, after)
    found = (changes, unexpected, sibling_values, mismatches, unfound_paths, lacks_old_images)
    level = Level.WARN if any(found) else Level.OK
    sentences = []
    if changes:
        sentences.append(
            f"The schema changed: {_listed([_described(change) for change in changes])}."
        )
    if sibling_values:
        columns = [f"{count} in {shown(name)!r}" for name, count in sibling_values]
        sentences.append(
            f"Values of this run did not fit the column of their attribute and are, exact, in the "
            f"column next to it: {_listed(columns)}. Read both columns, or declare a type that "
            f"holds all of them in items(types={{...}}) and run "
            f"`datazone-dagster rebuild {dataset_id}`."
        )
    if lacks_old_images:
        sentences.append(
            "The function reads the old image, but the stream has view type NEW_IMAGE: paths into "
            "OldImage and the columns of items('old') and before_ are null. Old images need a "
            "stream of view type NEW_AND_OLD_IMAGES."
        )
    sentences += _sentences_about_paths(mismatches, unfound_paths, records)
    if unexpected:
        frozen = any(contract.policy_of(name) == "freeze" for name, _, _ in unexpected)
        level = Level.ERROR if frozen else level
        rejected = [
            f"{shown(name)!r} ({kind}, since batch {batch})" for name, kind, batch in unexpected
        ]
        sentences.append(
            f"The function returns columns that the contract rejects: {_listed(rejected)}. The "
            "change log has their values. Remove them from the function; or allow them by "
            "schema or schema_policy, and fill the existing rows by "
            f"`datazone-dagster rebuild {dataset_id}`."
        )
    reason = " ".join(sentences) or "The columns are the same as at the last materialization."
    shown_before = before is not None and not changes
    not_fitting = sum(count for _, count in sibling_values) + sum(one.changes for one in mismatches)
    return SchemaStatus(level, reason, changes, tuple(unexpected), shown_before, not_fitting)


def _sentences_about_paths(
    mismatches: Sequence[PathMismatch], unfound_paths: Sequence[tuple[str, int]], records: int
) -> list[str]:
    sentences = []
    if mismatches:
        of = f"{records} record{'' if records == 1 else 's'}"
        counted = [
            f"{one.changes} of {of} {'has' if one.changes == 1 else 'have'} "
            f"{shown(one.attribute)} as {shown(one.descriptor)} ({shown(one.path)} reads it)"
            for one in mismatches
        ]
        sentences.append(
            f"Values have another type than the function reads: {_listed(counted)}. Their paths "
            "gave null, or their records are in the quarantine. Read both types, as in "
            "coalesce(dynamodb.NewImage.total.N, dynamodb.NewImage.total.S), or choose what "
            "happens by @transform(on_mismatch=...)."
        )
    if unfound_paths:
        paths = [f"{shown(path)} ({count} records)" for path, count in unfound_paths]
        sentences.append(
            f"No record so far has the attribute that the function reads: {_listed(paths)}. Is "
            "its name spelled as in the table? Names are case-sensitive."
        )
    return sentences


def schema_change_markdown(changes: Sequence[ColumnChange]) -> str:
    """Format the differences as a Markdown table, safe to show; empty if there are none."""
    if not changes:
        return ""
    rows = [
        f"| {markdown_cell(change.column)} | {markdown_cell(change.before or '')} | "
        f"{markdown_cell(change.after or '')} |"
        for change in changes[:_SHOWN]
    ]
    return "\n".join(["| column | before | after |", "| --- | --- | --- |", *rows])


def _described(change: ColumnChange) -> str:
    if change.before is None:
        return f"{shown(change.column)!r} ({change.after}) is new"
    if change.after is None:
        return f"{shown(change.column)!r} ({change.before}) is gone"
    return f"{shown(change.column)!r} was {change.before} and is {change.after}"


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more
