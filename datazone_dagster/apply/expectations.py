"""Expectations of the datasets of a run, checked on the rows that a chunk is about to write."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.api import Dataset
from datazone_dagster.api.expect import Expect
from datazone_dagster.apply.chunk import FunctionResult
from datazone_dagster.database.database import Databases
from datazone_dagster.dataset.contract_refusals import rows_of_deletes, without_refused
from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.dataset.latest import only_latest
from datazone_dagster.errors import DefinitionError, ExpectationError, ExpressionError
from datazone_dagster.frame.predicates import Predicates, RowNumbers, check_predicates
from datazone_dagster.items.keys import shown_key
from datazone_dagster.model.column_names import HIDDEN, KEY, RESERVED_PREFIX, VERSION
from datazone_dagster.model.missing_columns import missing_columns_text
from datazone_dagster.model.quarantine_policy import EXPECTED_OTHERWISE
from datazone_dagster.model.report import RuleCount
from datazone_dagster.rows.change_ids import are_among
from datazone_dagster.rows.versions import highest_versions
from datazone_dagster.text import shown

_SHOWN_COLUMNS = 12
_SHOWN_CHARS = 40


def check_expectations(datasets: Iterable[Dataset]) -> None:
    """Check the conditions of datasets as far as that is possible without rows.

    Raises:
        DefinitionError: A condition is not SQL, or depends on more than one row.
    """
    for dataset in datasets:
        try:
            check_predicates(_where(dataset), _conditions(dataset.expect))
        except ExpressionError as error:
            raise DefinitionError(error.what, hint=error.hint) from error


def _where(dataset: Dataset) -> str:
    return f"Dataset({dataset.id!r}): expectation "


def _conditions(rules: Iterable[tuple[str, Expect]]) -> dict[str, str]:
    return {name: rule.predicate for name, rule in rules}


class Expectations:
    """Expectations of the datasets of one run.

    A change is written or quarantined as a unit, whatever rows the function made of it. Of the
    expectations that do not quarantine, only rows count that the chunk writes: neither those of
    deletes, nor those that a later change of the chunk replaces.

    In a redrive, an expectation that fails a run quarantines, so that it does not keep other
    records back. It still looks only at rows that are written: a record whose key has a newer
    version in the table passes, and changes nothing.

    Args:
        datasets: Datasets by output.
        tables: Their tables by output.
        memory_limit_bytes: DuckDB's memory limit.
        logger: Logger that is warned, once, of a condition on a column that there is not.
        show_rows: Whether errors show a row.
        is_redrive: Whether the rows are of quarantined records.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset],
        tables: Mapping[str, DatasetTable],
        memory_limit_bytes: int,
        logger: logging.Logger,
        *,
        show_rows: bool,
        is_redrive: bool = False,
    ) -> None:
        databases = Databases()
        self._rules = {
            output: _Rules(
                dataset,
                tables[output],
                memory_limit_bytes,
                databases,
                logger,
                show_rows,
                is_redrive,
            )
            for output, dataset in datasets.items()
            if dataset.expect
        }

    def refuses_some(self, output: str, changes: pa.Table, rows: pa.Table) -> bool:
        """Return whether rows of an output have to be quarantined, so that all columns are needed.

        Raises:
            ExpressionError: A condition names a hidden column that there is not, or is no
                condition.
        """
        rules = self._rules.get(output)
        return rules is not None and bool(rules.refused(changes, rows))

    def accepted(self, result: FunctionResult, output: str) -> FunctionResult:
        """Return the result without the changes that have to be quarantined.

        Raises:
            ExpressionError: As for `refuses_some`.
        """
        rules = self._rules.get(output)
        return result if rules is None else rules.accepted(result, output)

    def counted(self, accepted: Mapping[str, FunctionResult]) -> dict[str, tuple[RuleCount, ...]]:
        """Return the counts of each expectation, by output.

        Raises:
            ExpectationError: Rows violate one that fails the run.
            ExpressionError: As for `refuses_some`.
        """
        return {
            output: self._rules[output].counted(result.changes, result.rows[output])
            if output in self._rules
            else ()
            for output, result in accepted.items()
        }


