"""Errors of a user's function: what made its result unusable, and the reason for the quarantine."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from datazone_dagster.errors import (
    DatazoneError,
    HiddenColumnsError,
    OutOfMemoryError,
    ResultError,
    TransformError,
)
from datazone_dagster.frame.query_session import MalformedImageError
from datazone_dagster.items.keys import shown_key
from datazone_dagster.model.column_names import KEY
from datazone_dagster.model.quarantine_policy import REASON_CHARS, Failure, failed_reason
from datazone_dagster.text import shown

R = TypeVar("R")

_OF_FRAME = re.compile(r"'(Frame|Lookup)'|\b(Frame|Lookup|Relation)\.\w+\(\)")
"""Python's errors about a use of a frame that there is not."""
_USE = (
    "A frame is SQL over one chunk, not rows: select(), filter(), with_columns(), sql() and "
    "items() make another frame; pl(), df() and arrow() read its rows, as Polars, pandas and "
    "Arrow. "
)

_KEYS_IN_AN_ERROR = 5

SAFE = "Nothing of this chunk was applied; the change log keeps it and the next run tries again."

_CODE_ERRORS = (HiddenColumnsError, ResultError)
"""Errors in the function that no choice of rows avoids: its result is not rows of the chunk."""


def failure_of(error: TransformError) -> Failure:
    """Return what made a function's result unusable."""
    if isinstance(error, MalformedImageError):
        return Failure.IMAGE
    if isinstance(error, OutOfMemoryError):
        return Failure.MEMORY
    return Failure.CODE if isinstance(error, _CODE_ERRORS) else Failure.CHANGES


def reason_of(error: TransformError) -> str:
    """Return the reason of a change that the function failed on.

    It names no batches and no keys, so that changes with one cause have one reason.
    """
    cause = error.__cause__
    if cause is None:
        text = error.what
    elif isinstance(cause, DatazoneError):
        text = cause.what if type(cause) is type(error) else error.what
    else:
        text = text_of(cause)
    return failed_reason(text)


def text_of(error: BaseException) -> str:
    """Return an exception of the function as one short line."""
    return shown(f"{type(error).__name__}: {error}", REASON_CHARS)


def with_context(
    name: str, call: Callable[[], R], context: Callable[[], tuple[pa.Table, str]]
) -> R:
    """Call the user's function; wrap any exception with the chunk's batches and first keys."""
    try:
        return call()
    except MalformedImageError:
        raise
    except TransformError as error:
        raise type(error)(
            f"{error.what.rstrip('.')} ({_context(*context())}).",
            safe=SAFE,
            hint=error.hint,
        ) from error
    except DatazoneError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(
            f"The function of transform {name!r} ran out of memory ({_context(*context())}).",
            safe=SAFE,
            hint="Raise ApplySettings(memory_budget=...), or let the function use less.",
        ) from error
    except Exception as error:
        use = _USE if _OF_FRAME.search(str(error)) else ""
        raise TransformError(
            f"The function of transform {name!r} raised {text_of(error)} ({_context(*context())}).",
            safe=SAFE,
            hint=f"{use}Fix the function and run it again.",
        ) from error


def _context(changes: pa.Table, location: str) -> str:
    keys = ", ".join(map(shown_key, changes[KEY].slice(0, _KEYS_IN_AN_ERROR).to_pylist()))
    plural = "" if len(changes) == 1 else "s"
    return f"{location}, {len(changes)} change{plural}, first keys: {keys or 'none'}"
