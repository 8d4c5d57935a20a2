"""A lakehouse that has one key in every place that a key can be in; a search of its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.errors import DatazoneError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    ApplySettings,
    Erasure,
    apply_transform,
    drain_once,
    open_erasure,
    read_dataset,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream

SOURCE = DynamoDBSource("orders")
ERASED = "zq-erased-" + "x" * 30
"""Longer than a bound in a Delta log, so that bounds hold a piece of it."""
TRACE = "zq-erased-xxxx"
"""Start of the key, and of every value of its item."""
EVERY_BATCH = ApplySettings(chunk_bytes=1)

DATASETS = (
    Dataset("merged"),
    Dataset("hidden", deletion_vectors=True),
    Dataset("parted", partition_by=("id",)),
    Dataset("soft", deletes="soft"),
    Dataset("events", mode="append"),
    Dataset("states", mode="history"),
)


def flow_of(*datasets: Dataset, function: Callable[[Any], object] | None = None) -> list[Transform]:
    return [
        transform(
            name=f"flow_{dataset.id}",
            input_mapping={"changes": Input(Stream(source=SOURCE))},
            output_mapping={"out": Output(dataset)},
            on_error="quarantine",
        )(function or _rows)
        for dataset in datasets
    ]


def _rows(changes: Any) -> object:
    for row in changes.items().arrow().to_pylist():
        if row.get("n") is not None and row["n"] < 0:
            raise ValueError(f"{row['id']} is below 0")
    return changes.select(
        "dynamodb.Keys.id.S as id",
        "cast(dynamodb.NewImage.n.N as bigint) as n",
        "dynamodb.NewImage.note.S as note",
    )


class Lake:
    def __init__(self, root: Path, *datasets: Dataset) -> None:
        self.root = root / "lake"
        self.layout = Layout(str(self.root))
        self.clock = FixedClock()
        self.stream = ScriptedStream("orders", clock=self.clock)
        self.flows = flow_of(*(datasets or DATASETS))

    def put(self, key: str, n: int) -> None:
        note = {"S": f"{TRACE}-note" if key.startswith("zq-erased") else f"{key}-note"}
        self.stream.put({"id": {"S": key}, "n": {"N": str(n)}, "note": note})

    def delete(self, key: str) -> None:
        self.stream.delete({"id": {"S": key}})

    def drain(self) -> None:
        while not drain_once(SOURCE, self.stream, self.layout, clock=self.clock).caught_up:
            pass

    def apply(self) -> None:
        for flow in self.flows:
            apply_transform(flow, self.layout, settings=EVERY_BATCH, clock=self.clock)

    def step(self) -> None:
        self.drain()
        self.apply()

    def fill(self, key: str = ERASED) -> None:
        """Give the key a life: made, changed, deleted, made again, refused and malformed."""
        for n in range(3):
            for number in range(5):
                self.put(f"a{number}", 10 * n + number)
                self.put(f"zz{number}", 10 * n + number)
            self.put(key, n)
            self.step()
        self.delete(key)
        self.delete("a1")
        self.step()
        self.put(key, 5)
        self.put(key, -5)
        self.put("a2", -6)
        self.stream.malformed(json.dumps({"dynamodb": {"Keys": {"id": {"S": key}}}}).encode())
        self.stream.malformed(b'{"dynamodb": {"Keys": {"id": {"S": "a3"}}}}')
        self.step()
        self.delete(key)  # the way it has to be: the item goes first
        self.step()

    def erasure(self, *keys: str) -> Erasure:
        return open_erasure(SOURCE, keys or (f"id={ERASED}",), self.layout, clock=self.clock)

    def rows(self, dataset: str, but: str = ERASED) -> list[Any]:
        """All rows of a dataset except those of one key."""
        rows = read_dataset(self.layout, dataset).to_pylist()
        return sorted((row for row in rows if row["id"] != but), key=repr)

    def everything(self) -> dict[str, list[Any]]:
        return {flow_id: self.rows(flow_id) for flow_id in self.ids}

    @property
    def ids(self) -> list[str]:
        return [dataset.id for flow in self.flows for dataset in flow.outputs.values()]

    def traces(self, text: str = TRACE) -> list[str]:
        """Return where the text is: names, bytes, and rows and statistics of Parquet files."""
        return sorted(traces_in(self.root, text))


def traces_in(root: Path, text: str) -> Iterator[str]:
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if text in name:
            yield f"name of {name}"
        if not path.is_file():
            continue
        if text.encode() in path.read_bytes():
            yield f"bytes of {name}"
        if path.suffix == ".parquet":
            parquet = pq.ParquetFile(path)
            if text in repr(parquet.read().to_pylist()):
                yield f"rows of {name}"
            groups = map(parquet.metadata.row_group, range(parquet.num_row_groups))
            if any(text in repr(group.to_dict()) for group in groups):
                yield f"statistics of {name}"


def attempted(work: Any) -> None:
    """Do work of which an error of ours is an allowed end."""
    try:
        work()
    except DatazoneError:
        return
