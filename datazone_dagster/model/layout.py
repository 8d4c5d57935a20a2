"""Locations of all tables of a lakehouse."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.store_options import checked_options
from datazone_dagster.model.store_uri import check_uri

CHANGE_LOG_KIND = "change log"
"""Kind of the table of a source's changes, as stored in its properties."""

DATASET_KIND = "dataset"
ASSET_KIND = "asset table"
"""Kinds of the tables of transforms, and of other assets; neither writer writes the other's."""

OWN_FOLDERS = ("_changelog", "_checkpoints", "_quarantine", "_tombstones", "_unseen", "_rebuild")
"""Folders of a lakehouse that are no datasets."""

_DATASET_ID = re.compile(r"[A-Za-z0-9_-]+")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]")


def checked_dataset_id(dataset_id: str) -> str:
    """Return the id itself, if it can be a path segment and an asset key.

    Raises:
        DefinitionError: The id does not match `[A-Za-z0-9_-]+`, or starts with `_`, the prefix
            of our own folders.
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


def asset_table_name(path: Sequence[str]) -> str:
    """Return the name of the table of an asset: the parts of its key, joined by `.`.

    No dataset id and no part has a `.`, so no two keys share a name, and no table is inside
    another one's folder.

    Raises:
        DefinitionError: A part does not match `[A-Za-z0-9_-]+`, or the name starts with `_`, the
            prefix of our own folders.
    """
    wrong = next((part for part in path if not _DATASET_ID.fullmatch(part)), None)
    if wrong is not None or not path or path[0].startswith("_"):
        raise DefinitionError(
            f"The asset key {list(path)!r} can't name a table: its parts are made of letters, "
            "digits, '_' and '-', and the first one does not start with '_'.",
            hint="The table's folder is named after the key; folders with '_' hold the change log, "
            "checkpoints and quarantine.",
        )
    return ".".join(path)


def source_name(table_name: str) -> str:
    """Return a DynamoDB table name (letters, digits, `_`, `-`, `.`) as a valid Dagster name."""
    return _NOT_IN_A_NAME.sub("_", table_name)


def is_remote(uri: str) -> bool:
    """Return whether a location is in an object store."""
    return "://" in uri and not uri.startswith("file://")


def root_of(table_uri: str) -> str:
    """Return the root of the lakehouse that a table belongs to."""
    scheme, found, rest = table_uri.rstrip("/").rpartition("://")
    segments = rest.split("/")
    own = [segments.index(one) for one in OWN_FOLDERS if one in segments[1:]]
    below = segments[: min(own)] if own else segments[:-1]
    return scheme + found + "/".join(below or segments)


@dataclass(frozen=True, slots=True)
class Layout:
    """The root of a lakehouse and the paths below it.

    Args:
        uri: A directory or an object store URI.
        storage_options: Credentials and settings of the store; never printed.

    Raises:
        DefinitionError: The URI is one that libraries read differently, or an option is unknown,
            refused, or contradicts another one.
    """

    uri: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_uri(self.uri)
        checked_options(self.uri, self.storage_options)

    @property
    def is_remote(self) -> bool:
        """Whether the lakehouse is in an object store, where each request is paid for."""
        return is_remote(self.uri)

    def _under(self, *segments: str) -> str:
        return "/".join((self.uri.rstrip("/"), *segments))

    def dataset(self, dataset_id: str) -> str:
        """Return the URI of a dataset's table."""
        return self._under(checked_dataset_id(dataset_id))

    def table(self, name: str) -> str:
        """Return the URI of a table by its name: a dataset id, or `asset_table_name`."""
        return self._under(asset_table_name(name.split(".")))

    def rebuild(self, dataset_id: str, attempt: str) -> Layout:
        """Return a separate lakehouse for one rebuild of a dataset, used until the swap."""
        root = self._under("_rebuild", checked_dataset_id(dataset_id), attempt)
        return Layout(root, self.storage_options)

    def rebuilds(self, dataset_id: str) -> str:
        """Return the URI of the folder of all rebuilds of a dataset."""
        return self._under("_rebuild", checked_dataset_id(dataset_id))

    def change_log(self, source: str) -> str:
        """Return the URI of the append-only table of a source's changes."""
        return self._under("_changelog", source)

    def checkpoint(self, source: str) -> str:
        """Return the URI of the table of shard positions."""
        return self._under("_checkpoints", source)

    def quarantine(self, dataset_id: str) -> str:
        """Return the URI of the table of records that a dataset could not take."""
        return self._under("_quarantine", checked_dataset_id(dataset_id))

    def tombstones(self, dataset_id: str) -> str:
        """Return the URI of the table of keys deleted from a dataset."""
        return self._under("_tombstones", checked_dataset_id(dataset_id))

    def absorbed_changes(self, dataset_id: str) -> str:
        """Return the URI of the table of changes that no row of a history dataset shows."""
        return self._under("_unseen", checked_dataset_id(dataset_id))
