"""A world whose table is exported: real files and manifests of what was written."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from datazone_dagster.local.export_files import ExportFolder, shown_time
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import EXPORT_SETTLE
from datazone_dagster.pipeline import open_exports, snapshot_status
from datazone_dagster.testing.scripted_record import table_arn
from tests.snapshot.flow import SOURCE, World, item, key, small_flow


class Write(NamedTuple):
    at: datetime
    name: str
    old: dict[str, Any] | None
    new: dict[str, Any] | None


class ExportingWorld(World):
    """A table that remembers every write, and exports of it.

    An export misses every write of the last five minutes before it was made.
    """

    def __init__(self, root: Path, flow: Any = small_flow) -> None:
        super().__init__(Layout(str(root / "lake")), flow)
        self.bucket = root / "bucket"
        self.writes: list[Write] = []
        self._made = 0

    def put(self, number: int, total: int, *, unseen: bool = False) -> None:
        name = f"k{number}"
        old = self._items_now().get(name)
        if unseen:
            self.table.put_unseen(item(number, total))
        else:
            self.stream.put(item(number, total))
        self.writes.append(Write(self.clock.now, name, old, item(number, total)))

    def delete(self, number: int) -> None:
        name = f"k{number}"
        old = self._items_now().get(name)
        if old is not None:
            self.stream.delete(key(number))
            self.writes.append(Write(self.clock.now, name, old, None))

    def lose(self) -> None:
        """Trim what was not read."""
        self.stream.trim()
        self.clock.advance(timedelta(hours=25))

    def status(self) -> SnapshotReport:
        status = snapshot_status(SOURCE.name, self.layout)
        assert status is not None
        return status

    def full(self, at: datetime | None = None, *, files: int = 2) -> str:
        """Export the table; return the location."""
        at = at or self.clock.now
        state: dict[str, dict[str, Any]] = {}
        for write in self._visible(at):
            if write.new is None:
                state.pop(write.name, None)
            else:
                state[write.name] = write.new
        lines = [msgspec.json.encode({"Item": one}) for one in state.values()]
        return self._write(lines, files, {"exportTime": at})

    def windows(self, *windows: tuple[datetime, datetime]) -> list[str]:
        """Export the net changes of each window; return the locations."""
        return [self._window(start, end) for start, end in windows]

    def _window(self, start: datetime, end: datetime) -> str:
        written: dict[str, list[Write]] = {}
        for write in self._visible(end):
            if start <= write.at < end:
                written.setdefault(write.name, []).append(write)
        lines = []
        for name, writes in written.items():
            old, new = writes[0].old, writes[-1].new
            if old is None and new is None:
                continue  # inserted and deleted: the service writes nothing
            micros = str(int(writes[-1].at.timestamp() * 1_000_000))
            line: dict[str, Any] = {
                "Metadata": {"WriteTimestampMicros": {"N": micros}},
                "Keys": {"id": {"S": name}},
            }
            lines.append(msgspec.json.encode(line | ({"NewImage": new} if new else {})))
        times = {"exportFromTime": start, "exportToTime": end}
        return self._write(lines, 2, times)

    def read(self, uris: Sequence[str], **options: Any) -> SnapshotReport:
        """Take the snapshot as far as it goes, with these exports."""
        with open_exports(uris, self.layout, self.table) as exports:
            return self.snapshot(exports=exports, **options)

    def finish(self, uris: Sequence[str]) -> SnapshotReport:
        """Take the snapshot to its end."""
        for _ in range(20):
            report = self.read(uris)
            if report.is_over:
                self.drain()
                self.apply()
                return report
            self.wait()
            self.apply()
        raise AssertionError(f"the snapshot never ends: {report}")

    def _items_now(self) -> dict[str, dict[str, Any]]:
        return copy.deepcopy({one["id"]["S"]: dict(one) for one in self.stream.items.values()})

    def _visible(self, at: datetime) -> list[Write]:
        newest = min(at, self.clock.now - EXPORT_SETTLE)
        return [write for write in self.writes if write.at <= newest]

    def _write(self, lines: list[bytes], files: int, times: dict[str, datetime]) -> str:
        self._made += 1
        export_id = f"{self._made:014d}-abcdef01"
        incremental = "exportFromTime" in times
        folder = ExportFolder(self.bucket, "", export_id, incremental=incremental)
        folder.start()
        parts = [folder.add(number, lines[number::files]) for number in range(files)]
        kind: dict[str, object] = {}
        if incremental:
            kind = {"outputView": "NEW_IMAGE", "exportType": "INCREMENTAL_EXPORT"}
        folder.finish(
            parts,
            {
                "exportArn": f"{table_arn('orders')}/export/{export_id}",
                "tableArn": table_arn("orders"),
                "tableId": self.table.table_id,
                **{name: shown_time(time.timestamp()) for name, time in times.items()},
                "manifestFilesS3Key": folder.files_key,
                "itemCount": len(lines),
                "outputFormat": "DYNAMODB_JSON",
                **kind,
            },
        )
        return str(self.bucket / "AWSDynamoDB" / export_id)
