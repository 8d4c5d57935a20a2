"""A server that is not fit for exactly once is refused; and what is said without the extra."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from datazone_dagster import SparkEngine
from datazone_dagster.errors import DefinitionError, SparkError
from datazone_dagster.model.layout import Layout
from datazone_dagster.spark.probe_server import require_fit, require_folders
from datazone_dagster.spark.spark_server import APP_ID, APP_VERSION, ConnectServer

Settings = Mapping[str, str] | None
Append = Callable[[Path, Settings], None]


def ignoring(table: Path, settings: Settings) -> None:
    write_deltalake(table, pa.table({"key": ["a"]}), mode="append")


def doing_nothing(table: Path, settings: Settings) -> None:
    pass


def forgetting(table: Path, settings: Settings) -> None:
    """Skip the second commit by something else than the table's log."""
    if not DeltaTable(table).file_uris():
        ignoring(table, settings)


def keeping(table: Path, settings: Settings) -> None:
    assert settings is not None
    app_id, version = settings[APP_ID], int(settings[APP_VERSION])
    if (DeltaTable(table).transaction_version(app_id) or 0) < version:
        write_deltalake(
            table,
            pa.table({"key": ["a"]}),
            mode="append",
            commit_properties=CommitProperties(app_transactions=[Transaction(app_id, version)]),
        )


class Fake:
    """A server that knows one statement: the MERGE of the probe."""

    def __init__(self, lakehouse: Path, merge: Append) -> None:
        self._lakehouse = lakehouse
        self._merge = merge
        self.merges = 0

    def run(self, statement: str, settings: Settings = None) -> pa.Table:
        (table,) = (self._lakehouse / "_spark_probe").iterdir()
        assert f"MERGE INTO delta.`{table}`" in statement
        self.merges += 1
        self._merge(table, settings)
        return pa.table({})


@pytest.mark.parametrize(
    ("merge", "reason"),
    [
        (ignoring, "landed 2 times"),
        (doing_nothing, "does not write to this lakehouse"),
        (forgetting, "does not record the transaction"),
    ],
)
def test_an_engine_without_transactions_is_refused(
    tmp_path: Path, merge: Append, reason: str
) -> None:
    engine = SparkEngine(f"sc://{merge.__name__.replace('_', '-')}")
    fake = Fake(tmp_path, merge)
    for _ in range(2):  # a refusal is not remembered
        with pytest.raises(SparkError, match=reason) as refused:
            require_fit(fake, engine, Layout(str(tmp_path)), str)
    assert engine.address in str(refused.value)
    assert "Delta Lake 4" in str(refused.value)
    assert not list((tmp_path / "_spark_probe").iterdir())


def test_one_that_keeps_them_is_probed_once(tmp_path: Path) -> None:
    fake = Fake(tmp_path, keeping)
    for _ in range(2):
        require_fit(fake, SparkEngine("sc://keeping"), Layout(str(tmp_path)), str)
    assert fake.merges == 2


def test_each_location_of_a_lakehouse_is_probed(tmp_path: Path) -> None:
    """The same server may reach the lakehouse by one name, and something else by another one."""
    right = SparkEngine("sc://locations", lakehouse=str(tmp_path))
    require_fit(Fake(tmp_path, keeping), right, Layout(str(tmp_path)), str)
    wrong = SparkEngine("sc://locations", lakehouse="/mnt/copy")
    with pytest.raises(SparkError, match="does not write to this lakehouse"):
        require_fit(Fake(tmp_path, doing_nothing), wrong, Layout(str(tmp_path)), str)


class NamesFolders:
    """A server that inserts the probe's row into a partition."""

    def __init__(self, lakehouse: Path, *, unicode: bool) -> None:
        self._lakehouse = lakehouse
        self._unicode = unicode
        self.inserts = 0

    def run(self, statement: str, settings: Settings = None) -> pa.Table:
        self.inserts += 1
        (table,) = (self._lakehouse / "_spark_probe").iterdir()
        value = statement.rpartition("('a', '")[2].removesuffix("')")
        write_deltalake(table, pa.table({"key": ["a"], "part": [value]}), mode="append")
        if not self._unicode:
            (folder,) = table.glob("part=*")
            folder.rename(table / "part=?")
        return pa.table({})


def test_a_server_whose_locale_has_no_unicode_writes_no_partitions(tmp_path: Path) -> None:
    server, engine = NamesFolders(tmp_path, unicode=False), SparkEngine("sc://posix")
    for _ in range(2):  # a refusal is not remembered
        with pytest.raises(SparkError, match=r"names the folder .* LC_ALL=C.UTF-8"):
            require_folders(server, engine, Layout(str(tmp_path)), str)
    assert server.inserts == 2
    assert not list((tmp_path / "_spark_probe").iterdir())


def test_one_whose_locale_has_is_probed_once(tmp_path: Path) -> None:
    server = NamesFolders(tmp_path, unicode=True)
    for _ in range(2):
        require_folders(server, SparkEngine("sc://unicode"), Layout(str(tmp_path)), str)
    assert server.inserts == 1


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    with pytest.raises(DefinitionError, match=r"datazone-dagster\[spark\]"):
        ConnectServer(SparkEngine("sc://127.0.0.1:1"))
