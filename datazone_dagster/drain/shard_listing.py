"""Listing of the shards of one stream, in parts: the calls that `listing_policy` decides on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from datazone_dagster.drain.listing_policy import (
    CALLS_IN_A_WINDOW,
    CHILD_CALLS,
    WINDOW_SECONDS,
    Questions,
    after_asking,
    childless_shards,
    due,
    still_open,
    unknown_parents,
)
from datazone_dagster.drain.shard_view import (
    ShardView,
    first_view,
    with_children,
    with_ends,
    with_newer,
    with_page,
    without_round,
)
from datazone_dagster.errors import (
    ServiceUnavailableError,
    ShardNotFoundError,
    SourceError,
    ThrottledError,
)
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.protocols import ListsInParts
from datazone_dagster.model.shard import ShardPage, service_arn

LONGEST_SILENCE_SECONDS = 60.0
"""Time without an answer after which a listing that fails ends the drain."""


@dataclass(frozen=True, slots=True)
class Hurry:
    """Questions that the present round answers when it ends.

    Args:
        children: Shards whose children are looked for.
        parents: Parents that are looked for.
        unknown: Shards that the service did not know when others read them.
    """

    children: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListingState:
    """What a process knows of a listing.

    Args:
        view: The shards.
        childless: Questions for children.
        parents: Questions for parents.
        unknown: Questions for shards that the service did not know when others read them.
        hurry: What the present round is in a hurry for; None: it is in none.
        is_doubted: Whether a read has contradicted the listing.
        can_filter: Whether children can be asked for by themselves.
        window_at_seconds: Start of the present window, on the monotonic clock.
        calls: Number of calls in it.
        answered_at_seconds: Time of the last answer.
    """

    view: ShardView
    childless: Questions = field(default_factory=dict)
    parents: Questions = field(default_factory=dict)
    unknown: Questions = field(default_factory=dict)
    hurry: Hurry | None = None
    is_doubted: bool = False
    can_filter: bool = True
    window_at_seconds: float = float("-inf")
    calls: int = 0
    answered_at_seconds: float = float("-inf")

    @property
    def is_small(self) -> bool:
        """Whether one page has all shards."""
        return self.view.listed_at is not None and self.view.pages <= 1

    @property
    def calls_left(self) -> int:
        """Number of calls that the present window has left."""
        return CALLS_IN_A_WINDOW - self.calls


class ShardListing:
    """One look at the shards of a stream.

    Args:
        client: Client of the stream.
        stream_arn: Our name of the stream.
        checkpoint: Checkpoint of everything landed so far.
        state: What is known; None for a process that has not listed the stream yet.
        now: Start of the drain by the clock of the service.
        seconds: Time on the monotonic clock.
        logger: Logger of warnings.
        unknown_shards: Shards that the service did not know when others read them.
    """

    def __init__(
        self,
        client: ListsInParts,
        stream_arn: str,
        checkpoint: Checkpoint,
        state: ListingState | None,
        *,
        now: datetime,
        seconds: float,
        logger: logging.Logger,
        unknown_shards: Collection[str] = (),
    ) -> None:
        self._client = client
        self._stream_arn = stream_arn
        self._checkpoint = checkpoint
        self._now = now
        self._seconds = seconds
        self._logger = logger
        self._unknown_shards = unknown_shards
        self._is_known = bool(checkpoint.of_stream(stream_arn))
        self.state = state or ListingState(first_view(stream_arn, checkpoint))

    @property
    def is_usable(self) -> bool:
        """Whether a drain can go by it: the first listing of a stream has to be whole."""
        return self._is_known or self.state.view.listed_at is not None

    def look(self) -> None:
        """Ask for the parts that are due. What is known by an error stays in `state`.

        Raises:
            ShardNotFoundError: The service does not know the stream.
            SourceError: The stream can't be listed.
        """
        new_window = self._seconds - self.state.window_at_seconds >= WINDOW_SECONDS
        if new_window:
            self.state = replace(self.state, window_at_seconds=self._seconds, calls=0)
        try:
            self._look(new_window)
        except (ThrottledError, ServiceUnavailableError) as error:
            silent_seconds = self._seconds - self.state.answered_at_seconds
            if (
                self.state.is_small
                or not self._is_known
                or silent_seconds > LONGEST_SILENCE_SECONDS
            ):
                raise
            self._logger.info("Shards are read as they were listed before: %s", error)
        self._took(with_ends(self.state.view, self._checkpoint))

    def _look(self, new_window: bool) -> None:
        state = self.state
        if state.is_small:
            self._list_pages(CALLS_IN_A_WINDOW)
            return
        self._took(with_ends(state.view, self._checkpoint))
        is_first = state.view.listed_at is None and state.view.round is None
        wanted = Hurry()
        if not is_first:
            wanted = Hurry(self._find_children(), self._find_parents(), self._find_unknown())
        state = self.state
        must_hurry = state.view.listed_at is None or state.is_doubted or wanted != Hurry()
        if must_hurry and state.hurry is None:
            view = without_round(state.view)
            self.state = replace(state, view=view, hurry=wanted, is_doubted=False)
        if must_hurry or state.hurry is not None:
            self._list_pages(self.state.calls_left)
        elif new_window:
            self._list_pages(1)

    def _find_children(self) -> tuple[str, ...]:
        """Ask for the children of ended shards; return the shards that only a round can answer."""
        names = self._due_for_children()
        if self.state.can_filter and len(names) <= CHILD_CALLS:
            self._ask_one_by_one(names[: self.state.calls_left])
            if self.state.can_filter:
                return ()
        if names and self.state.calls_left > 0:
            self._list_newest()
            childless = childless_shards(self.state.view, self._checkpoint)
            self._asked_for_children(set(names).difference(childless))
        return tuple(self._due_for_children())

    def _due_for_children(self) -> list[str]:
        state = self.state
        names = childless_shards(state.view, self._checkpoint)
        self.state = replace(state, childless=still_open(state.childless, names, confirmed=True))
        again = state.view.stream.enabled
        return due(self.state.childless, names, self._seconds, again=again)

    def _find_parents(self) -> tuple[str, ...]:
        names = unknown_parents(self.state.view, self._checkpoint)
        self.state = replace(self.state, parents=still_open(self.state.parents, names))
        return tuple(due(self.state.parents, names, self._seconds))

    def _find_unknown(self) -> tuple[str, ...]:
        shards = self.state.view.shards
        names = [one for one in self._unknown_shards if one in shards and shards[one].is_open]
        self.state = replace(self.state, unknown=still_open(self.state.unknown, names))
        return tuple(due(self.state.unknown, names, self._seconds))

    def _ask_one_by_one(self, names: Iterable[str]) -> None:
        arn = service_arn(self._stream_arn)
        for name in names:
            self._count()
            try:
                found = self._client.children(arn, name)
            except ShardNotFoundError:  # it is gone; if the stream is, its pages will say so
                found = ()
            self._answered()
            if found is None:
                self._logger.warning(
                    "The endpoint of %s can't list the children of one shard (ShardFilter of "
                    "DescribeStream): all pages are listed when a shard ends, %d calls at a "
                    "time. Nothing is lost; new shards of a large stream are found later.",
                    self._stream_arn,
                    CALLS_IN_A_WINDOW,
                )
                self.state = replace(self.state, can_filter=False)
                return
            self._took(with_children(self.state.view, found))
            self._asked_for_children([name])

    def _asked_for_children(self, names: Iterable[str]) -> None:
        asked = after_asking(self.state.childless, names, self._seconds)
        self.state = replace(self.state, childless=asked)

    def _list_newest(self) -> None:
        """List the shards after the newest one; a hint, as nobody promises their order."""
        while self.state.calls_left > 0:
            newest = self.state.view.newest
            try:
                page = self._page(newest)
            except SourceError as error:
                if not _may_be_the_position(error):
                    raise
                return
            self._took(with_newer(self.state.view, page, self._checkpoint))
            if page.last is None or self.state.view.newest == newest:
                return

    def _list_pages(self, calls: int) -> None:
        """List further pages of a round, until it ends."""
        for _ in range(calls):
            going_on = self.state.view.round
            last = None if going_on is None else going_on.last
            try:
                page = self._page(last)
            except SourceError as error:
                if last is None or not _may_be_the_position(error):
                    raise
                self._took(without_round(self.state.view))  # the shard has gone meanwhile
                continue
            if going_on is not None and page.last in going_on.lasts:
                raise self._endless()
            self._took(with_page(self.state.view, page, self._checkpoint, self._now))
            if self.state.view.round is None:
                self._end_of_round()
                return

    def _end_of_round(self) -> None:
        state, hurry = self.state, self.state.hurry
        if hurry is not None:
            self.state = replace(
                state,
                hurry=None,
                childless=after_asking(state.childless, hurry.children, self._seconds),
                parents=after_asking(state.parents, hurry.parents, self._seconds),
                unknown=after_asking(state.unknown, hurry.unknown, self._seconds),
            )

    def _page(self, after: str | None) -> ShardPage:
        self._count()
        page = self._client.describe_page(service_arn(self._stream_arn), after)
        self._answered()
        # A stream that was made again under its ARN has a name of its own in our tables.
        return replace(page, stream=replace(page.stream, stream_arn=self._stream_arn))

    def _endless(self) -> ServiceUnavailableError:
        self._took(without_round(self.state.view))
        return ServiceUnavailableError(
            f"DescribeStream of {service_arn(self._stream_arn)}: the service returns the same page "
            "again and again.",
            safe="No position moved: the next drain tries again.",
            hint="Check the endpoint URL: an emulator may not page as DynamoDB does.",
        )

    def _count(self) -> None:
        self.state = replace(self.state, calls=self.state.calls + 1)

    def _answered(self) -> None:
        self.state = replace(self.state, answered_at_seconds=self._seconds)

    def _took(self, view: ShardView) -> None:
        self.state = replace(self.state, view=view)


def _may_be_the_position(error: SourceError) -> bool:
    """Return whether a page may have failed because the shard before it is gone by now."""
    return isinstance(error, ShardNotFoundError) or type(error) is SourceError
