"""A stream and a dataset that a function makes from it, to be compared with plain Python."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.stored_state import stored_state
from datazone_dagster.delta.table import opened
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.model.version import SEQUENCE_DIGITS
from datazone_dagster.pipeline import (
    ApplySettings,
    apply_transform,
    drain_once,
    read_dataset,
    rebuild_dataset,
    redrive_dataset,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.truth.reference import (
    Change,
    Expected,
    Item,
    RowsOf,
    appended,
    in_text,
    intervals,
    marked,
    merged,
    shown,
)
from tests.types.table_items import item_of

SOURCE = DynamoDBSource("orders", start="trim_horizon")

Reference = Callable[[Sequence[Change], RowsOf], list[Expected]]
MODES: Mapping[str, tuple[Mapping[str, Any], Reference]] = {
    "merge": ({}, merged),
    "vectors": ({"deletion_vectors": True}, merged),
    "soft": ({"deletes": "soft"}, marked),
    "append": ({"mode": "append"}, appended),
    "history": ({"mode": "history"}, intervals),
}


class World:
    """A stream, and a dataset of a mode that the current function makes from it.

    Args:
        root: Folder of the lakehouse.
        mode: One of `MODES`.
        function: Function of the transform; a test may exchange it.
        dataset: More settings of the dataset; a test may exchange them.
        flow: More settings of the transform.
        source: Source of the transform.
        chunk_bytes: Size of a chunk; 0 leaves it to the run.
    """

    def __init__(
        self,
        root: Path,
        mode: str,
        function: Callable[[Frame], object],
        *,
        dataset: Mapping[str, Any] = {},
        flow: Mapping[str, Any] = {},
        source: DynamoDBSource = SOURCE,
        chunk_bytes: int = 0,
    ) -> None:
        self.layout = Layout(str(root))
        self.clock = FixedClock(datetime(2024, 1, 1, tzinfo=timezone.utc))
        self.stream = ScriptedStream("orders", clock=self.clock, shards=2)
        self.client: StreamClient = self.stream
        self.function = function
        of_mode, self.reference = MODES[mode]
        self.dataset: Mapping[str, Any] = {**of_mode, **dataset}
        self.source = source
        self.settings = ApplySettings(chunk_bytes=chunk_bytes or None, linger_seconds=0)
        self.flow_settings = flow

    @property
    def flow(self) -> Transform:
        """The transform with the current function."""

        def function(changes: Frame) -> object:
            return self.function(changes)

        return transform(
            name="flow",
            input_mapping={"changes": Input(Stream(source=self.source))},
            output_mapping={"d": Output(Dataset("d", **self.dataset))},
            **self.flow_settings,
        )(function)

    def write(self, operations: Iterable[tuple[str, Item | str]]) -> None:
        """Put and delete items, and drain their changes."""
        for key, written in operations:
            if isinstance(written, str):
                self.stream.delete({"id": {"S": key}}, ttl=written == "expire")
            else:
                self.stream.put({"id": {"S": key}, **written})
            self.clock.advance(timedelta(seconds=len(key)))
        self.drain()

    def drain(self) -> None:
        while not drain_once(self.source, self.client, self.layout, clock=self.clock).caught_up:
            pass

    def apply(self) -> None:
        apply_transform(self.flow, self.layout, settings=self.settings, clock=self.clock)

    def redrive(self) -> int:
        """Redrive the quarantine; return the number of records that wait."""
        return redrive_dataset(
            self.flow, "d", self.layout, settings=self.settings, clock=self.clock
        ).waiting

    def rebuild(self) -> None:
        rebuild_dataset(self.flow, "d", self.layout, settings=self.settings, clock=self.clock)

    def changes(self) -> list[Change]:
        """Return the changes of the stream, oldest first."""
        return [change_of(one) for one in self.stream.changes]

    def check(
        self,
        expected: Sequence[Expected],
        *,
        items: bool = False,
        tie_digits: int = 0,
        form: Callable[[Any], Any] = lambda found: found,
    ) -> None:
        """Compare the dataset with rows; a column that a row lacks is null in it.

        Args:
            expected: The rows that there have to be.
            items: Whether the rows are those of `items()`, whose values are compared as texts.
            tie_digits: Digits at the end of a version that are no part of a change's number.
            form: Form in which values of the dataset are compared.
        """
        of_mode = {name for one in expected for name in one.of_mode}
        columns = set() if items else {name for one in expected for name in one.values}
        wanted = [
            {"#": one.number, "of": one.of_mode, **dict.fromkeys(columns), **one.values}
            for one in expected
        ]
        table = opened(self.layout.dataset("d"), {}, KIND)
        assert table is not None
        mapping = stored_state(table.at, "orders").attributes
        found = []
        for row in read_dataset(self.layout, "d").to_pylist():
            values: dict[str, Any]
            if items:
                values = in_text(item_of(row, mapping))
            else:
                values = {name: row[name] for name in row if not name.startswith("_dz_")}
                values = {name: form(one) for name, one in values.items() if one is not None}
                values = {**dict.fromkeys(columns), **values}
            number = int(row["_dz_version"][-SEQUENCE_DIGITS:]) // 10**tie_digits
            found.append({"#": number, "of": {name: row[name] for name in of_mode}, **values})
        lacks, has = Counter(shown(wanted)), Counter(shown(found))
        assert lacks == has, f"The dataset lacks {lacks - has}, and has {has - lacks}."


def change_of(record: ChangeRecord) -> Change:
    """Return a record of a scripted stream as the reference takes it."""
    return Change(
        record.sequence_number,
        json.loads(record.keys)["id"]["S"],
        json.loads(record.new_image or "null"),
        json.loads(record.old_image or "null"),
        datetime.fromtimestamp(record.created_at, timezone.utc),
        record.user_type == "Service",
    )
