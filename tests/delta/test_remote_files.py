"""The files of an object store that a process retains."""

from __future__ import annotations

import pyarrow as pa

from datazone_dagster.delta.remote_files import SMALL_BYTES, FileCache


def test_the_least_recently_used_files_go_first() -> None:
    cache = FileCache(most_bytes=250)
    contents = {name: pa.py_buffer(name.encode() * 100) for name in "abc"}
    cache.put("t", "a", contents["a"])
    cache.put("t", "b", contents["b"])
    assert cache.get("t", "a") == contents["a"]
    cache.put("t", "c", contents["c"])
    cache.put("t", "c", contents["c"])
    assert [cache.get("t", name) for name in "abc"] == [contents["a"], None, contents["c"]]
    assert cache.get("other", "a") is None
    cache.remove("t", "a")
    assert cache.get("t", "a") is None


def test_a_large_file_is_not_retained() -> None:
    cache = FileCache()
    cache.put("t", "a", pa.py_buffer(b"x" * (SMALL_BYTES + 1)))
    assert cache.get("t", "a") is None
