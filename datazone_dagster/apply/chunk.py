"""A chunk of the change log: its schema, the facts about it, and what the function made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from datazone_dagster.apply.bad_records import refused_rows
from datazone_dagster.changelog.chunks import CHUNK_COLUMNS
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION, Log
from datazone_dagster.model.report import PathMismatch

CHANGES_SCHEMA = pa.schema(
    [
        *(SCHEMA.field(name) for name in CHUNK_COLUMNS),
        pa.field(KEY, pa.string()),
        SCHEMA.field(Log.VERSION).with_name(VERSION),
        SCHEMA.field(Log.EVENT_TIME).with_name(EVENT_TIME),
    ]
)
"""Schema behind a function's frame: a chunk with its hidden columns."""

NOTHING_REFUSED = refused_rows(CHANGES_SCHEMA.empty_table(), {})


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """Range and contents of a chunk, superseded records included.

    `decoded_bytes` is the size of a chunk: the memory for all columns that may be read.
    """

    first_batch: int
    last_batch: int
    records: int
    record_bytes: int
    decoded_bytes: int
    event_time_min: datetime | None
    event_time_max: datetime | None


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What the frames of a chunk found while they read it, for the report.

    The fields are those of `ApplyReport`, for one chunk; `unfound_paths` for all chunks so far.
    """

    sibling_values: Mapping[str, int] = field(default_factory=dict)
    mismatches: tuple[PathMismatch, ...] = ()
    unfound_paths: tuple[tuple[str, int], ...] = ()
    lacks_old_images: bool = False
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class FunctionResult:
    """Result of a function for a chunk.

    Args:
        changes: The changes that the function accepted.
        rows: Rows that the function returned, by output.
        refused: The other changes, with the change log's columns and a `reason`.
    """

    changes: pa.Table
    rows: Mapping[str, pa.Table]
    refused: pa.Table


@dataclass(frozen=True, slots=True)
class Prepared:
    """A chunk that is ready to be committed to its datasets.

    Args:
        facts: Range and contents of the chunk.
        result: Result of the function for the chunk.
        reads_later: Whether images were read some at a time, so that memory held rows only. The
            changes have only the columns that a merge needs.
        view_types: View types of the stream that the changes came from; empty if not asked for.
        is_clean: Whether no change can be refused any more, so that the columns that a merge needs
            suffice. Not set where these are the latest changes only.
    """

    facts: ChunkFacts
    result: FunctionResult
    reads_later: bool = False
    is_clean: bool = False
    view_types: frozenset[str] = frozenset()

    @property
    def superseded(self) -> float:
        """Share of the changes that a later one of their key superseded before they were parsed."""
        if not self.reads_later or self.is_clean or not self.facts.records:
            return 0.0
        return 1 - len(self.result.changes) / self.facts.records
