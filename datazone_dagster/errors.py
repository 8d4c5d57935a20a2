"""Every error that the library raises on purpose.

    DatazoneError
    ├── DefinitionError               an argument is invalid (also a ValueError)
    ├── SourceError                   DynamoDB or one of its streams can't be read
    │   ├── CredentialsError          AWS credentials are missing, invalid or expired
    │   ├── AccessDeniedError         an IAM action is missing
    │   ├── TableNotFoundError        the account and region have no such table
    │   ├── StreamDisabledError       the table has no stream
    │   ├── ViewTypeError             the stream does not carry new images
    │   ├── ThrottledError            still throttled after the client's retries
    │   ├── ServiceUnavailableError   network or service failure after the client's retries
    │   ├── ExpiredIteratorError      a shard iterator is older than 15 minutes
    │   ├── TrimmedDataError          records before this position are gone (24 hours)
    │   ├── ShardNotFoundError        the service no longer knows the shard
    │   └── ExportError               an export of the table can't be used
    ├── MaskError                     a mask can't be applied
    ├── LineageError                  the listed shards contradict the change log
    ├── StorageError                  a table of the library can't be read or written
    │   ├── UnrecognisedTableError    the path holds data that the library did not write
    │   ├── NewerTableError           a newer version of the library has written the table
    │   ├── SourceMismatchError       a change log or a dataset belongs to another source
    │   ├── LakehouseMismatchError    a run looks for its tables in another place than its sensor
    │   ├── StoreError                the object store or the disk failed (also an OSError)
    │   │   ├── StoreUnavailableError    it can't be reached, does not answer in time, or is busy
    │   │   ├── StoreCredentialsError    its credentials are missing, invalid or expired
    │   │   ├── StoreAccessError         it denies access to files
    │   │   └── StoreLocationError       there is no such bucket, or it is in another region
    │   ├── SparkError                the Spark server of a dataset failed, or is not fit for it
    │   └── ConcurrentWriterError     another writer committed first; nothing was written
    │       └── MakesWayError         a run makes way for a rewrite of the whole table
    │                                 (datazone_dagster.dataset.swap_fence)
    ├── SnapshotError                 a snapshot stops and asks how to go on
    ├── LocalServerError              the local DynamoDB can't be started
    ├── DemoError                     the demo can't run (datazone_dagster.demo.servers)
    ├── NotifyError                   an alert could not be sent
    │                                 (datazone_dagster.dagster_glue.alerts.notifiers)
    └── TransformError                the function, or what it returned, can't be applied
        ├── ExpressionError           an SQL expression does not parse or bind
        │   └── FailingValueError     an expression can't take a value of the chunk
        │                             (datazone_dagster.frame.query_session)
        ├── MalformedImageError       an image is not DynamoDB JSON
        │                             (datazone_dagster.frame.query_session)
        ├── OutOfMemoryError          a single change needs more memory than the budget leaves
        ├── HiddenColumnsError        the result lacks the hidden columns of its rows
        ├── ResultError               the function returned something that is not rows
        ├── ExpectationError          rows violate an expectation that fails the run
        └── SchemaChangeError         a column changed to a type that its table can't hold

Classes without a module after them are defined here. Each message says what happened, where,
what is safe or lost, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping

from datazone_dagster.text import MESSAGE_CHARS, escaped, shortened


class DatazoneError(Exception):
    """Base class of all errors of this library.

    The message joins the three texts; each is also an attribute of the same name. They may quote
    data: each becomes one printable line of at most 2,000 characters.

    Args:
        what: What happened, and where.
        safe: What is safe or lost; empty if nothing was at stake.
        hint: What to do next; empty if there is nothing to do.
    """

    def __init__(self, what: str, *, safe: str = "", hint: str = "") -> None:
        self.what, self.safe, self.hint = (_message(part) for part in (what, safe, hint))
        super().__init__(" ".join(part for part in (self.what, self.safe, self.hint) if part))


def _message(text: str) -> str:
    return escaped(shortened(text, MESSAGE_CHARS))


class DefinitionError(DatazoneError, ValueError):
    """An argument of the public API is invalid. Usually raised at import time."""


class SourceError(DatazoneError):
    """DynamoDB or one of its streams can't be read."""


class CredentialsError(SourceError):
    """AWS credentials are missing, invalid or expired."""


class AccessDeniedError(SourceError):
    """The credentials lack an IAM action."""


