"""The key of a change that an expression of the function can't take, for the error of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from datazone_dagster.apply.isolate import first_failing_row
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.query_session import FailingValueError
from datazone_dagster.items.keys import shown_key
from datazone_dagster.model.column_names import KEY


def with_failing_key(
    error: TransformError, changes: pa.Table, evaluate: Callable[[pa.Table], object]
) -> TransformError:
    """Return an error about a value with the key of a change that has such a value.

    Args:
        error: Any error; one that is about no value is returned as it is.
        changes: The changes of the chunk.
        evaluate: Calls the function on some of them.
    """
    if not isinstance(error, FailingValueError):
        return error

    def fails(rows: Sequence[int]) -> str | None:
        try:
            evaluate(changes.take(pa.array(rows, pa.int64())))
        except FailingValueError as failure:
            return failure.what
        except TransformError:
            return None
        return None

    row = first_failing_row(changes[KEY].to_pylist(), fails)
    if row is None:
        return error
    key = shown_key(changes[KEY][row].as_py())
    return FailingValueError(
        f"{error.what.rstrip('.')}. A change that fails alone has the key {key}.",
        safe=error.safe,
        hint=f"{error.hint or ''} Or quarantine such changes: on_error='quarantine'.".strip(),
    )