class _Rules:
    """Expectations of one dataset."""

    def __init__(
        self,
        dataset: Dataset,
        table: DatasetTable,
        memory_limit_bytes: int,
        databases: Databases,
        logger: logging.Logger,
        show_rows: bool,
        is_redrive: bool,
    ) -> None:
        self._dataset = dataset
        self._table = table
        self._logger = logger
        self._show_rows = show_rows
        self._told: set[str] = set()
        self._refused_counts: tuple[RuleCount, ...] = ()
        kinds = ("quarantine", "fail") if is_redrive else ("quarantine",)
        quarantines = [one for one in dataset.expect if one[1].on_violation in kinds]
        others = [one for one in dataset.expect if one[1].on_violation not in kinds]
        self._quarantining = frozenset(name for name, _ in quarantines)
        # Only a redrive has rules that fail a run among those that quarantine.
        self._of_written = frozenset(
            name for name, rule in quarantines if rule.on_violation == "fail"
        )
        self._quarantines, self._others = (
            Predicates(_where(dataset), _conditions(rules), memory_limit_bytes, databases)
            for rules in (quarantines, others)
        )

    def refused(self, changes: pa.Table, rows: pa.Table) -> dict[str, RowNumbers]:
        """Return the numbers of the rows to quarantine, by rule."""
        found = self._quarantines.violations(*self._complete(rows))
        found = _of_rows(found, pc.invert(rows_of_deletes(changes, rows))) if found else {}
        if self._dataset.mode == "merge" and not self._of_written.isdisjoint(found):
            return self._without_superseded(found, changes, rows)
        return found

    def _without_superseded(
        self, found: Mapping[str, RowNumbers], changes: pa.Table, rows: pa.Table
    ) -> dict[str, RowNumbers]:
        """Return the rows to quarantine without those of older versions that nobody would see.

        A row is superseded by the table, or by a change of its key that is not refused itself.
        """
        ids = rows.select([KEY, VERSION])
        refused = ids.take(np.unique(np.concatenate(list(found.values()))))
        keys = pa.chunked_array([refused[KEY].unique()])
        others = changes.select([KEY, VERSION]).filter(pc.is_in(changes[KEY], value_set=keys))
        taken = highest_versions([others.filter(pc.invert(are_among(others, refused)))])
        newest = self._table.newest_versions(keys)
        left = dict(found)
        for name in self._of_written & found.keys():
            these = ids.take(found[name]).to_pylist()
            seen = [
                all(one[VERSION] >= known.get(one[KEY], "") for known in (taken, newest))
                for one in these
            ]
            left[name] = found[name][np.array(seen, bool)]
        return {name: numbers for name, numbers in left.items() if len(numbers)}

    def accepted(self, result: FunctionResult, output: str) -> FunctionResult:
        """Return the result without the changes to quarantine; count them."""
        changes, rows = result.changes, result.rows[output]
        found = self.refused(changes, rows)
        self._refused_counts = tuple(
            _count(name, rows, found.get(name))
            for name, _ in self._dataset.expect
            if name in self._quarantining
        )
        if not found:
            return result
        reasons: list[str | None] = [None] * len(rows)
        for name, numbers in reversed(found.items()):
            for number in numbers:
                reasons[number] = f"{name}, {shown(dict(self._dataset.expect)[name].predicate)}"
        changes, rows, refused = without_refused(
            changes, rows, pa.chunked_array([pa.array(reasons, pa.string())]), EXPECTED_OTHERWISE
        )
        return FunctionResult(changes, {output: rows}, pa.concat_tables([result.refused, refused]))

    def counted(self, changes: pa.Table, rows: pa.Table) -> tuple[RuleCount, ...]:
        """Return the counts of all rules for the rows that are written."""
        found = self._others.violations(*self._complete(rows))
        if found:
            found = _of_rows(found, self._are_written(changes, rows))
        failing = {
            name: numbers
            for name, numbers in found.items()
            if dict(self._dataset.expect)[name].on_violation == "fail"
        }
        if failing:
            raise self._error(failing, rows)
        counts = {one.rule: one for one in self._refused_counts}
        self._refused_counts = ()
        return tuple(
            self._with_missing(counts.get(name) or _count(name, rows, found.get(name)), rows)
            for name, _ in self._dataset.expect
        )

    def _missing(self, rule: str) -> tuple[str, ...]:
        """Return the columns that a condition names and the last rows did not have."""
        return self._quarantines.absent.get(rule) or self._others.absent.get(rule) or ()

    def _missing_text(self, rule: str, rows: pa.Table) -> str:
        return missing_columns_text(self._missing(rule), self._available(rows))

    def _available(self, rows: pa.Table) -> list[str]:
        return [one for one in self._complete(rows)[0].column_names if one not in HIDDEN]

    def _with_missing(self, count: RuleCount, rows: pa.Table) -> RuleCount:
        """Return the count with the columns that are missing; warn once of each condition."""
        missing = self._missing(count.rule)
        if not missing:
            return count
        if count.rule not in self._told:
            self._told.add(count.rule)
            self._logger.warning(
                "%s%r: %s",
                _where(self._dataset),
                count.rule,
                self._missing_text(count.rule, rows),
            )
        return replace(count, missing=missing, columns=tuple(self._available(rows)))

    def _are_written(self, changes: pa.Table, rows: pa.Table) -> pa.ChunkedArray:
        written = pc.invert(rows_of_deletes(changes, rows))
        if self._dataset.mode != "merge":
            return written
        return pc.and_(
            written, are_among(rows, only_latest(changes, changes[KEY], changes[VERSION]))
        )

    def _complete(self, rows: pa.Table) -> tuple[pa.Table, pa.Schema]:
        """Return the rows with the table's columns that they lack, as nulls, and its schema."""
        known = self._table.columns_with(rows.schema)
        for field in known:
            if field.name not in rows.column_names and not field.name.startswith(RESERVED_PREFIX):
                rows = rows.append_column(field.name, pa.nulls(len(rows), field.type))
        return rows, known

    def _error(self, failing: Mapping[str, RowNumbers], rows: pa.Table) -> ExpectationError:
        name, numbers = next(iter(failing.items()))
        predicate = dict(self._dataset.expect)[name].predicate
        others = "" if len(failing) == 1 else f" So do {', '.join(map(repr, list(failing)[1:]))}."
        first = rows.slice(int(numbers[0]), 1)
        columns = [one for one in rows.column_names if one not in HIDDEN][:_SHOWN_COLUMNS]
        row = first.select(columns).to_pylist()[0]
        sample = ", ".join(
            f"{shown(column, _SHOWN_CHARS)} = {shown(value, _SHOWN_CHARS)}"
            for column, value in row.items()
        )
        key = shown_key(first[KEY][0].as_py())
        missing = f" {self._missing_text(name, rows)}" if self._missing(name) else ""
        return ExpectationError(
            f"Dataset {self._dataset.id!r}: {len(numbers):,} of {len(rows):,} rows violate the "
            f"expectation {name!r} ({shown(predicate)}). The first has the key {key}"
            f"{f': {sample}' if self._show_rows else ''}.{others}{missing}",
            safe="Nothing of this chunk was applied; the change log keeps it and the next run "
            "tries again.",
            hint="Correct the items, the function or the expectation. Expect(..., "
            "on_violation='quarantine') writes the other rows, 'warn' writes all of them.",
            dataset_id=self._dataset.id,
            violations={rule: len(found) for rule, found in failing.items()},
            rows=len(rows),
        )


def _of_rows(found: Mapping[str, RowNumbers], counts: pa.ChunkedArray) -> dict[str, RowNumbers]:
    """Return the row numbers that count, by rule, where there are some."""
    mask = counts.to_numpy()
    these = {name: numbers[mask[numbers]] for name, numbers in found.items()}
    return {name: numbers for name, numbers in these.items() if len(numbers)}


def _count(name: str, rows: pa.Table, numbers: RowNumbers | None) -> RuleCount:
    if numbers is None:
        return RuleCount(name, len(rows))
    return RuleCount(name, len(rows), len(numbers), shown(rows[KEY][int(numbers[0])].as_py()))
