"""Where every table of a lakehouse stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from datazone_dagster.errors import DefinitionError

_DATASET_ID = re.compile(r"[A-Za-z0-9_-]+")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]")


def checked_dataset_id(dataset_id: str) -> str:
    """The id itself, if it can be a path segment and an asset key.

    Raises:
        DefinitionError: It is not `[A-Za-z0-9_-]+`, or it starts with `_`, where our own
            tables live.
    """
    if not isinstance(dataset_id, str) or not _DATASET_ID.fullmatch(dataset_id):
        raise DefinitionError(
            f"Dataset(id={dataset_id!r}): an id is made of letters, digits, '_' and '-'.",
            hint="It names a folder and an asset, so '/', '.', spaces and the like are refused.",
        )
    if dataset_id.startswith("_"):
        raise DefinitionError(
            f"Dataset(id={dataset_id!r}): an id can't start with '_'.",
            hint="Those folders hold the change log, checkpoints and quarantine.",
        )
    return dataset_id


def source_name(table_name: str) -> str:
    """A DynamoDB table name (letters, digits, `_`, `-`, `.`) as a valid Dagster name."""
    return _NOT_IN_A_NAME.sub("_", table_name)


@dataclass(frozen=True, slots=True)
class Layout:
    """The root of a lakehouse and the places below it.

    Args:
        uri: A directory or an object store URI.
        storage_options: Credentials and settings of the store. Never printed.
    """

    uri: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def _under(self, *parts: str) -> str:
        return "/".join((self.uri.rstrip("/"), *parts))

    def dataset(self, dataset_id: str) -> str:
        """The table of a dataset."""
        return self._under(checked_dataset_id(dataset_id))

    def rebuild(self, dataset_id: str, attempt: str) -> Layout:
        """A lakehouse of its own for one rebuild of a dataset, until it takes over."""
        root = self._under("_rebuild", checked_dataset_id(dataset_id), attempt)
        return Layout(root, self.storage_options)

    def rebuilds(self, dataset_id: str) -> str:
        """The folder of all rebuilds of a dataset."""
        return self._under("_rebuild", checked_dataset_id(dataset_id))

    def change_log(self, source: str) -> str:
        """The append-only table of everything a source delivered."""
        return self._under("_changelog", source)

    def checkpoint(self, source: str) -> str:
        """The table of shard positions."""
        return self._under("_checkpoints", source)

    def quarantine(self, dataset_id: str) -> str:
        """The table of records that a dataset could not take."""
        return self._under("_quarantine", checked_dataset_id(dataset_id))

    def tombstones(self, dataset_id: str) -> str:
        """The table of keys that left a dataset."""
        return self._under("_tombstones", checked_dataset_id(dataset_id))

    def unseen(self, dataset_id: str) -> str:
        """The table of changes that no row of a history dataset shows."""
        return self._under("_unseen", checked_dataset_id(dataset_id))
