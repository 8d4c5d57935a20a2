"""Stream client over generated pages: no network, so that only our code is measured."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.pages import FIRST_SEQUENCE, STREAM_ARN, PageRef
from datazone_dagster.model.protocols import Answer
from datazone_dagster.model.record import RecordsPage
from datazone_dagster.model.shard import IteratorStart, Shard, StreamDescription
from datazone_dagster.source.wire import parse_page

Parser = Callable[[bytes], RecordsPage]


class PagesStream:
    """Implements `StreamClient` and `ParsesLater` of `model.protocols` over a folder of pages.

    Args:
        folder: Folder that `pages.generated` returned.
        parse: Function from a body to a page.
    """

    def __init__(self, folder: Path, parse: Parser = parse_page) -> None:
        index = json.loads((folder / "index.json").read_text())
        self.pages = [[PageRef(*page) for page in shard] for shard in index]
        self._files = [os.open(folder / f"{n}.pages", os.O_RDONLY) for n in range(len(index))]
        self._parse = parse
        self.calls = 0

    @property
    def records(self) -> int:
        return sum(page.records for shard in self.pages for page in shard)

    @property
    def body_bytes(self) -> int:
        return sum(page.length for shard in self.pages for page in shard)

    def bodies(self) -> list[bytes]:
        """Return the body of every page, shard after shard."""
        return [self.body(n, ref) for n, shard in enumerate(self.pages) for ref in shard]

    def iterators(self) -> list[str]:
        """Return the iterator of every page, shard after shard."""
        return [f"{n}:{at}" for n, shard in enumerate(self.pages) for at in range(len(shard))]

    def body(self, shard: int, page: PageRef) -> bytes:
        return os.pread(self._files[shard], page.length, page.offset)

    def stream_arns(self) -> tuple[str, ...]:
        return (STREAM_ARN,)

    def describe(self, stream_arn: str) -> StreamDescription:
        shards = tuple(
            Shard(f"shardId-{n:020d}-bench", None, FIRST_SEQUENCE) for n in range(len(self.pages))
        )
        return StreamDescription(stream_arn, "NEW_AND_OLD_IMAGES", enabled=True, shards=shards)

    def shard_iterator(self, stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        del stream_arn
        shard = int(shard_id.split("-")[1])
        after = start.sequence_number or 0
        passed = sum(page.last_sequence_number <= after for page in self.pages[shard])
        return f"{shard}:{passed}"

    def get_records(self, shard_iterator: str) -> RecordsPage:
        return self.ask_for_records(shard_iterator)()

    def ask_for_records(self, shard_iterator: str) -> Answer:
        self.calls += 1
        return partial(self._parse, self.raw(shard_iterator))

    def raw(self, shard_iterator: str) -> bytes:
        """Return the body of GetRecords; after the last page of a shard an empty page."""
        shard, at = (int(number) for number in shard_iterator.split(":"))
        if at >= len(self.pages[shard]):
            return f'{{"NextShardIterator":"{shard_iterator}","Records":[]}}'.encode()
        return self.body(shard, self.pages[shard][at])