class TableNotFoundError(SourceError):
    """The table does not exist in this account and region."""


class StreamDisabledError(SourceError):
    """The table exists but has no stream."""


class ViewTypeError(SourceError):
    """The stream's view type does not include new images."""


class ThrottledError(SourceError):
    """The service still throttles the call after all retries."""


class ServiceUnavailableError(SourceError):
    """The service or the network still fails after all retries."""


class ExpiredIteratorError(SourceError):
    """The shard iterator is older than 15 minutes."""


class TrimmedDataError(SourceError):
    """The position is before the trim horizon: records older than 24 hours are gone."""


class ShardNotFoundError(SourceError):
    """The service no longer knows the shard."""


class ExportError(SourceError):
    """An export of the table is incomplete, damaged, or of another table or time."""


class MaskError(DatazoneError):
    """A mask can't be applied.

    The salt of `"hash"` is missing or too short, or a key attribute is masked by another kind.
    """


class LineageError(DatazoneError):
    """The listed shards contradict the change log; reading on could reorder changes."""


class StorageError(DatazoneError):
    """A table of the library can't be read or written."""


class UnrecognisedTableError(StorageError):
    """The path of one of the library's tables holds data that the library did not write."""


class NewerTableError(StorageError):
    """A newer version of the library has written the table, and this one does not know its form."""


class SourceMismatchError(StorageError):
    """A change log or a dataset belongs to another source than the one that the process reads."""


class LakehouseMismatchError(StorageError):
    """A run looks for its tables in another place than the sensor that requested it."""


class StoreError(StorageError, OSError):
    """The object store or the disk failed.

    Args:
        what: As in `DatazoneError`.
        safe: As in `DatazoneError`.
        hint: As in `DatazoneError`.
        reason: What the store said, in one line.
        code: Error code or status of the store, such as `AccessDenied`; empty if it sent none.
        names_operation: Whether `what` says what was done with which table.
    """

    def __init__(
        self,
        what: str,
        *,
        safe: str = "",
        hint: str = "",
        reason: str = "",
        code: str = "",
        names_operation: bool = True,
    ) -> None:
        super().__init__(what, safe=safe, hint=hint)
        self.reason, self.code = _message(reason), code
        self.names_operation = names_operation


class StoreUnavailableError(StoreError):
    """The store can't be reached, does not answer in time, or asks to slow down."""


class StoreCredentialsError(StoreError):
    """The credentials of the store are missing, invalid or expired."""


class StoreAccessError(StoreError):
    """The store, or the disk, denies access to files."""


class StoreLocationError(StoreError):
    """There is no such bucket or container, or it is in another region."""


class SparkError(StorageError):
    """The Spark server of a dataset can't be reached, has failed, or is not fit for it."""


class ConcurrentWriterError(StorageError):
    """Another writer committed first, and this attempt lost the commit race: it wrote nothing."""


class SnapshotError(DatazoneError):
    """A snapshot stops and asks: the message says what it found and how to go on."""


class LocalServerError(DatazoneError):
    """The local DynamoDB can't be started."""


class TransformError(DatazoneError):
    """The user's function, or what it returned, can't be applied."""


class ExpressionError(TransformError):
    """An SQL expression does not parse or does not bind."""


class OutOfMemoryError(TransformError):
    """A query needs more memory than the budget leaves; chunks are evaluated in halves then."""


class HiddenColumnsError(TransformError):
    """The result lacks the hidden columns: key, version and event time of each row."""


class ResultError(TransformError):
    """The function returned something that is not a set of rows."""


class SchemaChangeError(TransformError):
    """A result column has a type that the dataset's column can't hold."""


class ExpectationError(TransformError):
    """Rows violate an expectation of their dataset that fails the run.

    Args:
        what: As in `DatazoneError`.
        safe: As in `DatazoneError`.
        hint: As in `DatazoneError`.
        dataset_id: Id of the dataset.
        violations: Number of violating rows by the name of each such expectation.
        rows: Number of rows that were checked.
    """

    def __init__(
        self,
        what: str,
        *,
        safe: str = "",
        hint: str = "",
        dataset_id: str = "",
        violations: Mapping[str, int] | None = None,
        rows: int = 0,
    ) -> None:
        super().__init__(what, safe=safe, hint=hint)
        self.dataset_id, self.violations, self.rows = dataset_id, dict(violations or {}), rows
