"""Limits of a container, read from files as the kernel writes them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from datazone_dagster.apply.chunk_size import ApplySettings, ChunkSizes
from datazone_dagster.database.database import Database
from datazone_dagster.drain.process_state import load_state
from datazone_dagster.drain.settings import DrainSettings
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.memory_budget import memory_budget
from datazone_dagster.process import container
from datazone_dagster.process.container import container_cores, container_memory_bytes
from datazone_dagster.rows.kept_indexes import KEPT_INDEXES, MOST_BYTES
from datazone_dagster.testing import ScriptedStream

MIB = 1 << 20
UNLIMITED = "9223372036854771712"


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write a file system with these cgroups of the process."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", "utf-8")
    return root


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/", {"sys/fs/cgroup/memory.max": str(512 * MIB)}, 512 * MIB),
        ("0::/", {"sys/fs/cgroup/memory.max": "max"}, None),
        ("0::/", {}, None),
        ("", {}, None),
        (  # a pod: the limit is on an outer group
            "0::/kubepods/pod1/app",
            {
                "sys/fs/cgroup/kubepods/pod1/app/memory.max": "max",
                "sys/fs/cgroup/kubepods/pod1/memory.max": str(256 * MIB),
                "sys/fs/cgroup/kubepods/memory.max": str(900 * MIB),
            },
            256 * MIB,
        ),
        (  # version 1 in Docker: the path is one of the host, and not there
            "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc",
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": str(300 * MIB)},
            300 * MIB,
        ),
        (  # a name that is not ASCII
            "0::/user.slice/größe",
            {"sys/fs/cgroup/user.slice/größe/memory.max": str(100 * MIB)},
            100 * MIB,
        ),
        ("0::/../../outside", {"sys/fs/cgroup/memory.max": str(100 * MIB)}, 100 * MIB),
    ],
)
def test_the_memory_limit_of_a_container(
    groups: str, files: dict[str, str], limit: int | None, tmp_path: Path
) -> None:
    assert container_memory_bytes(system(tmp_path, groups, files)) == limit


def test_a_system_that_does_not_say_its_memory_sets_no_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sysconf", lambda _name: -1)
    monkeypatch.setattr(container, "container_memory_bytes", lambda: None)
    assert container.memory_limit_bytes.__wrapped__() is None


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/", {"sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        (
            "3:cpu,cpuacct:/docker/abc",
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        (
            "3:cpu,cpuacct:/",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ("", {}, None),
    ],
)
def test_the_cpu_quota_of_a_container(
    groups: str, files: dict[str, str], cores: float | None, tmp_path: Path
) -> None:
    assert container_cores(system(tmp_path, groups, files)) == cores


@pytest.mark.parametrize(
    ("given", "limit", "budget", "texts"),
    [
        (None, None, 1024, ()),
        (None, 4096, 1024, ()),
        (None, 512, 256, ("has 512 MiB", "256 MiB, instead of 1,024 MiB")),
        (400, 512, 400, ()),
        (1024, 512, 1024, ("is 1,024 MiB", "has 512 MiB", "may kill the process")),
    ],
)
def test_a_default_takes_half_of_the_limit_and_a_given_budget_is_kept(
    given: int | None, limit: int | None, budget: int, texts: tuple[str, ...]
) -> None:
    found = memory_budget(
        "ApplySettings(memory_budget=...)",
        given and given * MIB,
        1024 * MIB,
        limit and limit * MIB,
    )
    assert found.bytes == budget * MIB
    assert bool(found.note) == bool(texts)
    assert all(text in found.note for text in texts)
    assert found.is_too_large == ("may kill the process" in found.note)


@pytest.fixture
def in_512_mib(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(container, "memory_limit_bytes", lambda: 512 * MIB)
    monkeypatch.setattr(container, "usable_cores", lambda: 1)
    monkeypatch.setattr(container, "_reported", set())
    monkeypatch.setattr("datazone_dagster.apply.chunk_size.release_memory_at_once", lambda: None)
    threads = pa.cpu_count()
    yield
    pa.set_cpu_count(threads)
    KEPT_INDEXES.limit(MOST_BYTES)


def test_runs_and_drains_keep_to_half_of_the_container(
    in_512_mib: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert DrainSettings().memory.bytes == 256 * MIB
    caplog.set_level(logging.INFO)
    sizes = ChunkSizes(ApplySettings())
    assert sizes.available_bytes() < 256 * MIB
    assert sizes.frame_memory_bytes <= 256 * MIB
    ChunkSizes(ApplySettings())
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "instead of 1,024 MiB" in caplog.text


def test_a_budget_above_the_limit_is_warned_of(
    in_512_mib: None, caplog: pytest.LogCaptureFixture
) -> None:
    ChunkSizes(ApplySettings(memory_budget=1 << 30))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "ApplySettings(memory_budget=...) is 1,024 MiB" in caplog.text


def test_duckdb_keeps_to_the_container(in_512_mib: None) -> None:
    database = Database(2 << 30, None)
    settings = "select current_setting('memory_limit'), current_setting('threads')"
    assert database.connection.execute(settings).fetchone() == ("256.0 MiB", 1)
    database.close()


@pytest.mark.parametrize(
    "begin", [ChunkSizes, lambda _: load_state(ScriptedStream("t"), DrainSettings())]
)
def test_arrow_keeps_to_the_quota_and_to_fewer_threads(
    in_512_mib: None, monkeypatch: pytest.MonkeyPatch, begin: Callable[[ApplySettings], object]
) -> None:
    pa.set_cpu_count(7)
    monkeypatch.setattr(container, "usable_cores", lambda: 3)
    begin(ApplySettings())
    assert pa.cpu_count() == 3
    monkeypatch.setattr(container, "usable_cores", lambda: 5)
    begin(ApplySettings())
    assert pa.cpu_count() == 3


@pytest.mark.parametrize("settings", [ApplySettings, DrainSettings])
@pytest.mark.parametrize("budget", ["512MB", 0, True, 0.5])
def test_a_budget_that_is_no_number_of_bytes_is_refused(
    settings: type[ApplySettings] | type[DrainSettings], budget: int
) -> None:
    with pytest.raises(DefinitionError, match="Write memory_budget=512 << 20"):
        settings(memory_budget=budget)
