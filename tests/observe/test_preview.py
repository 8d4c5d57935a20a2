"""The preview: values are only ever data, and the text stays small."""

import re
from datetime import datetime, timezone

from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.observe.preview import MAX_CHARS, MAX_COLUMNS, MAX_ROWS, preview_markdown

values = st.one_of(
    st.none(),
    st.text(max_size=200),
    st.integers(),
    st.binary(max_size=100),
    st.floats(),
    st.datetimes(),
    st.lists(st.text(max_size=5), max_size=3),
)
rows = st.lists(st.dictionaries(st.text(max_size=60), values, max_size=20), max_size=8)


@given(rows)
def test_every_line_has_the_same_cells_and_no_live_markup(table: list[dict[str, object]]) -> None:
    text = preview_markdown(table)
    lines = [line for line in text.split("\n\n")[0].splitlines() if line]
    assert len({len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line))) for line in lines}) <= 1
    assert len(lines) <= min(len(table), MAX_ROWS) + 2
    assert not re.search(r"[<>]", text)
    assert not re.search(r"(?<!\\)[\[\]`*_]", re.sub(r"\\\\", "", text))
    assert len(text) <= MAX_CHARS + 100


def test_rows_that_are_too_large_together_are_left_out() -> None:
    text = preview_markdown([{f"c{number}": '"' * 40 for number in range(12)}] * 5)
    assert len(text) <= MAX_CHARS
    assert 2 < len(text.splitlines()) < 7


def test_it_reads_like_a_table() -> None:
    text = preview_markdown(
        [
            {
                "order": "a|b",
                "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
                "_dz_key": 1,
            },
            {"order": "<b>x</b>", "at": None, "_dz_key": 2},
        ]
    )
    assert text.splitlines() == [
        "| order | at |",
        "| --- | --- |",
        r"| a\|b | 2026-01-02 03\:04\:05+00\:00 |",
        "| &lt;b&gt;x&lt;/b&gt; |  |",
    ]


def test_long_values_and_wide_rows_are_cut() -> None:
    text = preview_markdown([{f"c{number:02}": "x" * 1_000 for number in range(20)}])
    assert "…" in text
    assert "x" * 41 not in text
    assert text.endswith(f"{20 - MAX_COLUMNS} more columns")


def test_no_rows_no_text() -> None:
    assert preview_markdown([]) == preview_markdown([{"_dz_key": 1}]) == ""
