"""What errors of the store tell, whatever store it is."""

from __future__ import annotations

import pyarrow as pa
import pytest

from datazone_dagster.delta import create_table, guarded, in_one_line
from datazone_dagster.errors import StorageError

ESCAPE = "\x1b[31m↳\x1b[0m"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one line.", "one line"),
        (
            f"Generic LocalFileSystem error\n   {ESCAPE} Can't open file /x\n"
            f"     {ESCAPE} Permission denied (os error 13)\n",
            "Generic LocalFileSystem error: Can't open file /x: Permission denied (os error 13)",
        ),
        ("broken\n\nStack trace:\n  0: main\n", "broken"),
        (
            "PUT https://user:secret@store/lake/x?sv=1&sig=secret failed, see http://a/b?",
            "PUT https://store/lake/x failed, see http://a/b",
        ),
        ("", "ValueError"),
    ],
)
def test_an_error_is_one_line_with_its_causes_and_without_secrets(text: str, line: str) -> None:
    assert in_one_line(ValueError(text)) == line


def test_a_store_that_there_is_not_says_which_there_are() -> None:
    with pytest.raises(StorageError) as caught:
        create_table("s4://lake/orders", {}, "dataset", pa.schema([pa.field("a", pa.int64())]))
    assert "s4://lake" in caught.value.what
    assert "A lakehouse is a directory, or a uri that begins" in caught.value.hint


def test_a_store_without_credentials_says_where_to_put_them() -> None:
    # As delta-rs 1.6.6 says it: the address is where a machine of AWS keeps those of its role.
    text = (
        "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 1s, "
        "after 3 retries - HTTP error: error sending request"
    )
    with (
        pytest.raises(StorageError, match="No credentials for the store were found"),
        guarded("s3://lake/orders", "Landing batch 1"),
    ):
        raise OSError(text)
