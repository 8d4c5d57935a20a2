"""The cursor: a round trip keeps its hints, and any malformed text is accepted."""

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.dagster_glue.sensors.cursor import MAX_BYTES, SensorCursor
from datazone_dagster.observe.level import Level

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)
times = st.none() | st.datetimes(
    datetime(2020, 1, 1), datetime(2026, 2, 28), timezones=st.just(timezone.utc)
).map(lambda time: time.replace(microsecond=0))
levels = st.dictionaries(st.text(min_size=1, max_size=20), st.sampled_from(Level), max_size=80)


@given(times, times, levels, st.booleans())
def test_round_trip_within_a_kilobyte(
    caught_up_at: datetime | None,
    evaluated_at: datetime | None,
    found: dict[str, Level],
    never_read: bool,
) -> None:
    cursor = SensorCursor(caught_up_at, evaluated_at, found, never_read)
    text = cursor.to_json()
    assert len(text.encode()) <= MAX_BYTES
    read = SensorCursor.parse(text, now=NOW)
    assert (read.caught_up_at, read.evaluated_at) == (caught_up_at, evaluated_at)
    assert read.never_read is never_read
    if read.levels is not None:
        assert all(not read.has_changed(check, level) for check, level in found.items())
    else:
        assert len(found) > 10


@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_garbage_is_accepted(garbage: object) -> None:
    SensorCursor.parse(str(garbage), now=NOW)


def test_every_field_is_checked_on_its_own() -> None:
    text = '{"v":2,"caught_up":"x","evaluated":1e400,"levels":{"a":"warn","b":[],"c":"?"}}'
    assert SensorCursor.parse(text, now=NOW) == SensorCursor(None, None, {"a": Level.WARN})


def test_a_time_in_the_future_is_ignored() -> None:
    later = SensorCursor(NOW + timedelta(hours=1), NOW + timedelta(hours=1)).to_json()
    assert SensorCursor.parse(later, now=NOW) == SensorCursor()


def test_levels_that_do_not_fit_are_unknown_not_passed() -> None:
    many = SensorCursor(levels={f"dataset_{n}": Level.ERROR for n in range(200)})
    read = SensorCursor.parse(many.to_json(), now=NOW)
    assert read.levels is None
    assert not read.has_changed("dataset_1", Level.ERROR)
