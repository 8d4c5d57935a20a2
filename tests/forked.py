"""Processes that start at once: forked from a server that has imported the package.

A process of its own takes two seconds of CPU to import Dagster and boto3. Where a test is about the
start itself, or about what is installed, it starts the program instead.
"""

from __future__ import annotations

from multiprocessing import get_context
from multiprocessing.context import ForkServerContext


def forked() -> ForkServerContext:
    """Return the context of such processes."""
    context = get_context("forkserver")
    # Loaded once in a test session, before anything starts a thread.
    context.set_forkserver_preload(["tests.faults.child"])
    return context
