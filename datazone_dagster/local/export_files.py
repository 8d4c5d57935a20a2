"""Files of an export, as the service writes them to S3; a bucket is a folder of this machine.

Format: developer guide, "DynamoDB table export output format". Keys in manifests are full S3 keys,
prefix included. Data files of incremental exports share one folder: only the manifest tells which
belong to an export.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import msgspec

_PART_NAME_CHARS = 26
_FOLDER = "AWSDynamoDB"


class DataFile(NamedTuple):
    """Line of manifest-files.json."""

    itemCount: int  # noqa: N815 - name in the file
    md5Checksum: str  # noqa: N815 - name in the file
    etag: str
    dataFileS3Key: str  # noqa: N815 - name in the file


class ExportFolder:
    """Folder of one export in a bucket.

    Args:
        bucket: Folder that stands for the bucket.
        prefix: Prefix of the request; empty for none.
        export_id: Id of the export, the end of its ARN.
        incremental: Whether the data files go to the folder that incremental exports share.
    """

    def __init__(self, bucket: Path, prefix: str, export_id: str, *, incremental: bool) -> None:
        self._bucket = bucket
        root = f"{prefix}/{_FOLDER}" if prefix else _FOLDER
        self._own = f"{root}/{export_id}"
        self._data = f"{root}/data" if incremental else f"{self._own}/data"
        self._export_id = export_id
        self.manifest_key = f"{self._own}/manifest-summary.json"
        self.files_key = f"{self._own}/manifest-files.json"

    def start(self) -> None:
        """Write `_started`, which proves that the bucket can be written.

        Raises:
            OSError: The folder can't be written.
        """
        self._write(f"{self._own}/_started", b"")

    def add(self, number: int, lines: Iterable[bytes]) -> DataFile:
        """Write one data file of JSON lines and return its line of the manifest."""
        digest = hashlib.blake2b(f"{self._export_id} {number}".encode(), digest_size=20).digest()
        name = base64.b32encode(digest).decode().lower()[:_PART_NAME_CHARS]
        key = f"{self._data}/{name}.json.gz"
        path = self._path(key)
        count = 0
        with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
            for line in lines:
                packed.write(line + b"\n")
                count += 1
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).digest()
        # The service uploads in parts: the tag is the digest of the parts' digests.
        tag = hashlib.md5(md5, usedforsecurity=False).hexdigest()
        return DataFile(count, base64.b64encode(md5).decode(), f"{tag}-1", key)

    def finish(self, files: Iterable[DataFile], summary: Mapping[str, object]) -> None:
        """Write the manifests, and the checksum of each."""
        lines = b"".join(msgspec.json.encode(file._asdict()) + b"\n" for file in files)
        for key, body in (
            (self.files_key, lines),
            (self.manifest_key, msgspec.json.encode(summary)),
        ):
            self._write(key, body)
            md5 = hashlib.md5(body, usedforsecurity=False).digest()
            self._write(f"{key.removesuffix('.json')}.checksum", base64.b64encode(md5))

    def _write(self, key: str, body: bytes) -> None:
        self._path(key).write_bytes(body)

    def _path(self, key: str) -> Path:
        path = self._bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def shown_time(seconds: float) -> str:
    """Return a time as manifests show it: ISO 8601 in UTC, milliseconds."""
    moment = datetime.fromtimestamp(int(seconds * 1000) / 1000, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
