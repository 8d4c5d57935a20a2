"""Every error that the library raises on purpose.

    DatazoneError
    ├── DefinitionError            a wrong argument, found when it is given (a ValueError)
    ├── SourceError                DynamoDB or one of its streams can't be read
    │   ├── CredentialsError       no credentials, or they expired
    │   ├── AccessDeniedError      an IAM action is missing
    │   ├── TableNotFoundError     no such table in this account and region
    │   ├── StreamDisabledError    the table has no stream
    │   ├── ViewTypeError          the stream lacks the images that we need
    │   ├── ThrottledError         still throttled after the client's retries
    │   ├── ServiceUnavailableError  network or service failure after the client's retries
    │   ├── ExpiredIteratorError   a shard iterator outlived its 15 minutes
    │   ├── TrimmedDataError       records before this point are gone (24 hours)
    │   └── ShardNotFoundError     the shard is no longer known to the service
    ├── MaskError                  a mask can't be applied as it stands
    ├── LineageError               the shard lineage contradicts what was landed
    ├── StorageError               a table of ours can't be read or written
    │   ├── UnrecognisedTableError      a table that is not ours stands in one of our places
    │   └── ConcurrentWriterError  another writer committed first; this one gives way
    ├── LocalServerError           the local DynamoDB can't be started
    └── TransformError             the user's function or its result
        ├── ExpressionError        an SQL expression that does not parse or bind
        ├── HiddenColumnsError     the result lost the columns that travel unseen
        ├── ResultError            the function returned something that is not rows
        └── SchemaChangeError      a column changed to a type its table can't take

Each message says what happened, where, what is safe or lost, and what to do.
"""

from __future__ import annotations


class DatazoneError(Exception):
    """Base of all errors of this library.

    Args:
        what: What happened, and where.
        safe: What is safe or lost.
        hint: What to do next.
    """

    def __init__(self, what: str, *, safe: str = "", hint: str = "") -> None:
        self.what, self.safe, self.hint = what, safe, hint
        super().__init__(" ".join(part for part in (what, safe, hint) if part))


class DefinitionError(DatazoneError, ValueError):
    """A wrong argument of the public API, found at import time."""


class SourceError(DatazoneError):
    """DynamoDB or one of its streams can't be read."""


class CredentialsError(SourceError):
    """There are no AWS credentials, or they are not valid."""


class AccessDeniedError(SourceError):
    """The credentials lack an IAM action."""


class TableNotFoundError(SourceError):
    """The table does not exist in this account and region."""


class StreamDisabledError(SourceError):
    """The table exists but has no stream."""


class ViewTypeError(SourceError):
    """The stream's view type lacks the images that are needed."""


class ThrottledError(SourceError):
    """The service throttles the call after all retries."""


class ServiceUnavailableError(SourceError):
    """The service or the network failed after all retries."""


class ExpiredIteratorError(SourceError):
    """The shard iterator is older than 15 minutes."""


class TrimmedDataError(SourceError):
    """The position lies before the trim horizon: records older than 24 hours are gone."""


class ShardNotFoundError(SourceError):
    """The service does not know the shard any more."""


class MaskError(DatazoneError):
    """A mask can't be applied: its salt is missing, or it would change what a key says."""


class LineageError(DatazoneError):
    """The listed shards contradict what was landed; reading on could reorder changes."""


class StorageError(DatazoneError):
    """A table of ours can't be read or written."""


class UnrecognisedTableError(StorageError):
    """Something that is not ours stands where one of our tables belongs."""


class ConcurrentWriterError(StorageError):
    """Another writer committed first. Nothing of this attempt was written; it gives way."""


class LocalServerError(DatazoneError):
    """The local DynamoDB can't be started."""


class TransformError(DatazoneError):
    """The user's function, or what it returned, can't be applied."""


class ExpressionError(TransformError):
    """An SQL expression does not parse or does not bind."""


class HiddenColumnsError(TransformError):
    """The result has lost the key, version and event time of its rows."""


class ResultError(TransformError):
    """The function returned something that is not a set of rows."""


class SchemaChangeError(TransformError):
    """A result column has a type that the dataset's column can't take."""
