"""Reading an export: manifests and data files, from any store that a lakehouse can be in.

A data file is read twice: first its bytes and lines are checked, then its rows are yielded. A file
of a remote store is copied to a temporary file meanwhile, so it is downloaded once.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import IO, Any, NamedTuple, TypeVar, cast

import msgspec

from datazone_dagster.delta import storage_error
from datazone_dagster.delta.store import TableStore
from datazone_dagster.errors import ExportError
from datazone_dagster.model.store_uri import check_uri
from datazone_dagster.model.table_scan import ScannedItem
from datazone_dagster.snapshot.export_manifest import (
    ROOT,
    ExportFile,
    ExportKind,
    ExportManifest,
    checked,
    parse_files,
    parse_summary,
    path_below,
    verify_checksum,
    verify_content,
)
from datazone_dagster.source.item_wire import KeySlicer
from datazone_dagster.text import shown

SUMMARY = "manifest-summary.json"
LINE_BYTES_MAX = 64 * 1024 * 1024
"""Limit of one line. An item has at most 400 KB; two images as JSON are a few times that size."""

_READ_BYTES = 1024 * 1024
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
_Row = TypeVar("_Row")


class ExportedChange(NamedTuple):
    """Net change of one key in the window of an incremental export, as raw DynamoDB JSON.

    Args:
        keys: Key attributes.
        new_image: The item at the end of the window; None if it was deleted.
        old_image: The item before the window; None if there was none, or without old images.
        written_at_micros: Time of the last write in the window, in microseconds since 1970. Not
            comparable with sequence numbers.
        size_bytes: Length of the line in bytes.
    """

    keys: str
    new_image: str | None
    old_image: str | None
    written_at_micros: int
    size_bytes: int


class _Number(msgspec.Struct):
    value: str = msgspec.field(name="N")


class _Metadata(msgspec.Struct, rename="pascal"):
    write_timestamp_micros: _Number


class _Change(msgspec.Struct, rename="pascal"):
    metadata: _Metadata
    keys: msgspec.Raw
    new_image: msgspec.Raw = msgspec.Raw()
    old_image: msgspec.Raw = msgspec.Raw()


class _Item(msgspec.Struct, rename="pascal"):
    item: msgspec.Raw


_decode_change = msgspec.json.Decoder(_Change).decode
_decode_item = msgspec.json.Decoder(_Item).decode


class ExportReader:
    """One finished export.

    Args:
        uri: Location of the folder `AWSDynamoDB/<export id>`, or of its `manifest-summary.json`:
            a directory or an object store URI.
        storage_options: Credentials and settings of the store; never printed.

    Raises:
        ExportError: The location is not that of an export.
        DefinitionError: The location has a user name or password, or is read differently by
            different libraries.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        check_uri(uri)
        self.uri = uri.removesuffix(SUMMARY).rstrip("/")
        base, root, export_id = self.uri.rpartition(ROOT)
        if not root or not export_id or "/" in export_id or (base and not base.endswith("/")):
            raise ExportError(
                f"{shown(uri)} is not the location of an export.",
                safe="Nothing was read.",
                hint="Give the folder AWSDynamoDB/<export id> of the export, with its bucket.",
            )
        self._own = f"{ROOT}{export_id}"
        self._store = TableStore(base or ".", storage_options or {})

    def manifest(self) -> ExportManifest:
        """Read and check the manifests; no data file is read.

        Raises:
            ExportError: The export is not finished, damaged, incomplete or can't be read.
        """
        body = self._required(f"{self._own}/{SUMMARY}")
        checksum = self._read(f"{self._own}/manifest-summary.checksum")
        unverified = [] if verify_checksum(SUMMARY, body, checksum, self.uri) else [SUMMARY]
        summary = parse_summary(body, self.uri)
        path = path_below(summary.files_key, self.uri)
        name = path.rpartition("/")[2]
        body = self._required(path)
        checksum = self._read(f"{path.removesuffix('.json')}.checksum")
        if not verify_checksum(name, body, checksum, self.uri):
            unverified.append(name)
        return checked(summary, parse_files(body, self.uri), self.uri, unverified)

    def items(
        self, manifest: ExportManifest, file: ExportFile, key_names: tuple[str, ...]
    ) -> Iterator[ScannedItem]:
        """Yield the items of one data file of a full export, once the whole file is checked.

        Args:
            manifest: Manifest of this export.
            file: One of its files.
            key_names: Names of the key attributes of the table, the partition key first.

        Raises:
            ExportError: The file is missing, damaged or not one of a full export.
        """
        slicer = KeySlicer(key_names)

        def item(line: bytes) -> ScannedItem:
            raw = _decode_item(line).item
            image = bytes(raw).decode()
            return ScannedItem(slicer.keys_of(raw), image, len(raw))

        return self._rows(manifest, file, ExportKind.FULL, item)

    def changes(self, manifest: ExportManifest, file: ExportFile) -> Iterator[ExportedChange]:
        """Yield the net changes of one data file of an incremental export, once it is checked.

        Args:
            manifest: Manifest of this export.
            file: One of its files.

        Raises:
            ExportError: The file is missing, damaged or not one of an incremental export.
        """
        return self._rows(manifest, file, ExportKind.INCREMENTAL, _change)

    def _rows(
        self,
        manifest: ExportManifest,
        file: ExportFile,
        kind: ExportKind,
        row: Callable[[bytes], _Row],
    ) -> Iterator[_Row]:
        if manifest.summary.kind is not kind:
            raise ExportError(
                f"The {manifest.summary.name} is not of type {kind.value}.",
                safe="Nothing was read.",
                hint="A full export is read as a scan, incremental ones repair a gap.",
            )
        with ExitStack() as stack:
            content, md5 = stack.enter_context(self._content(file))
            name = f"file {shown(file.key)} of the {manifest.summary.name}"
            try:
                lines = sum(1 for _ in _lines(content, name))
            except _DAMAGED as error:
                # The digest says more about a file that was changed on its way.
                verify_content(manifest, file, md5, file.item_count)
                raise _damaged(name, f"it is not a complete gzip file ({error})") from None
            verify_content(manifest, file, md5, lines)
            content.seek(0)
            for number, line in enumerate(_lines(content, name), start=1):
                try:
                    yield row(line)
                except (msgspec.DecodeError, RecursionError, ValueError) as error:
                    raise _damaged(name, f"line {number} can't be read ({shown(error)})") from None

    @contextmanager
    def _content(self, file: ExportFile) -> Iterator[tuple[IO[bytes], bytes]]:
        """Open the bytes of a file for reading from its start, and return their MD5."""
        digest = hashlib.md5(usedforsecurity=False)
        with ExitStack() as stack:
            with self._translated(file.key):
                source: Any = stack.enter_context(self._store.open(path_below(file.key, self.uri)))
                target: IO[bytes] | None = None
                if not self._store.is_local:
                    target = stack.enter_context(tempfile.TemporaryFile())
                while chunk := source.read(_READ_BYTES):
                    digest.update(chunk)
                    if target is not None:
                        target.write(chunk)
            content = cast("IO[bytes]", source) if target is None else target
            content.seek(0)
            yield content, digest.digest()

    def _required(self, path: str) -> bytes:
        content = self._read(path)
        if content is None:
            raise ExportError(
                f"There is no {path.rpartition('/')[2]} of an export at {self.uri}.",
                safe="Nothing was read.",
                hint="An export has it once it is completed: wait for its status COMPLETED. Check "
                "the location and, for another account's bucket, its policy.",
            )
        return content

    def _read(self, path: str) -> bytes | None:
        with self._translated(path):
            return self._store.read(path)

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise ExportError(
                f"File {shown(path)} of the export at {self.uri} is missing.",
                safe="No row of the file landed.",
                hint="Copy the whole export; incremental exports have their data in "
                "AWSDynamoDB/data.",
            ) from None
        except OSError as error:
            found = storage_error(
                f"File {shown(path)} of the export at {self.uri} can't be read",
                error,
                safe="No row of the file landed.",
                hint="Check the location and the storage options.",
            )
            raise ExportError(found.what, safe=found.safe, hint=found.hint) from error


