"""The n-th request of a step fails: the step succeeds or raises our error, and no row is lost.

Each position is struck on a lakehouse that goes on living: new changes come in, one request
fails, then the store is well again and the next drain and run bring everything in.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal, get_args

from datazone_dagster.dagster_glue.checks.dataset_checks import state_of
from datazone_dagster.errors import DatazoneError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import utc_now
from datazone_dagster.pipeline import (
    apply_transform,
    drain_once,
    maintain_dataset,
    read_dataset,
    rebuild_dataset,
)
from datazone_dagster.testing import ScriptedStream
from tests.examples import LONG
from tests.faults.orders import SOURCE, current_rows, event_ids, expected_rows, flow, ids, order
from tests.store.proxy import Counts, Proxy
from tests.store.servers import SECRET_KEY

Step = Literal["tick", "run", "checks", "read", "maintain", "rebuild"]
STEPS: tuple[Step, ...] = get_args(Step)
Fault = int | Literal["reset"]
FAULTS: tuple[Fault, ...] = (403, 404, 500, 503, "reset")
KEYS = 8
MANY_REQUESTS = 50
MORE_REQUESTS = 5
"""Requests that a step may take more than those that were counted."""

_TABLES = re.compile(r"(_changelog|_checkpoints|_quarantine|_tombstones|_rebuild|current|events)\b")


@dataclass(frozen=True, slots=True)
class Struck:
    """What came of a request that failed: texts of raw errors, and numbers of events."""

    raw: tuple[str, ...] = ()
    lost: int = 0
    doubled: int = 0
    wrong: tuple[str, ...] = ()


def strikes(counts: Counts) -> list[tuple[Fault, int]]:
    """Return the failures to try, each with the request that it strikes.

    A kind of request is a method, what it asks for, and the table. By default the first and the
    last of each run of the same kind are struck, by every failure. A step of many requests has many
    runs of a kind: there each failure strikes one request of each kind, spread over the step. In
    the long profile, every failure strikes every request.
    """
    kinds = [(one.method, one.kind, *_TABLES.findall(one.path)[:1]) for one in counts.requests]
    more = range(len(kinds) + 1, len(kinds) + 1 + MORE_REQUESTS)
    if not LONG and len(kinds) > MANY_REQUESTS:
        found: list[tuple[Fault, int]] = []
        last = len(FAULTS) - 1
        for kind in dict.fromkeys(kinds):
            there = [nth for nth, one in enumerate(kinds, 1) if one == kind]
            found += [
                (fault, there[at * (len(there) - 1) // last]) for at, fault in enumerate(FAULTS)
            ]
        return found
    ends = [
        nth
        for nth, kind in enumerate(kinds, 1)
        if LONG or nth in (1, len(kinds)) or not kinds[nth - 2] == kind == kinds[nth]
    ]
    return [(fault, nth) for fault in FAULTS for nth in (*ends, *more)]


@dataclass
class SweptLakehouse:
    """A lakehouse whose steps are struck one after another.

    Args:
        layout: The lakehouse, behind the proxy.
        proxy: The proxy.
        is_cold: Whether each step begins like a process that knows no table yet.
    """

    layout: Layout
    proxy: Proxy
    is_cold: bool
    stream: ScriptedStream = field(default_factory=lambda: ScriptedStream(shards=2))
    _numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.layout = replace(
            self.layout, storage_options={**self.layout.storage_options, "max_retries": "0"}
        )

    def requests_of(self, step: Step) -> Counts:
        """Return the requests of a step that nothing strikes."""
        self._prepare(step)
        with self.proxy.counted() as counts:
            self._do(step)
        self._recover()
        return counts

    def strike(self, step: Step, fault: Fault, nth: int) -> Struck:
        """Let the n-th request of a step fail; return what came of it."""
        self._prepare(step)
        wrong: list[str] = []
        raw: list[str] = []
        self.proxy.break_requests(fault, nth=nth)
        try:
            self._do(step)
        except DatazoneError as error:
            if SECRET_KEY in "".join(traceback.format_exception(error)):
                wrong.append("a secret is in the error")
        except Exception as error:  # noqa: BLE001  # whatever is not ours is what the test looks for
            raw.append(f"raw {type(error).__name__}: {str(error)[:300]}")
            raw.append("".join(traceback.format_tb(error.__traceback__)[-6:]))
        finally:
            self.proxy.heal()
        after = self._recover()
        texts = [f"{step}, request {nth}, {fault}: {one}" for one in (*raw, *wrong, *after.wrong)]
        return replace(after, raw=tuple(raw[:1]), wrong=tuple(texts))

    def _prepare(self, step: Step) -> None:
        """Bring in what the step works on."""
        for _ in range(3):
            number = next(self._numbers)
            self.stream.put(order(number % KEYS, "placed", number))
        if step != "tick":
            drain_once(SOURCE, self.stream, self.layout)
        if step not in ("tick", "run", "checks"):
            apply_transform(flow, self.layout)
        if self.is_cold:
            self._as_new_process()

    def _as_new_process(self) -> None:
        """Use options that no kept state belongs to."""
        agent = f"sweep-{next(self._numbers)}"
        options = {**self.layout.storage_options, "user_agent": agent}
        self.layout = replace(self.layout, storage_options=options)

    def _do(self, step: Step) -> None:
        does: dict[Step, Callable[[], object]] = {
            "tick": lambda: drain_once(SOURCE, self.stream, self.layout),
            "run": lambda: apply_transform(flow, self.layout),
            "checks": self._checks,
            "read": lambda: (read_dataset(self.layout, "current"), event_ids(self.layout)),
            "maintain": lambda: [
                maintain_dataset(one, self.layout) for one in flow.outputs.values()
            ],
            "rebuild": lambda: rebuild_dataset(flow, "current", self.layout),
        }
        does[step]()

    def _checks(self) -> None:
        for one in flow.outputs.values():
            state_of(flow, one, self.layout, now=utc_now(), caught_up_at=None)

    def _recover(self) -> Struck:
        """Drain and apply on a store that is well; return what is lost or doubled."""
        drain_once(SOURCE, self.stream, self.layout)
        apply_transform(flow, self.layout)
        wrong = []
        expected = expected_rows(self.stream.changes)
        if (found := current_rows(self.layout)) != expected:
            wrong.append(f"rows {found}, expected {expected}")
        known, events = ids(self.stream.changes), event_ids(self.layout)
        lost, doubled = known - events, events - known
        wrong += [f"lost {lost}"] if lost else []
        wrong += [f"doubled {doubled}"] if doubled else []
        return Struck(lost=lost.total(), doubled=doubled.total(), wrong=tuple(wrong))
