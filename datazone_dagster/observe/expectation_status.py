"""Level of an expectation of a dataset, by the rows that were checked against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from datazone_dagster.api import Dataset, Expect
from datazone_dagster.model.missing_columns import missing_columns_text
from datazone_dagster.model.report import RuleCount
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import Plain
from datazone_dagster.text import shown


@dataclass(frozen=True, slots=True)
class ExpectationStatus:
    """Result of the check of one expectation.

    Args:
        level: `WARN` while rows violate it or lack a column of it, `ERROR` if it fails the run.
        reason: Text of the check.
        expected: The expectation.
        count: Rows that were checked.
    """

    level: Level
    reason: str
    expected: Expect
    count: RuleCount


_BETWEEN = ", "

_THEN = {
    "warn": "They are in the dataset.",
    "fail": "The run failed: nothing of their chunk was applied.",
    "quarantine": "Their changes wait in the quarantine.",
}


def expectation_status(expected: Expect, count: RuleCount) -> ExpectationStatus:
    """Return the status after the rows of a report, or of the last one that wrote rows."""
    predicate = shown(expected.predicate)
    if not count.violations:
        rows = f"None of {count.rows:,} rows" if count.rows else "No row"
        reason = f"{rows} of the last report violates it: {predicate}.{_of_missing(count)}"
        level = Level.WARN if count.missing else Level.OK
        return ExpectationStatus(level, reason, expected, count)
    example = f" The first has the _dz_key {count.example_key}." if count.example_key else ""
    return ExpectationStatus(
        Level.ERROR if expected.on_violation == "fail" else Level.WARN,
        f"{count.violations:,} of {count.rows:,} rows of the last report violate it: {predicate}. "
        f"{_THEN[expected.on_violation]}{example}{_of_missing(count)}",
        expected,
        count,
    )


def _of_missing(count: RuleCount) -> str:
    return f" {missing_columns_text(count.missing, count.columns)}" if count.missing else ""


def expectation_statuses(
    dataset: Dataset, counts: Iterable[RuleCount]
) -> tuple[ExpectationStatus, ...]:
    """Return the status of each expectation of a dataset; those without a count have no rows."""
    found = {one.rule: one for one in counts}
    return tuple(
        expectation_status(expected, found.get(rule) or RuleCount(rule))
        for rule, expected in dataset.expect
    )


def expectation_metadata(status: ExpectationStatus) -> dict[str, Plain]:
    """Return the metadata of the check `expect_<name>`."""
    return {
        "violations": status.count.violations,
        "rows_checked": status.count.rows,
        "predicate": status.expected.predicate,
        "on_violation": status.expected.on_violation,
        **({"example_key": status.count.example_key} if status.count.example_key else {}),
        **_missing_metadata(status.count),
    }


def _missing_metadata(count: RuleCount) -> dict[str, Plain]:
    if not count.missing:
        return {}
    return {
        "missing_columns": _BETWEEN.join(map(shown, count.missing)),
        "columns": _BETWEEN.join(map(shown, count.columns)),
    }


def known_count(rule: str, expected: Expect, found: Mapping[str, object]) -> RuleCount | None:
    """Return the count that the metadata of an earlier check show; None if of another condition."""
    violations, rows = found.get("violations"), found.get("rows_checked")
    same = (found.get("predicate"), found.get("on_violation")) == (
        expected.predicate,
        expected.on_violation,
    )
    if not same or not isinstance(violations, int) or not isinstance(rows, int):
        return None
    key = found.get("example_key")
    return RuleCount(
        rule,
        rows,
        violations,
        key if isinstance(key, str) else None,
        _names(found.get("missing_columns")),
        _names(found.get("columns")),
    )


def _names(text: object) -> tuple[str, ...]:
    return tuple(text.split(_BETWEEN)) if isinstance(text, str) and text else ()
