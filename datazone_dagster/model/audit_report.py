"""Plan, settings and report of an audit: a scan of the table compared with its datasets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.snapshot_report import PRICE_MILLION_UNITS
from datazone_dagster.text import shown

MISSING, EXTRA, STALE = "missing", "extra", "stale"
KINDS = (MISSING, EXTRA, STALE)
"""Differences: rows of an item are absent, rows have no item, rows are not those of their item."""


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """Bounds of one audit.

    Args:
        sample: Share of the table to scan, above 0 and up to 1. Below 1, whole segments of the
            scan are drawn, and rows without an item are looked for among the same share of keys.
        seed: Seed of the draw; the same seed draws the same segments of a table of the same size.
        workers: Number of pages that are read at once.
        settle_seconds: Time after a look at the table that the drain must have passed before a
            difference counts: longer than a change takes to appear in the stream.
        wait_seconds: Longest wait for the drain and the runs, in all.
        rounds: Number of looks at a key that keeps changing.
        examples: Number of keys that are listed of each kind of difference.
        most_looked_at: Number of differing keys of a dataset that are looked at again; whether
            further ones are differences stays undecided.
        memory_limit_bytes: Memory limit of DuckDB; more spills to disk.

    Raises:
        DefinitionError: A value is out of its range.
    """

    sample: float = 1.0
    seed: int = 0
    workers: int = 4
    settle_seconds: float = 10.0
    wait_seconds: float = 900.0
    rounds: int = 10
    examples: int = 5
    most_looked_at: int = 100_000
    memory_limit_bytes: int = 512 << 20

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.sample <= 1:
            raise DefinitionError(
                f"AuditSettings(sample={self.sample!r}) is out of range.",
                hint="sample is a share above 0 and up to 1, such as 0.05.",
            )
        if not 1 <= self.workers <= 256:
            raise DefinitionError(
                f"AuditSettings(workers={self.workers!r}) is out of range.",
                hint="workers is a number from 1 to 256.",
            )


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """What an audit is going to read.

    Args:
        source: Name of the source.
        datasets: Datasets that are audited.
        skipped: Datasets that can't be audited, each with the reason.
        item_count: Number of items of the table, as the service last counted.
        table_bytes: Their size, in bytes.
        sample: Share of the table that is scanned.
        segments: Number of segments that are scanned.
        segments_total: Number of segments of the table.
        units_per_second: Limit of the scan, in read units per second.
        read_units: Estimate of the read units: the scan, and the keys asked for one by one.
    """

    source: str
    datasets: tuple[str, ...]
    skipped: Mapping[str, str]
    item_count: int
    table_bytes: int
    sample: float
    segments: int
    segments_total: int
    units_per_second: float
    read_units: float

    @property
    def price(self) -> float:
        """Price on an on-demand table in us-east-1, in US dollars."""
        return self.read_units * PRICE_MILLION_UNITS / 1e6

    @property
    def seconds(self) -> float:
        """Least time of the scan, in seconds."""
        return self.read_units / self.units_per_second

    def to_json(self) -> dict[str, Any]:
        """Return the plan as values of JSON."""
        return {**asdict(self), "price": self.price, "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class DatasetAudit:
    """Result for one dataset.

    Args:
        dataset_id: The dataset.
        items: Number of items that were scanned and compared.
        rows: Number of rows of the dataset that were compared.
        looked_again: Number of keys that differed at first and were looked at again.
        changed: Number of those that had only changed meanwhile.
        differences: Number of differing keys, by kind.
        undecided: Number of keys that could not be decided, by the reason.
        refused: Number of keys whose item the function or the contract refuses: the quarantine
            has them, and the dataset their older row or none.
        examples: Some keys of each kind, in their canonical form.
        not_compared: Columns that were not compared, each with the reason.
    """

    dataset_id: str
    items: int = 0
    rows: int = 0
    looked_again: int = 0
    changed: int = 0
    differences: Mapping[str, int] = field(default_factory=dict)
    undecided: Mapping[str, int] = field(default_factory=dict)
    refused: int = 0
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    not_compared: Mapping[str, str] = field(default_factory=dict)

    def differing(self, kind: str, key: str, most: int) -> DatasetAudit:
        """Return the result with one more difference; its key is an example if there is room."""
        count = {**self.differences, kind: self.differences.get(kind, 0) + 1}
        known = self.examples.get(kind, ())
        examples = self.examples
        if len(known) < most:
            examples = {**examples, kind: (*known, key)}
        return replace(self, differences=count, examples=examples)

    def undecided_for(self, reason: str, keys: int) -> DatasetAudit:
        """Return the result with keys that can't be decided."""
        if not keys:
            return self
        return replace(
            self, undecided={**self.undecided, reason: self.undecided.get(reason, 0) + keys}
        )

    @property
    def has_differences(self) -> bool:
        """Whether a row is missing, extra or stale."""
        return any(self.differences.values())

    def to_json(self) -> dict[str, Any]:
        """Return the result as values of JSON; keys are shortened and escaped."""
        examples = {kind: [shown(key) for key in keys] for kind, keys in self.examples.items()}
        counts = {kind: self.differences.get(kind, 0) for kind in KINDS}
        return {**asdict(self), "differences": counts, "examples": examples}


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Result of an audit.

    Args:
        plan: What was going to be read.
        datasets: Result for each audited dataset.
        read_units: Read units that the audit has used.
        scanned_at: Time of the last page of the scan, by the clock of the service; None if
            nothing was scanned.
        proven_at: Time as of which a clean dataset shows the scanned items, at least: the first
            page of the scan.
    """

    plan: AuditPlan
    datasets: tuple[DatasetAudit, ...]
    read_units: float
    scanned_at: datetime | None
    proven_at: datetime | None

    @property
    def has_differences(self) -> bool:
        """Whether a dataset differs from the table."""
        return any(one.has_differences for one in self.datasets)

    @property
    def is_undecided(self) -> bool:
        """Whether a key could not be decided, or no dataset was audited."""
        return not self.datasets or any(one.undecided for one in self.datasets)

    @property
    def is_clean(self) -> bool:
        """Whether everything was decided and nothing differs."""
        return not self.has_differences and not self.is_undecided

    @property
    def result(self) -> str:
        """The result in one word."""
        if self.has_differences:
            return "differences"
        return "undecided" if self.is_undecided else "clean"

    def to_json(self) -> dict[str, Any]:
        """Return the report as values of JSON."""
        return {
            "result": self.result,
            "plan": self.plan.to_json(),
            "datasets": [one.to_json() for one in self.datasets],
            "read_units": self.read_units,
            "scanned_at": None if self.scanned_at is None else self.scanned_at.isoformat(),
            "proven_at": None if self.proven_at is None else self.proven_at.isoformat(),
        }
