"""Errors of deltalake, obstore, Arrow and the disk become ours: the one seam for all of them.

An error of a library quotes URLs with user and password, and answers of S3 that have a signature
in them. Dagster stores an error with its causes: so the text of the cause is replaced as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError
from obstore.exceptions import AlreadyExistsError, BaseError

from datazone_dagster.delta.store_diagnosis import (
    MISSING_FILE,
    Diagnosis,
    diagnosed,
    one_line,
    says_absent,
)
from datazone_dagster.errors import ConcurrentWriterError, StorageError, StoreError
from datazone_dagster.model.layout import Layout

TABLE_ERRORS = (DeltaError, OSError, BaseError)
"""Errors of delta-rs, obstore and the store."""


class LostRaceError(Exception):
    """Other commits came first; the caller may read the table again and retry."""


def storage_error(what: str, error: BaseException, *, safe: str, hint: str) -> StorageError:
    """Return our error for one of a library or the store; that one loses its secrets.

    Args:
        what: Operation that failed and its table, without the reason.
        error: Error to convert; meant to be the cause of the new one.
        safe: What is safe.
        hint: What to do, where the error itself does not say it.
    """
    found = _diagnosed(error)
    clean(error)
    text = f"{what}: {found.reason}."
    if issubclass(found.kind, StoreError):
        return found.kind(
            text, safe=safe, hint=found.hint or hint, reason=found.reason, code=found.code
        )
    return found.kind(text, safe=safe, hint=found.hint or hint)


@contextmanager
def guarded(uri: str, doing: str) -> Iterator[None]:
    """Convert the errors of one operation on a table into ours.

    Raises:
        ConcurrentWriterError: Another commit came first.
        StorageError: The store failed. Only reading the table again shows whether a commit
            happened; it is never assumed.
    """
    try:
        yield
    except (CommitFailedError, LostRaceError) as error:
        clean(error)
        raise ConcurrentWriterError(
            f"{doing} at {uri}: another writer committed first ({in_one_line(error)}).",
            safe="Nothing of this attempt was committed; the other writer's commit is intact.",
            hint="This attempt lost the commit race; the next one continues from the new state.",
        ) from error
    except TABLE_ERRORS as error:
        if isinstance(error, StoreError) and error.names_operation:
            raise
        raise _failed(uri, doing, error) from error
    except pa.ArrowException as error:
        if not is_of_store(error):
            raise
        raise _failed(uri, doing, error) from error


def _failed(uri: str, doing: str, error: BaseException) -> StorageError:
    return storage_error(
        f"{doing} at {uri} failed",
        error,
        safe="The change log and earlier commits are untouched; the next attempt reads "
        "the table again to find out whether this commit happened.",
        hint="Check the store: permissions, free space, reachability.",
    )


P = ParamSpec("P")
R = TypeVar("R")


def converts_errors(doing: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Convert the errors of a function on a lakehouse that no operation in it has converted.

    Args:
        doing: What the function does, for the text.
    """

    def converting(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            layout = next(one for one in (*args, *kwargs.values()) if isinstance(one, Layout))
            with guarded(layout.uri, doing):
                return function(*args, **kwargs)

        return call

    return converting


@contextmanager
def store_calls(uri: str) -> Iterator[None]:
    """Convert the errors of calls on the store of a table into ours.

    Raises:
        FileNotFoundError: There is no such file, and nothing else is wrong.
        AlreadyExistsError: There is a file at the path of a conditional put.
        StoreError: The store failed.
    """
    try:
        yield
    except (StoreError, AlreadyExistsError):
        raise
    except FileNotFoundError as error:
        if says_absent(str(error)):
            clean(error)
            raise
        raise _of_store(uri, error) from error
    except (OSError, BaseError) as error:
        raise _of_store(uri, error) from error


def _of_store(uri: str, error: BaseException) -> StorageError:
    found = storage_error(
        f"The store of {uri} failed",
        error,
        safe="Only reading the table again shows whether a write has arrived.",
        hint="Check the store: permissions, free space, reachability.",
    )
    if not isinstance(found, StoreError):
        found = StoreError(found.what, safe=found.safe, hint=found.hint, reason=in_one_line(error))
    found.names_operation = False
    return found


def clean(error: BaseException | None, known: Collection[int] = ()) -> None:
    """Replace the texts of a library's error and of its causes by what we show of them."""
    if error is None or id(error) in known or isinstance(error, StorageError):
        return
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (in_one_line(error),)
    for cause in (error.__cause__, error.__context__):
        clean(cause, {*known, id(error)})


def in_one_line(error: BaseException) -> str:
    """Return the text of a store error and its causes on one line, without traces and secrets."""
    if isinstance(error, StoreError) and error.reason:
        return error.reason
    return one_line(str(error)) or type(error).__name__


def is_of_store(error: BaseException) -> bool:
    """Return whether the store has failed, and not the data or the query."""
    return isinstance(error, (OSError, BaseError)) or diagnosed(str(error)) is not None


def _diagnosed(error: BaseException) -> Diagnosis:
    if isinstance(error, StoreError):
        return Diagnosis(type(error), error.reason or error.what, error.hint, error.code)
    found = diagnosed(str(error), error.errno if isinstance(error, OSError) else None)
    if found is not None:
        return found
    kind = StoreError if isinstance(error, BaseError) else StorageError
    hint = MISSING_FILE if isinstance(error, FileNotFoundError) else None
    return Diagnosis(kind, in_one_line(error), hint)
