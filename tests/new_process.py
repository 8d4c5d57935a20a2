"""A scripted stream as another process sees it."""

from __future__ import annotations

from datazone_dagster.testing import ScriptedStream


class NewProcess:
    """The stream through another client: iterators and what was learned are kept per client."""

    def __init__(self, stream: ScriptedStream) -> None:
        self.stream_arns = stream.stream_arns
        self.describe = stream.describe
        self.describe_page = stream.describe_page
        self.children = stream.children
        self.shard_iterator = stream.shard_iterator
        self.get_records = stream.get_records
        self.told_time = stream.told_time
