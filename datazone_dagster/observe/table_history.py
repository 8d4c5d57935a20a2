"""The newest commits of a table as a Markdown table. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from datazone_dagster.model.table_commit import TableCommit
from datazone_dagster.observe.preview import markdown_cell

_HEAD = (
    "| version | time (UTC) | operation | inserted | updated | deleted |",
    "| ---: | --- | --- | ---: | ---: | ---: |",
)


def history_markdown(commits: Sequence[TableCommit]) -> str:
    """Format commits, the newest first, safe to show; empty if there are none.

    A number that the log does not tell stays blank.
    """
    if not commits:
        return ""
    return "\n".join([*_HEAD, *map(_row, reversed(commits))])


def _row(commit: TableCommit) -> str:
    counts = (commit.inserted, commit.updated, commit.deleted)
    cells = (
        str(commit.version),
        f"{commit.at:%Y-%m-%d %H:%M:%S}" if commit.at else "",
        markdown_cell(commit.operation),
        *("" if one is None else f"{one:,}" for one in counts),
    )
    return f"| {' | '.join(cells)} |"
