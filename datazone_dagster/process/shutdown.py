"""Whether this process was told to end (SIGTERM), as a spot instance that goes away does.

Dagster's code server lets the evaluation that is going on come to its end, however long that
takes. A drain therefore looks here: it reads no further, commits what it has read, and leaves
the rest for the next one. A run needs none of this: Dagster interrupts it, and a chunk is in
its datasets with its position or not at all.
"""

from __future__ import annotations

import os
import signal
import threading

_told = threading.Event()
_signals: int | None = None
"""Where the numbers of signals can be read from."""


def notice_sigterm() -> bool:
    """Take notice of SIGTERM from now on. Handlers stay as they are.

    Python also writes each signal that has a handler to a descriptor. A handler of our own
    would not last: Dagster puts back its own after it has loaded the definitions.

    Returns:
        False outside the main thread, where Python allows nothing of this, and where the
        descriptor is taken, as by a running asyncio loop: drains then end by their budget.
    """
    global _signals  # noqa: PLW0603 - a process has one such descriptor
    if _signals is not None:
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    taken = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    if taken != -1:
        signal.set_wakeup_fd(taken)
        os.close(readable)
        os.close(writable)
        return False
    _signals = readable
    return True


def shutdown_requested() -> bool:
    """Whether SIGTERM came since `notice_sigterm`."""
    if _signals is not None and not _told.is_set():
        try:
            came = os.read(_signals, 4096)
        except BlockingIOError:
            return False
        if signal.SIGTERM in came:
            _told.set()
    return _told.is_set()


def _truncate() -> None:
    """A forked process shares the descriptor, but not the signals."""
    global _signals  # noqa: PLW0603
    if _signals is not None:
        signal.set_wakeup_fd(-1)
        _signals = None
    _told.clear()


os.register_at_fork(after_in_child=_truncate)
