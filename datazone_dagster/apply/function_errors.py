"""Errors of a user's function: what made its result unusable, and the reason for the quarantine."""

from __future__ import annotations

from datazone_dagster.errors import (
    DatazoneError,
    HiddenColumnsError,
    OutOfMemoryError,
    ResultError,
    TransformError,
)
from datazone_dagster.frame.query_session import MalformedImageError
from datazone_dagster.model.quarantine_policy import REASON_CHARS, Failure, failed_reason
from datazone_dagster.text import shown

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
    """Return the reason of a change that the function failed on."""
    cause = error.__cause__
    text = error.what if cause is None or isinstance(cause, DatazoneError) else text_of(cause)
    return failed_reason(text)


def text_of(error: BaseException) -> str:
    """Return an exception of the function as one short line."""
    return shown(f"{type(error).__name__}: {error}", REASON_CHARS)
