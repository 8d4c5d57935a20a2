"""Output formats of a frame, and the limits of its database."""

from __future__ import annotations

import gc
from pathlib import Path
from threading import Thread

import duckdb
import pyarrow as pa
import pytest

from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.query_session import MalformedImageError
from datazone_dagster.items.images import image_failures
from datazone_dagster.model.column_names import HIDDEN
from tests.frame.chunks import chunk

ITEM = {"id": {"S": "1"}, "n": {"N": "9007199254740993"}}


def selected() -> Frame:
    changes = chunk((ITEM, None), (None, ITEM))
    return Frame.of_changes(changes).select("dynamodb.NewImage.n.N::bigint as n")


def test_every_output_has_the_hidden_columns() -> None:
    frame = selected()
    names = ["n", *HIDDEN]
    assert frame.columns == ["n"]
    assert frame.arrow().column_names == names
    assert frame.pl().columns == names
    assert list(frame.df().columns) == names
    assert pa.table(frame).column_names == names
    assert frame.pl()["n"].to_list() == [9007199254740993, None]
    assert frame.df()["n"].tolist()[0] == 9007199254740993  # not through a float


def test_duckdb_reads_a_frame_of_ours() -> None:
    connection = duckdb.connect()
    connection.register("orders", pa.table(selected()))
    rows = connection.execute("select n from orders where n is not null").fetchall()
    assert rows == [(9007199254740993,)]


def test_repr_names_columns_and_how_to_read() -> None:
    shown = repr(Frame.of_changes(chunk((ITEM, None))))
    assert shown.startswith("<Frame of eventID: varchar, eventName: varchar")
    assert "dynamodb: record" in shown
    assert "_dz_" not in shown


def test_an_image_that_is_not_json_is_found_when_it_is_read() -> None:
    changes = chunk((ITEM, None), ('{"id": {"S": "cut', ITEM), (ITEM, '{"x": "\\ud800"}'))
    frame = Frame.of_changes(changes)
    assert frame.select("eventID").arrow().num_rows == 3
    with pytest.raises(MalformedImageError, match="change log keeps the record"):
        frame.select("dynamodb.NewImage.id.S as id").arrow()
    assert [failure.row for failure in image_failures(changes)] == [1, 2]


@pytest.mark.parametrize("name", ["\x00", "a\x01b", "'; drop table x; --", "../etc", "{}", "ü💥"])
def test_hostile_attribute_names_are_plain_data(name: str) -> None:
    changes = chunk(({"id": {"S": "1"}, name: {"S": "v\x00w"}, "n": {"S": "x\x00y"}}, None))
    frame = Frame.of_changes(changes)
    assert frame.select("dynamodb.NewImage.n.S as n").arrow().column("n").to_pylist() == ["x\x00y"]
    if "\x00" not in name:  # SQL text can't contain a zero
        quoted = '"' + name.replace('"', '""') + '"'
        values = frame.select(f"dynamodb.NewImage.{quoted}.S as v").arrow().column("v")
        assert values.to_pylist() == ["v\x00w"]


def test_memory_is_bounded_and_the_error_says_so() -> None:
    changes = chunk(*(({"id": {"S": str(n)}, "pad": {"S": "x" * 2000}}, None) for n in range(50)))
    frame = Frame.of_changes(
        pa.concat_tables([changes] * 1000), memory_limit_bytes=24 * 1024 * 1024, threads=1
    )
    with pytest.raises(TransformError, match="more memory than DuckDB may use"):
        frame.sql("select string_agg(dynamodb.NewImage.pad.S) as all_of_it from changes").arrow()


def test_spilled_files_are_removed_with_the_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    frame = Frame.of_changes(chunk((ITEM, None)))
    assert list(tmp_path.iterdir())
    del frame
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_frames_of_one_chunk_can_be_read_by_several_threads() -> None:
    frame = Frame.of_changes(chunk((ITEM, None)))
    rows: list[int] = []

    def read(position: int) -> None:
        rows.append(frame.select(f"{position} as p", "dynamodb.NewImage.n.N").arrow().num_rows)

    threads = [Thread(target=read, args=(position,)) for position in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert rows == [1] * 8


def test_items_of_the_largest_size_are_processed_a_few_at_a_time() -> None:
    image = {"id": {"S": "1"}, "status": {"S": "new"}, "note": {"S": "z" * 380_000}}
    changes = chunk(*[(image, image)] * 40)
    frame = Frame.of_changes(changes, memory_limit_bytes=changes.nbytes, threads=2)
    rows = frame.select("dynamodb.NewImage.status.S as new", "dynamodb.OldImage.status.S as old")
    assert rows.arrow()["old"].to_pylist() == ["new"] * 40
