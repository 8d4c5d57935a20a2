"""The key filter passes every key, and rejects most other texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.rows.key_filter import KeyFilter

TEXTS = st.lists(
    st.text("ab\u20ac", max_size=20) | st.sampled_from(["k" * 70, "k" * 70 + "z", "z" + "k" * 70])
)


@settings(deadline=None)
@given(keys=TEXTS.filter(bool), others=TEXTS, cut=st.integers(0, 3))
def test_every_key_passes(keys: list[str], others: list[str], cut: int) -> None:
    texts = [*others, *keys]
    column = pa.array(texts, pa.string()).slice(cut)
    passing = set(KeyFilter(pa.array(keys)).passing(column).tolist())
    assert {at for at, text in enumerate(texts[cut:]) if text in set(keys)} <= passing


def test_few_others_pass_wherever_keys_differ() -> None:
    digits = [f"{n * 7919:08d}" for n in range(2000)]
    for form in ("2:idS8:{}", "2:idS8:{}2:skS7:PROFILE", "tenant-0001/{}/orders/open"):
        keys = pa.array([form.format(one) for one in digits[::2]])
        others = pa.array([form.format(one) for one in digits[1::2]])
        assert len(KeyFilter(keys).passing(others)) < 300, form
        assert len(KeyFilter(keys).passing(keys)) == len(keys)


def test_empty_and_short_texts_pass() -> None:
    key_filter = KeyFilter(pa.array(["2:idS8:00000001"]))
    for empty in (pa.array([], pa.string()), pa.array(["", None], pa.string())):
        assert key_filter.passing(empty).tolist() == list(range(len(empty)))
    assert np.array_equal(key_filter.passing(pa.array(["2:idS8:00000001", "x"])), [0, 1])
