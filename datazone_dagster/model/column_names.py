"""Column names that more than one package uses."""

from __future__ import annotations

KEY = "_dz_key"
VERSION = "_dz_version"
EVENT_TIME = "_dz_event_time"
HIDDEN = (KEY, VERSION, EVENT_TIME)
"""Columns of every row that a function receives: hidden from it, stored in the dataset."""

RESERVED_PREFIX = "_dz_"

VALID_FROM = "_dz_valid_from"
VALID_TO = "_dz_valid_to"
IS_CURRENT = "_dz_is_current"
INTERVAL = (VALID_FROM, VALID_TO, IS_CURRENT)
"""Columns of a history dataset: [from, to), with a null `to` while the row is current."""

DELETED = "_dz_deleted"
DELETE_CAUSE = "_dz_delete_cause"
DELETION = (DELETED, DELETE_CAUSE)
"""Columns of a dataset with soft deletes; the cause is user or ttl."""

RECORD_MARKER = "_dz_record"
"""Field that only the struct `dynamodb` of a frame's record has."""

REST = "_dz_rest"
"""Attributes of an item beyond the limit on columns, as one JSON object."""

ITEM_RESTS = (REST, f"before_{REST}", f"after_{REST}")
"""Names of `REST` in the output of `items()`: one image, or both."""

ATTRIBUTE = "datazone.attribute"
"""Field metadata key: the attribute of a column that could not be named after it."""

SIBLING_OF = "datazone.sibling_of"
"""Field metadata key: the column whose attribute's values of another type are in this column."""

KEY_NUMBER = "datazone.key_number"
"""Field metadata key: a numeric key, which becomes text if a value fits no type of numbers."""


_REFUSED = frozenset(" ,;{}()\n\t=")
"""Characters that Delta refuses in names of columns without column mapping (Delta protocol,
"Column Mapping"); delta-rs writes them all the same, and Spark then can't open the table."""


def has_refused_characters(name: str) -> bool:
    """Return whether Delta Lake refuses a column of this name."""
    return not _REFUSED.isdisjoint(name)


class Log:
    """Columns of the change log and of the chunks read from it. One row per change.

    `keys`, `old_image` and `new_image` hold the DynamoDB JSON as it arrived
    (`{"id": {"S": "1"}}`); an absent image is null. A record that is not a stream record
    has only `raw` and `reason`, and a null `event_name`.
    """

    BATCH = "batch"
    BUCKET = "bucket"
    STREAM_ARN = "stream_arn"
    SHARD_ID = "shard_id"
    PARENT_SHARD_ID = "parent_shard_id"
    VERSION = "version"
    EVENT_ID = "event_id"
    EVENT_NAME = "event_name"
    EVENT_TIME = "event_time"
    KEYS = "keys"
    OLD_IMAGE = "old_image"
    NEW_IMAGE = "new_image"
    SIZE_BYTES = "size_bytes"
    USER_TYPE = "user_type"
    USER_PRINCIPAL = "user_principal"
    REGION = "region"
    VIEW_TYPE = "view_type"
    RAW = "raw"
    REASON = "reason"