def _change(line: bytes) -> ExportedChange:
    change = _decode_change(line)
    keys = bytes(change.keys).decode()
    if not keys.startswith("{"):
        raise ValueError("Keys is not an object")
    micros = change.metadata.write_timestamp_micros.value
    if not (micros.isascii() and micros.isdigit()):
        raise ValueError("WriteTimestampMicros is not a number")
    images = (_image(change.new_image), _image(change.old_image))
    return ExportedChange(keys, *images, int(micros), len(line))


def _image(raw: msgspec.Raw) -> str | None:
    text = bytes(raw).decode()
    if text in ("", "null"):
        return None
    if not text.startswith("{"):
        raise ValueError("an image is not an object")
    return text


def _lines(content: IO[bytes], name: str) -> Iterator[bytes]:
    """Yield the lines of a gzip file, one in memory at a time; an empty file has none."""
    if not content.read(1):
        return
    content.seek(0)
    with gzip.GzipFile(fileobj=content) as unpacked:
        while line := unpacked.readline(LINE_BYTES_MAX):
            if len(line) == LINE_BYTES_MAX:
                raise _damaged(name, f"it has a line of more than {LINE_BYTES_MAX:,} bytes")
            if line.strip():
                yield line


def _damaged(name: str, fault: str) -> ExportError:
    return ExportError(
        f"{name[:1].upper()}{name[1:]}: {fault}.",
        safe="No row from there on landed.",
        hint="Copy the export again from S3, or start a new one.",
    )
