"""Log of a run that stays: a message that comes again and again is passed on now and then.

Each line of a run's log is a row in Dagster's storage, and a shard that fails says so at each
drain: every second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_MOST = 1_000


def seldom(
    log: logging.Logger,
    every_seconds: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> logging.Logger:
    """Return a logger that passes messages on to `log`, the same one once in this time.

    Messages are the same if their text and their first argument are, such as the shard.
    """
    made = logging.Logger(__name__, logging.INFO)
    made.addHandler(_Seldom(log, every_seconds, monotonic))
    return made


class _Seldom(logging.Handler):
    def __init__(
        self, log: logging.Logger, every_seconds: float, monotonic: Callable[[], float]
    ) -> None:
        super().__init__()
        self._log = log
        self._every_seconds = every_seconds
        self._monotonic = monotonic
        self._passed_at: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        first = record.args[0] if isinstance(record.args, tuple) and record.args else ""
        key, now = (str(record.msg), str(first)), self._monotonic()
        known = self._passed_at.get(key)
        if known is not None and now - known < self._every_seconds:
            return
        if len(self._passed_at) >= _MOST:
            self._passed_at.clear()
        self._passed_at[key] = now
        self._log.log(record.levelno, record.getMessage())
