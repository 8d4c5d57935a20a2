"""A run of all transforms of a source: one process, in which they take turns, chunk by chunk.

Each transform has its own step, asset and pool, as in any other run. The first step that starts
does the work of all. The others, which start after it, report the end of theirs, or fail with the
error of their transform. So one transform that fails is one asset that failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext

from dagster import AssetExecutionContext

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.applier import Applier
from datazone_dagster.dagster_glue.assets.apply_in_run import apply_of_run, heartbeats_of
from datazone_dagster.dagster_glue.assets.handed_seats import HandedSeats, Seat
from datazone_dagster.dagster_glue.assets.lazy_apply import LazyApply
from datazone_dagster.dagster_glue.assets.repeated_checks import (
    events_so_far,
    last_events,
)
from datazone_dagster.dagster_glue.checks.applied import Applied
from datazone_dagster.dagster_glue.checks.expectation_checks import results_of_failure
from datazone_dagster.dagster_glue.checks.rendering import (
    Event,
    as_evaluations,
    state_check_results,
)
from datazone_dagster.dagster_glue.names import (
    FAILED_TAG,
    FAILURE_TAG,
    RETRIES_TAG,
    TURN_TAG,
    pool_name,
    source_job_name,
)
from datazone_dagster.dagster_glue.runs.held_slots import HeldSlots
from datazone_dagster.dagster_glue.runs.pools import limit_pools
from datazone_dagster.dagster_glue.runs.run_requests import waits_for_lookups
from datazone_dagster.dagster_glue.runs.staying_runs import stays, told_to_end
from datazone_dagster.dagster_glue.shared import Companions
from datazone_dagster.errors import DatazoneError, ExpectationError, StoreUnavailableError
from datazone_dagster.model import retries
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.retries import Retry
from datazone_dagster.model.turns import Turn, Turns
from datazone_dagster.pipeline.shared_log import SharedLog
from datazone_dagster.text import shown

AGAIN_SECONDS = 5.0
"""Interval at which a transform whose pool or lookups are not there is looked at again."""

AFTER_LOST_RACE_SECONDS = 30.0
"""Time for which a transform is left out after another run of it came first."""


def appliers_in(
    context: AssetExecutionContext, transform: Transform, companions: Companions
) -> list[Applier]:
    """Return the transforms of a run of all, in the order of its steps; none in other runs."""
    group, run = companions.group, context.run
    if group is None or run.job_name != source_job_name(transform.source):
        return []
    if run.job_name == transform.job_name:
        return []  # the transform is named so
    names = [node.name for node in context.job_def.nodes_in_topological_order]
    is_part = bool(run.asset_selection) or run.asset_check_selection is not None
    is_part = is_part or not set(names) <= set(run.step_keys_to_execute or names)
    if is_part or run.run_id in _led:
        return []  # each step applies its own transform
    appliers = [group.members[name].applier for name in names if name in group.members]
    return [one for one in appliers if one.shares_runs]


_led: set[str] = set()
"""Runs whose first step has worked for all: a step that is repeated applies its own transform."""

_handed = HandedSeats()
"""What the first steps have done for others."""


def handed_over(context: AssetExecutionContext, transform: Transform) -> Seat | None:
    """Return what another step of the run has done for a transform; None if none has."""
    return _handed.take(context.run.run_id, transform.name)


def lead(
    context: AssetExecutionContext,
    appliers: Sequence[Applier],
    own: LazyApply,
    layout: Layout,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> Generator[Event, None, Seat]:
    """Apply all transforms of the run, in turns; yield what is reported, return the own result.

    Those of the others are handed over to their steps, with the slots that the run has claimed for
    them: nothing comes between, and the run sends heartbeats until the last one has its own.
    """
    seats: dict[str, Seat] = {}
    for one in appliers:
        name = one.transform.name
        is_own = one.transform is own.transform
        ids = [dataset.id for dataset in one.transform.outputs.values()]
        seats[name] = Seat(own if is_own else apply_of_run(one, context, ids))
    limit_pools(context.instance, [pool_name(one.transform, one.keys.prefix) for one in appliers])
    slots = HeldSlots(context.instance, context.run.run_id)
    _led.add(context.run.run_id)
    run = _SourceRun(context, own.transform.name, seats, appliers[0], slots, layout, pause)
    with ExitStack() as ends:
        ends.callback(slots.free)
        ends.enter_context(heartbeats_of(appliers[0], context)())
        yield from run.events()
        others = {name: one for name, one in seats.items() if name not in run.skipped()}
        mine = others.pop(own.transform.name)
        if others:
            slots.free(but=others)
            _handed.hand_over(context.run.run_id, others, ends.pop_all().close)
    return mine


class _SourceRun:
    """The run, as the first step works for all."""

    def __init__(
        self,
        context: AssetExecutionContext,
        own: str,
        seats: Mapping[str, Seat],
        applier: Applier,
        slots: HeldSlots,
        layout: Layout,
        pause: Callable[[float], None],
    ) -> None:
        settings, self._clock = applier.settings, applier.clock
        self._context = context
        self._instance, self._run_id = context.instance, context.run.run_id
        self._own, self._seats = own, seats
        self._slots = slots
        self._layout = layout
        self._pause = pause
        self._shared = SharedLog.of(applier.transform.source, layout)
        self._stays = stays(context.run)
        pools = [one.lazy_apply.pool for one in seats.values()]
        self._told = told_to_end(self._instance, self._run_id, pools, self._clock)
        self._before = retries.from_json(context.run.tags.get(RETRIES_TAG))
        self._turns = Turns(
            sorted(seats, key=self._before.__contains__),  # what may kill the process comes last
            time.monotonic(),
            pause_seconds=self._shared.look_every_seconds,
            idle_seconds=settings.idle_seconds,
            longest_seconds=settings.max_run_minutes * 60,
        )
        self._failed: dict[str, Retry] = {}
        self._noted = ""

    def events(self) -> Iterator[Event]:
        """Apply until the run must end; yield what is reported meanwhile."""
        now, now_seconds = self._clock(), time.monotonic()
        for name, retry in self._before.items():
            if name in self._seats and retry.until > now:
                self._turns.rest(name, now_seconds + (retry.until - now).total_seconds())
                yield from self._repeated(self._seats[name])
        with self._shared.reading() if len(self._seats) > 1 else nullcontext():
            while (step := self._turns.next(time.monotonic())) is not None:
                if isinstance(step, str):
                    yield from self._turn(step, self._seats[step])
                elif self._must_end():
                    self._leave_out_what_rests()
                else:
                    self._note_turn("")
                    self._pause(step)
        self._note_turn("")
        yield from self._told_for_skipped_steps()

    def _must_end(self) -> bool:
        return self._stays and (self._told() or self._turns.must_end(time.monotonic()))

    def _leave_out_what_rests(self) -> None:
        for name in self._turns.left:
            if self._seats[name].turns is None:
                self._turns.is_over(name)

    def _note_turn(self, name: str) -> None:
        """Note whose first turn it is, for the run after one whose process dies."""
        if name == self._noted:
            return
        try:
            self._instance.add_run_tags(self._run_id, {TURN_TAG: name})
            self._noted = name
        except Exception as error:  # noqa: BLE001 - whatever the storage raises: it is a note only
            self._context.log.info("The turn of %s could not be noted: %s", name or "all", error)

    def _turn(self, name: str, seat: Seat) -> Iterator[Event]:
        """Give a transform its turn: one chunk, a look, or a report."""
        try:
            if seat.turns is None:
                if self._must_end():
                    self._turns.is_over(name)
                    return
                again_seconds = time.monotonic() + AGAIN_SECONDS
                has_slot = self._has_slot(seat)
                if not has_slot or (
                    self._stays and waits_for_lookups(seat.transform, self._layout)
                ):
                    self._turns.rest(name, again_seconds, counts=not has_slot)
                    yield from self._repeated(seat)
                    return
                must_end = self._must_end if self._stays else None
                seat.turns = seat.lazy_apply.turns(self._shared, self._context.log, must_end)
                self._note_turn(name)
            else:
                self._note_turn("")
            done = next(seat.turns)
        except StopIteration as end:
            seat.turns = None
            if end.value and self._stays:
                again_seconds = time.monotonic() + AFTER_LOST_RACE_SECONDS
                self._turns.rest(name, again_seconds, counts=True)
            else:
                self._turns.is_over(name)
        except Exception as error:  # noqa: BLE001 - whatever ended one transform, the others go on
            seat.error, seat.turns = error, None
            yield from self._fails(name, seat, error)
            self._turns.count_as_busy(time.monotonic())  # nobody had a turn meanwhile
        else:
            if isinstance(done, Turn):
                if done is Turn.WORKED:
                    self._recovers(name)
                self._turns.took(name, done, time.monotonic())
                return
            yield from self._events_of(seat, done)

    def _events_of(self, seat: Seat, so_far: Mapping[str, Applied]) -> Iterator[Event]:
        return events_so_far(so_far, seat.lazy_apply, seat.checks, self._instance)

    def _repeated(self, seat: Seat) -> Iterator[Event]:
        """Yield the last checks of a transform that waits, once."""
        if not seat.is_repeated:
            seat.is_repeated = True
            yield from last_events(seat.lazy_apply, self._instance)
            self._turns.count_as_busy(time.monotonic())  # nobody had a turn meanwhile

    def _has_slot(self, seat: Seat) -> bool:
        """Return whether no other run has the pool of a transform."""
        name = seat.transform.name  # that of its step as well
        return name == self._own or self._slots.claim(seat.lazy_apply.pool, name)

    def _fails(self, name: str, seat: Seat, error: Exception) -> Iterator[Event]:
        """Record a failure, at once; the run ends after the wait before the next attempt."""
        what = error.what if isinstance(error, DatazoneError) else str(error)
        text = shown(f"{type(error).__name__}: {what}")
        before = self._before.get(name)
        failures = 1 + (before.failures if before else 0)
        self._failed[name] = Retry(failures, self._clock(), text, self._run_id)
        self._turns.is_over(name)
        now_seconds = time.monotonic()
        self._turns.count_as_busy(now_seconds)
        self._turns.end_by(now_seconds + retries.wait_after(failures).total_seconds())
        self._instance.add_run_tags(
            self._run_id,
            {
                FAILURE_TAG: "; ".join(f"{key}: {one.error}" for key, one in self._failed.items()),
                FAILED_TAG: retries.to_json(self._failed),
            },
        )
        self._context.log.error("%s failed, the others go on. %s", name, error)
        yield from last_events(seat.lazy_apply, self._instance)
        if isinstance(error, StoreUnavailableError):
            return
        if isinstance(error, ExpectationError):
            lazy = seat.lazy_apply
            yield from as_evaluations(results_of_failure(lazy.datasets, error, lazy.keys))
        try:
            states = seat.lazy_apply.states(self._layout)
        except DatazoneError as unreadable:
            self._context.log.warning("The checks of %s can't be evaluated: %s", name, unreadable)
            return
        for dataset_id, state in states.items():
            key = seat.lazy_apply.keys.dataset(dataset_id)
            yield from as_evaluations(state_check_results(key, state))

    def _recovers(self, name: str) -> None:
        """Forget the failures of a transform that has applied a chunk."""
        if self._before.pop(name, None) is not None:
            tags = {RETRIES_TAG: retries.to_json(self._before)}
            self._instance.add_run_tags(self._run_id, tags)

    def _told_for_skipped_steps(self) -> Iterator[Event]:
        """Yield the reports whose steps Dagster skips, as those of their lookups fail or wait."""
        for name in self.skipped():
            seat = self._seats[name]
            if not seat.lazy_apply.done and seat.error is None:
                yield from self._repeated(seat)
            yield from self._events_of(seat, seat.lazy_apply.done)

    def skipped(self) -> list[str]:
        """Return the transforms whose steps Dagster skips, in the order of the steps."""
        absent: set[str] = set()
        found = []
        for name, seat in self._seats.items():
            is_skipped = any(one.id in absent for one in seat.transform.lookups.values())
            if is_skipped:
                found.append(name)
            if is_skipped or seat.error is not None or not seat.lazy_apply.done:
                absent |= {one.id for one in seat.transform.outputs.values()}
        return found
