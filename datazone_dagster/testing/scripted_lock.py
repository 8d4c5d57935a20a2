"""Lock of the scripted streams."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

LOCK = threading.RLock()
"""One lock for all streams, so that a stream can be copied. Fault functions run outside it."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def locked(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return a method that holds the lock."""

    @wraps(method)
    def holding(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with LOCK:
            return method(*args, **kwargs)

    return holding
