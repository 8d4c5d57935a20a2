from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa

from datazone_dagster.items.key_slots import slots_of
from datazone_dagster.rows.key_hash import slots_of_keys


def test_slots_never_change() -> None:
    keys = ['{"id":{"S":"a"}}', '{"id":{"S":"order-00000001"}}', '{"a":{"N":"1"},"b":{"S":"é"}}']
    assert slots_of(pa.array(keys)).tolist() == SLOTS_OF_THESE


SLOTS_OF_THESE = [194, 117, 224]


def test_texts_of_one_key_have_one_slot() -> None:
    texts = ['{"n":{"N":"1"}}', '{"n":{"N":"1.0"}}', '{ "n" : {"N":"1E0"} }']
    assert len(set(slots_of(pa.array(texts)).tolist())) == 1


def test_a_record_without_a_key_is_in_slot_0() -> None:
    assert slots_of(pa.array([None, "{", '{"id":{"S":"a"}}'])).tolist()[:2] == [0, 0]
    assert slots_of(pa.array([], pa.string())).tolist() == []


def test_slots_do_not_depend_on_the_other_rows() -> None:
    keys = pa.array([f"2:idS{len(str(at))}:{at}" for at in range(1000)])
    whole = slots_of_keys(keys)
    pieces = [slots_of_keys(keys.slice(start, 7)) for start in range(0, 1000, 7)]
    assert np.concatenate(pieces).tolist() == whole.tolist()
    counts = np.bincount(whole // 16, minlength=16)
    assert counts.min() > 30
    assert counts.max() < 100


def test_memory_does_not_grow_with_the_keys() -> None:
    keys = pa.array([f"2:idS10:{at:010d}" for at in range(100_000)])
    tracemalloc.start()
    try:
        slots_of_keys(keys)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 << 20
