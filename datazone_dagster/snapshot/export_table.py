"""Exports as a table to scan: each data file is a segment, and its lines are the pages.

So the items of an export land through the machine of a scan: with their resume position in the
same commit, next to the drain. A file is checked before its first row is returned.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

import msgspec

from datazone_dagster.errors import ExportError
from datazone_dagster.model.snapshot_state import SnapshotState
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.model.table_scan import ScannedItem, ScanPage, TableClient, TableDescription
from datazone_dagster.snapshot.export_files import ExportReader
from datazone_dagster.snapshot.export_fit import require_fit
from datazone_dagster.snapshot.export_manifest import ExportFile, ExportManifest
from datazone_dagster.source.item_wire import KeySlicer
from datazone_dagster.text import shown

PAGE_BYTES = 4 << 20
"""Size of a page, about."""


class _File(NamedTuple):
    reader: ExportReader
    manifest: ExportManifest
    file: ExportFile
    order: int


class _Row(NamedTuple):
    keys: str
    image: str | None
    size_bytes: int


class _Open(NamedTuple):
    line: int
    rows: Generator[_Row]


class ExportedTable:
    """A `TableClient` whose pages come from exports, and its single items from the table itself.

    Use it in a `with` block, which closes the files that are still open.

    Args:
        table: Client of the table.
        readers: One full export, or incremental exports in the order of their windows.

    Raises:
        ExportError: An export is not finished, damaged, incomplete or can't be read.
    """

    def __init__(self, table: TableClient, readers: Sequence[ExportReader]) -> None:
        self._table = table
        self._description = table.describe_table()
        self._slicer = KeySlicer(self._description.key_names)
        self.manifests = tuple(reader.manifest() for reader in readers)
        self._at = max(manifest.summary.to_time for manifest in self.manifests)
        self._files = [
            _File(reader, manifest, file, order)
            for order, (reader, manifest) in enumerate(
                zip(readers, self.manifests, strict=True), start=1
            )
            for file in manifest.files
        ]
        self._open: dict[int, _Open] = {}

    @property
    def arns(self) -> tuple[str, ...]:
        """ARNs of the exports, in order."""
        return tuple(manifest.summary.export_arn for manifest in self.manifests)

    @property
    def from_time(self) -> datetime | None:
        """Start of the first window; None for a full export."""
        return self.manifests[0].summary.from_time

    @property
    def segments(self) -> int:
        """Number of segments; an export without files has one, which is empty."""
        return max(1, len(self._files))

    def require_fit(self, state: SnapshotState) -> None:
        """Check that these exports can be the scan of a snapshot.

        Raises:
            ExportError: They are of another table, too old, or leave a hole in the lost window, or
                the snapshot has begun to read others.
        """
        found = self._description
        identity = SourceIdentity(
            found.table_name, table_arn=found.table_arn or "", table_id=found.table_id or ""
        )
        require_fit([manifest.summary for manifest in self.manifests], state, identity)

    def describe_table(self) -> TableDescription:
        """See `TableClient`."""
        return self._description

    def get_items(self, keys: Sequence[str]) -> dict[str, str]:
        """See `TableClient`."""
        return self._table.get_items(keys)

    def scan_page(
        self,
        segment: int,
        segments: int,  # noqa: ARG002 - the protocol's argument
        start_key: str | None,
        *,
        consistent: bool,  # noqa: ARG002 - the protocol's argument
    ) -> ScanPage:
        """Return the next page of a file; `start_key` is the number of lines before it.

        Raises:
            ExportError: The file is missing or damaged, and none of its rows was returned; or a
                line can't be read.
        """
        if segment >= len(self._files):
            return ScanPage([], None, 0.0, self._at)
        line, rows = self._at_line(segment, int(start_key or 0))
        items: list[ScannedItem] = []
        absent: list[str] = []
        size_bytes = 0
        for row in rows:
            line += 1
            size_bytes += row.size_bytes
            if row.image is None:
                absent.append(row.keys)
            else:
                items.append(ScannedItem(row.keys, row.image, len(row.image.encode())))
            if size_bytes >= PAGE_BYTES:
                self._open[segment] = _Open(line, rows)
                return self._page(segment, items, absent, str(line))
        return self._page(segment, items, absent, None)

    def __enter__(self) -> ExportedTable:
        return self

    def __exit__(self, *_raised: object) -> None:
        for _, rows in self._open.values():
            rows.close()
        self._open.clear()

    def _page(
        self, segment: int, items: list[ScannedItem], absent: list[str], next_key: str | None
    ) -> ScanPage:
        # Windows show a key one after the other: the last one counts.
        order = 0 if self.from_time is None else self._files[segment].order
        return ScanPage(items, next_key, 0.0, self._at, absent, order)

    def _at_line(self, segment: int, line: int) -> _Open:
        """Return the rows of a file from a line on: a file that is open is read further."""
        known = self._open.pop(segment, None)
        if known is not None and known.line == line:
            return known
        if known is not None:
            known.rows.close()
        rows = self._rows(self._files[segment])
        for _ in range(line):
            with suppress(StopIteration):
                next(rows)
        return _Open(line, rows)

    def _rows(self, file: _File) -> Generator[_Row]:
        if file.manifest.summary.from_time is None:
            names = self._description.key_names
            for item in file.reader.items(file.manifest, file.file, names):
                yield _Row(item.keys, item.image, item.size_bytes)
        else:
            yield from self._changes(file)

    def _changes(self, file: _File) -> Iterator[_Row]:
        for change in file.reader.changes(file.manifest, file.file):
            try:
                keys = self._slicer.keys_of(msgspec.Raw(change.keys.encode()))
            except ValueError as error:
                raise ExportError(
                    f"File {shown(file.file.key)} of the {file.manifest.summary.name}: keys can't "
                    f"be read ({shown(error)}).",
                    safe="No row from there on landed.",
                    hint="Start a new export of the source's own table.",
                ) from None
            yield _Row(keys, change.new_image, change.size_bytes)
