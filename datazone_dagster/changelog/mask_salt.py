"""The salt of a source's hashes: its fingerprint is stored with the change log, and compared.

With another salt, equal values get other hashes: every hashed key would become a second item, and
joins over hashed columns would find nothing, without a word.
"""

from __future__ import annotations

from datazone_dagster.api.mask import SALT_VARIABLE
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.errors import MaskError
from datazone_dagster.text import shown

PROPERTY = "datazone.mask_salt"
"""Table property of a change log that stores the fingerprint of the salt."""


def check_salt(source_name: str, log: ChangeLogSnapshot, found: str | None) -> None:
    """Compare the salt of the hashes in a change log with that of this process.

    A change log of an earlier version has no fingerprint yet: `record_salt` stores that of the
    first drain.

    Args:
        source_name: Name of the source, for the error.
        log: The change log.
        found: Fingerprint of the salt of this process; None if nothing is hashed.

    Raises:
        MaskError: The change log has hashes of another salt.
    """
    stored = log.properties.get(PROPERTY)
    if None not in (stored, found) and stored != found:
        raise MaskError(
            f"Source {shown(source_name)!r}: the salt in {SALT_VARIABLE} is not the one that the "
            f"change log at {log.uri} was written with.",
            safe="Nothing was read; DynamoDB keeps the changes for 24 hours. With the new salt, "
            "equal values would get other hashes, and hashed keys would become second items.",
            hint=f"Set {SALT_VARIABLE} to the former salt wherever sensors run. If it has to "
            "change, give the source a new name, DynamoDBSource(name=...), and its datasets new "
            "ids: they begin again with the new salt.",
        )


def record_salt(log: ChangeLogSnapshot, found: str | None) -> None:
    """Store the fingerprint with the change log, if it has none.

    Raises:
        ConcurrentWriterError: Another commit came first; a later drain stores it.
        StorageError: The store failed.
    """
    if found is not None and PROPERTY not in log.properties:
        log.set_property(PROPERTY, found, "Storing the fingerprint of a salt")
