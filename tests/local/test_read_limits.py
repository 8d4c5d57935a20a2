from __future__ import annotations

from datazone_dagster.local.read_limits import ReadLimits


def _taken(limits: ReadLimits, seconds: int, units: float) -> float:
    """Ask 100 times a second for this long; return the units that were let in."""
    times = (tick / 100 for tick in range(seconds * 100))
    return sum(units for now in times if limits.spend(1, 500.0, units, now))


def test_the_rate_holds_for_small_and_for_large_reads() -> None:
    for units in (0.5, 3.0, 128.0, 700.0):
        taken = _taken(ReadLimits(), 100, units)
        most = min(100 * 100 * units, 500.0 * 101)
        assert 0.97 * most <= taken <= most + units


def test_tables_are_on_their_own_and_clocks_may_go_back() -> None:
    limits = ReadLimits()
    assert limits.spend(1, 10.0, 10.0, 100.0)
    assert not limits.spend(1, 10.0, 1.0, 100.0)
    assert limits.spend(2, 10.0, 10.0, 100.0)
    assert not limits.spend(1, 10.0, 1.0, 50.0)
    assert limits.spend(1, 10.0, 1.0, 50.1)
    limits.clear()
    assert limits.spend(1, 10.0, 10.0, 50.1)
