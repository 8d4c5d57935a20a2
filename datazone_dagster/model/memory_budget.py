"""The memory budget of a process: the one that is given, or a default that its limit allows. Pure.

A container is killed without a word when it exceeds its limit, and a budget is no hard bound: the
libraries themselves, and one batch, have to fit whatever it says. So a default leaves half.
"""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.errors import DefinitionError

DEFAULT_SHARE = 1 / 2
"""Largest share of the memory limit of a process that a default budget takes."""


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """A memory budget.

    Args:
        bytes: Bytes that the process may take.
        note: What a person should know of it; empty if nothing.
        is_too_large: Whether it exceeds the limit, so that the system may end the process.
    """

    bytes: int
    note: str = ""
    is_too_large: bool = False


def memory_budget(setting: str, given: int | None, default: int, limit: int | None) -> MemoryBudget:
    """Return the budget of a process.

    Args:
        setting: Setting that gives it, for the note: `ApplySettings(memory_budget=...)`.
        given: Budget that the user gives, in bytes, which is kept; None: the default.
        default: Default budget where there is enough memory, in bytes.
        limit: Memory that the process may take, in bytes; None if there is no known limit.
    """
    if given is not None:
        if limit is None or given <= limit:
            return MemoryBudget(given)
        note = (
            f"{setting} is {_mebibytes(given)}, but the container or machine has "
            f"{_mebibytes(limit)}: the system may kill the process. Leave it out for half of "
            "that, or give the container twice the budget."
        )
        return MemoryBudget(given, note, is_too_large=True)
    allowed = within(default, limit)
    if allowed == default or limit is None:
        return MemoryBudget(default)
    note = (
        f"The container or machine has {_mebibytes(limit)} of memory: {setting} is half of that, "
        f"{_mebibytes(allowed)}, instead of {_mebibytes(default)}."
    )
    return MemoryBudget(allowed, note)


def check_budget(setting: str, given: object) -> None:
    """Refuse a budget that is no number of bytes.

    Raises:
        DefinitionError: It is none.
    """
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and given > 0):
        return
    raise DefinitionError(
        f"{setting}: memory_budget={given!r} is not a number of bytes.",
        hint="Write memory_budget=512 << 20 for 512 MiB, or leave it out.",
    )


def within(wanted: int, limit: int | None) -> int:
    """Return the bytes that a default may take of a limit."""
    return wanted if limit is None else min(wanted, int(limit * DEFAULT_SHARE))


def _mebibytes(size: int) -> str:
    return f"{size >> 20:,} MiB"
