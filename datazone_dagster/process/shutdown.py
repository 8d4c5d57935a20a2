"""Shutdown requests: whether this process received SIGTERM, as on a reclaimed spot instance.

Dagster's code server lets a running evaluation finish, however long it takes. A drain therefore
asks here: once a shutdown is requested it reads no further, commits what it has read, and leaves
the rest to the next drain. A run needs none of this: Dagster interrupts it, and a chunk is in
its datasets together with its position or not at all.
"""

from __future__ import annotations

import os
import signal
import threading

_requested = threading.Event()
_interrupted = threading.Event()
_signals: int | None = None
"""File descriptor from which the numbers of received signals can be read."""


def notice_sigterm() -> bool:
    """Watch for SIGTERM from now on; existing signal handlers are unchanged.

    Python also writes the number of each handled signal to a wakeup descriptor. A handler of our
    own would not last: Dagster restores its own after it has loaded the definitions.

    Returns:
        False outside the main thread, where Python does not allow this, and where the descriptor
        is in use, for example by a running asyncio loop. Drains then end by their budget.
    """
    global _signals  # noqa: PLW0603 - a process has one such descriptor
    if _signals is not None:
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    in_use = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    if in_use != -1:
        signal.set_wakeup_fd(in_use)
        os.close(readable)
        os.close(writable)
        return False
    _signals = readable
    return True


def shutdown_requested() -> bool:
    """Return whether SIGTERM arrived since `notice_sigterm`."""
    _read_signals()
    return _requested.is_set()


def ending() -> bool:
    """Return whether SIGTERM or SIGINT arrived: after Ctrl-C, work goes on, waiting does not."""
    _read_signals()
    return _requested.is_set() or _interrupted.is_set()


def _read_signals() -> None:
    if _signals is None or _requested.is_set():
        return
    try:
        received = os.read(_signals, 4096)
    except BlockingIOError:
        return
    if signal.SIGTERM in received:
        _requested.set()
    if signal.SIGINT in received:
        _interrupted.set()


def _reset() -> None:
    """Clear any request: a forked process shares the descriptor, but not the signals."""
    global _signals  # noqa: PLW0603
    if _signals is not None:
        signal.set_wakeup_fd(-1)
        _signals = None
    _requested.clear()
    _interrupted.clear()


os.register_at_fork(after_in_child=_reset)
