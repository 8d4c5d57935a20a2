"""Versions of a function: which batches are of others, and which columns were lost."""

from __future__ import annotations

from datazone_dagster.model.function_record import FunctionRecord, MadeBy


def record_of(*chunks: tuple[str, int, str]) -> FunctionRecord:
    record = FunctionRecord()
    for version, first_batch, columns in chunks:
        record = record.after(MadeBy(version, first_batch), columns.split())
    return record


def test_the_batches_of_other_versions() -> None:
    record = record_of(("a", 1, "id"), ("a", 3, "id"), ("b", 5, "id"), ("a", 7, "id"))
    assert record.other_batches("a", 9) == ((5, 6),)
    assert record.other_batches("b", 9) == ((1, 4), (7, 9))
    assert record.other_batches("c", 9) == ((1, 4), (5, 6), (7, 9))


def test_rows_from_before_versions_were_recorded_are_of_no_other_version() -> None:
    record = record_of(("a", 4, "id"))
    assert record.other_batches("a", 9) == ()
    assert record.other_batches("b", 9) == ((4, 9),)


def test_lost_columns() -> None:
    record = record_of(("a", 1, "id name"), ("b", 2, "id"), ("b", 3, "ID more"))
    assert record.missing(["id", "name", "more", "declared"]) == ("name",)
    assert record.missing(["id"]) == ()  # the table has it no longer
    assert record.as_made_by("b").missing(["id", "name"]) == ()
    again = record.after(MadeBy("c", 5), ["id", "NAME"])
    assert again.missing(["id", "name", "more"]) == ("more",)


def test_many_versions_stay_few_and_none_is_forgotten() -> None:
    record = record_of(*((f"v{number}", number, "id") for number in range(1, 101)))
    assert len(record.to_json()) < 1000
    others = record.other_batches("v100", 100)
    assert others[0][0] == 1
    assert others[-1][1] == 99


def test_it_is_read_back() -> None:
    record = record_of(("a", 1, "id name"), ("b", 2, "id"))
    assert FunctionRecord.from_json(record.to_json()) == record
    assert FunctionRecord.from_json('{"versions": [["a", 1]], "later": 1}').versions == (("a", 1),)
