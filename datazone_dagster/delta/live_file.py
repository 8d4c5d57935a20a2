"""A logical file of a table: a data file and its deletion vector, as the log describes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast
from urllib.parse import unquote

import msgspec

from datazone_dagster.delta.log_files import Action
from datazone_dagster.delta.vectors import IN_TABLE, Vector


class _Stats(msgspec.Struct):
    numRecords: int | None = None  # noqa: N815  # the protocol's names
    minValues: dict[str, Any] | None = None  # noqa: N815
    maxValues: dict[str, Any] | None = None  # noqa: N815


_STATS = msgspec.json.Decoder(_Stats)


@dataclass(frozen=True)
class LiveFile:
    """One logical file of a table: a data file and its deleted rows.

    Args:
        add: Add action of the file.
        vector: Deletion vector of the file; None if no row is deleted.
    """

    add: Action
    vector: Vector | None

    @cached_property
    def path(self) -> str:
        """Path relative to the table, as in the store (the log percent-encodes it)."""
        return unquote(self.add["path"])

    @property
    def identity(self) -> tuple[str, str | None]:
        """Path and vector id: the identity of a logical file in the log."""
        return self.add["path"], self.vector.unique_id if self.vector else None

    @property
    def size_bytes(self) -> int:
        """Size of the data file."""
        return cast(int, self.add["size"])

    @property
    def partition_values(self) -> Mapping[str, str | None]:
        """Partition values by column, as spelled in the log."""
        return self.add.get("partitionValues") or {}

    @property
    def num_records(self) -> int | None:
        """Rows of the data file, deleted ones included; None if the log does not say."""
        return self._stats.numRecords

    @property
    def deleted(self) -> int:
        """Number of deleted rows."""
        return self.vector.cardinality if self.vector else 0

    @property
    def minimum(self) -> Mapping[str, Any]:
        """Lower bounds by column, as JSON values."""
        return self._stats.minValues or {}

    @property
    def maximum(self) -> Mapping[str, Any]:
        """Upper bounds by column, as JSON values."""
        return self._stats.maxValues or {}

    @cached_property
    def _stats(self) -> _Stats:
        text = self.add.get("stats")
        return _STATS.decode(text) if text else _Stats()


def live_file(action: Action) -> LiveFile:
    """Return the logical file of an add or remove action."""
    vector = action.get("deletionVector")
    return LiveFile(action, None if vector is None else Vector.of_action(vector))


def new_files(actions: Iterable[Action]) -> list[str]:
    """Return the paths, relative to the table, of the files that these actions of entries add."""
    added = [live_file(action["add"]) for action in actions if action.get("add") is not None]
    vectors = {file.vector for file in added if file.vector is not None}
    return [
        *(file.path for file in added),
        *sorted({one.path for one in vectors if one.storage_type == IN_TABLE}),
    ]
