"""The comparison of one key, against every order of writes, drains, runs and looks."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.audit.verdict import NO_ROWS, Fingerprint, Look, Verdict, verdict

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["drain", "apply"]), st.just(0)),
    ),
    max_size=12,
)
PLANTED = st.one_of(st.none(), st.integers(0, 3))


@dataclass
class Key:
    """One key: its writes, what is landed of them, what is applied, and a foreign row over it."""

    writes: list[int] = field(default_factory=lambda: [0])
    landed: int = 1
    applied: int = 1
    foreign: int | None = None

    def take(self, name: str, value: int) -> None:
        if name == "write":
            self.writes.append(value)
        elif name == "drain":
            self.landed = len(self.writes)
        elif self.applied < self.landed:
            self.applied, self.foreign = self.landed, None

    @property
    def shown(self) -> int:
        return self.writes[self.applied - 1] if self.foreign is None else self.foreign


def rows(value: int) -> Fingerprint:
    """Return what a dataset shows of an item; 0: there is none."""
    return Fingerprint(1, value) if value else NO_ROWS


@given(before=STEPS, between=STEPS, planted=PLANTED)
def test_only_planted_differences_are_reported(
    before: list[tuple[str, int]], between: list[tuple[str, int]], planted: int | None
) -> None:
    key = Key()
    for step in before:
        key.take(*step)
    key.foreign = planted
    head = key.landed
    item = key.writes[-1]
    looked_at = len(key.writes)
    for step in between:
        key.take(*step)
    key.landed = max(key.landed, looked_at)  # the drain has passed the look,
    if key.applied < key.landed:  # and the dataset has applied it
        key.take("apply", 0)
    moved = key.applied > head
    landed = rows(key.writes[key.applied - 1]) if moved else None
    found = verdict(Look(rows(item), rows(key.shown), moved, landed))

    is_wrong = key.foreign is not None and key.foreign != key.writes[key.applied - 1]
    if not is_wrong:
        assert found is Verdict.SAME
    elif not moved:
        assert found in (Verdict.MISSING, Verdict.EXTRA, Verdict.STALE)
        assert (found is Verdict.MISSING) == (key.shown == 0)
        assert (found is Verdict.EXTRA) == (item == 0)
    else:
        assert found in (Verdict.AGAIN, Verdict.SAME)


def test_an_item_that_the_function_refuses_is_no_difference() -> None:
    assert verdict(Look(None, Fingerprint(1, 5))) is Verdict.REFUSED
