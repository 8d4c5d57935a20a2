"""What a run has applied to a dataset, and the state in which it left it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.dagster_glue.checks.dataset_checks import State
from datazone_dagster.model.contract import OPEN, Contract
from datazone_dagster.model.report import ApplyReport
from datazone_dagster.observe.expectation_status import ExpectationStatus
from datazone_dagster.observe.schema_change import SchemaStatus


@dataclass(frozen=True, slots=True)
class Applied:
    """Report of an apply for one dataset, and the state of the dataset after it.

    `memory_note` is what a person should know of the memory budget of the run.
    """

    report: ApplyReport
    state: State
    schema: SchemaStatus
    at: datetime
    contract: Contract = OPEN
    expectations: tuple[ExpectationStatus, ...] = ()
    memory_note: str = ""
