"""The n-th request of a step fails: the step succeeds or raises our error, and no row is lost.

Each position is struck on a lakehouse that goes on living: new changes come in, one request
fails, then the store is well again and the next drain and run bring everything in.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal

from datazone_dagster.dagster_glue.lazy_apply import state_of
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
from tests.faults.orders import SOURCE, current_rows, event_ids, expected_rows, flow, ids, order
from tests.store.proxy import Proxy
from tests.store.servers import SECRET_KEY

Step = Literal["tick", "run", "checks", "read", "maintain", "rebuild"]
STEPS: tuple[Step, ...] = ("tick", "run", "checks", "read", "maintain", "rebuild")
FAULTS: tuple[int | Literal["reset"], ...] = (403, 404, 500, 503, "reset")
KEYS = 8


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

    def requests_of(self, step: Step) -> int:
        """Return how many requests a step takes that nothing strikes."""
        self._prepare(step)
        with self.proxy.counted() as counts:
            self._do(step)
        self._recover()
        return len(counts)

    def strike(self, step: Step, fault: int | Literal["reset"], nth: int) -> list[str]:
        """Let the n-th request of a step fail; return what is wrong with what came of it."""
        self._prepare(step)
        wrong = []
        self.proxy.break_requests(fault, nth=nth)
        try:
            self._do(step)
        except DatazoneError as error:
            if SECRET_KEY in "".join(traceback.format_exception(error)):
                wrong.append("a secret is in the error")
        except Exception as error:  # noqa: BLE001  # whatever is not ours is what the test looks for
            wrong.append(f"raw {type(error).__name__}: {str(error)[:300]}")
            wrong.append("".join(traceback.format_tb(error.__traceback__)[-6:]))
        finally:
            self.proxy.heal()
        wrong += self._recover()
        return [f"{step}, request {nth}, {fault}: {text}" for text in wrong]

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

    def _recover(self) -> list[str]:
        """Drain and apply on a store that is well; return what is lost or doubled."""
        drain_once(SOURCE, self.stream, self.layout)
        apply_transform(flow, self.layout)
        wrong = []
        expected = expected_rows(self.stream.changes)
        if (found := current_rows(self.layout)) != expected:
            wrong.append(f"rows {found}, expected {expected}")
        known, events = ids(self.stream.changes), event_ids(self.layout)
        lost, doubled = known - events, events - known
        wrong += [f"lost {Counter(lost)}"] if lost else []
        wrong += [f"doubled {Counter(doubled)}"] if doubled else []
        return wrong
