"""Storage of a Dagster instance that a benchmark measures: SQLite, or a Postgres of its own.

Sizes are those of the database: pages of the SQLite files, `pg_database_size` of Postgres.
"""

from __future__ import annotations

import glob
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datazone_dagster import dagster_yaml
from datazone_dagster.demo.servers import free_port

TABLES = ("event_logs", "asset_check_executions", "job_ticks", "runs", "run_tags")


class UnavailableError(Exception):
    """The storage can't be had on this machine."""


class SqliteStorage:
    """The default of Dagster: files in its home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.yaml = dagster_yaml()

    def size_bytes(self) -> int:
        return sum(size for _, size in self._databases())

    def rows(self) -> Counter[str]:
        """Rows by table, over all files."""
        found: Counter[str] = Counter()
        for path, _ in self._databases():
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
                names = {row[0] for row in database.execute("select name from sqlite_master")}
                for table in names & set(TABLES):
                    found[table] += database.execute(f"select count(*) from {table}").fetchone()[0]
        return found

    def _databases(self) -> Iterator[tuple[Path, int]]:
        for path in self._home.rglob("*.db"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
                pages = database.execute("pragma page_count").fetchone()[0]
                yield path, pages * database.execute("pragma page_size").fetchone()[0]


class PostgresStorage:
    """A Postgres server of this benchmark, without a password, on 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._url = f"postgresql://dagster@127.0.0.1:{port}/postgres"
        url = self._url.replace(
            "postgresql:", "postgresql+psycopg2:"
        )  # the driver of dagster-postgres
        self.yaml = f'{dagster_yaml()}\nstorage:\n  postgres:\n    postgres_url: "{url}"\n'

    def size_bytes(self) -> int:
        return int(self._one("select pg_database_size('postgres')"))

    def rows(self) -> Counter[str]:
        return Counter({table: int(self._one(f"select count(*) from {table}")) for table in TABLES})

    def _one(self, query: str) -> Any:
        psycopg2 = import_module("psycopg2")  # it comes with dagster-postgres

        with closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            [value] = cursor.fetchone()
            return value


Storage = SqliteStorage | PostgresStorage


@contextmanager
def storage_of(kind: str, home: Path) -> Iterator[Storage]:
    """Yield the storage; a Postgres runs until the block ends.

    Raises:
        UnavailableError: There is no Postgres, or no `dagster-postgres`, on this machine.
    """
    if kind == "sqlite":
        yield SqliteStorage(home)
        return
    if find_spec("dagster_postgres") is None:
        raise UnavailableError("dagster-postgres is not installed: pip install dagster-postgres")
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    if initdb is None:
        raise UnavailableError("there is no Postgres here: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="bench-pg-") as folder:
        yield from _running(Path(initdb).parent, Path(folder))


def _running(programs: Path, folder: Path) -> Iterator[PostgresStorage]:
    data, port = folder / "data", free_port(15432)
    as_user: list[str] = []
    if os.getuid() == 0:  # Postgres does not run as root
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"

    def call(program: str, *arguments: str) -> None:
        command = [*as_user, str(programs / program), "-D", str(data), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)

    call("initdb", "-U", "dagster", "-A", "trust")
    call("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield PostgresStorage(port)
    finally:
        call("pg_ctl", "-w", "-m", "immediate", "stop")
