"""What errors of the store tell, whatever store it is."""

from __future__ import annotations

import pytest

from datazone_dagster.delta import in_one_line

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
