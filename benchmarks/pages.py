"""GetRecords pages as the service would send them, generated from a seed and stored in files.

Orders with about 14 attributes: 1.8 KB a record with both images. A key is inserted, modified
and now and then removed, so the records of a key are a true history. Pages contain at most
1,000 records and 1 MB of body, as in the service.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

PAGE_RECORDS = 1000
PAGE_BYTES = 1_000_000
STREAM_ARN = "arn:aws:dynamodb:us-west-2:000000000000:table/orders/stream/2030-01-01T00:00:00.000"
STARTED_AT = 1_893_456_000
FIRST_SEQUENCE = 100 * 10**21

_STATUSES = ("placed", "paid", "packed", "shipped", "delivered")
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "haven", "inlet", "jetty")


@dataclass(frozen=True, slots=True)
class Workload:
    """Parameters of the generated pages: the same values give the same bytes.

    `note_chars` sets the size: 330 gives 1.8 KB a record with both images.
    """

    records: int = 1_000_000
    keys: int = 100_000
    shards: int = 8
    removes: float = 0.03
    note_chars: int = 330
    hot_shard_share: float = 0.0
    seed: int = 7

    @property
    def name(self) -> str:
        """Unique file name."""
        return "-".join(str(value) for value in asdict(self).values())


class PageRef(NamedTuple):
    """Location of a page in its shard's file."""

    offset: int
    length: int
    records: int
    last_sequence_number: int


def generated(workload: Workload, root: Path) -> Path:
    """Return the folder with the pages of a workload; generate the pages if it does not exist."""
    folder = root / workload.name
    if not (folder / "index.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(workload, folder)
    return folder


def _write(workload: Workload, folder: Path) -> None:
    index: list[list[PageRef]] = []
    files = [(folder / f"{shard}.pages").open("wb") for shard in range(workload.shards)]
    index = [[] for _ in files]
    pending: list[list[str]] = [[] for _ in files]
    pending_bytes = [0] * len(files)
    last = [0] * len(files)

    def flush(shard: int) -> None:
        number = len(index[shard]) + 1
        body = (
            f'{{"NextShardIterator":"{shard}:{number}","Records":[{",".join(pending[shard])}]}}'
        ).encode()
        offset = files[shard].tell()
        files[shard].write(body)
        index[shard].append(PageRef(offset, len(body), len(pending[shard]), last[shard]))
        pending[shard], pending_bytes[shard] = [], 0

    for shard, sequence, text in _records(workload):
        if len(pending[shard]) >= PAGE_RECORDS or pending_bytes[shard] + len(text) > PAGE_BYTES:
            flush(shard)
        pending[shard].append(text)
        pending_bytes[shard] += len(text)
        last[shard] = sequence
    for shard in range(workload.shards):
        if pending[shard]:
            flush(shard)
        files[shard].close()
    (folder / "index.json").write_text(json.dumps(index))


def _records(workload: Workload) -> Iterator[tuple[int, int, str]]:
    """Yield shard, sequence number and JSON of every record, in the order of the table's writes."""
    rng = random.Random(workload.seed)  # a seeded workload, nothing secret
    # Words and digits, longer than a compressor's window: text that compresses like real text.
    note = "".join(f"{rng.choice(_WORDS)} {rng.randrange(10**4)} " for _ in range(200_000))
    images: dict[int, str] = {}
    sequence = FIRST_SEQUENCE
    hot = int(workload.hot_shard_share * 1000)
    for number in range(workload.records):
        key = rng.randrange(workload.keys)
        shard = 0 if rng.randrange(1000) < hot else key % workload.shards
        if hot:
            key = key - key % workload.shards + shard  # a key stays in its shard
        sequence += 10**11 + rng.randrange(10**12)
        old = images.get(key)
        if old is not None and rng.random() < workload.removes:
            event, new = "REMOVE", None
            del images[key]
        else:
            event = "INSERT" if old is None else "MODIFY"
            new = images[key] = _image(key, number, rng, note, workload.note_chars)
        yield shard, sequence, _record(event, key, sequence, number, new, old)


def _image(key: int, number: int, rng: random.Random, note: str, note_chars: int) -> str:
    start = rng.randrange(len(note) - note_chars)
    return (
        f'{{"orderId":{{"S":"order-{key:010d}"}},'
        f'"customerEmail":{{"S":"customer{key % 5003}@example.com"}},'
        f'"orderTotal":{{"N":"{rng.randrange(10**6) / 100:.2f}"}},'
        f'"status":{{"S":"{_STATUSES[rng.randrange(5)]}"}},'
        f'"currency":{{"S":"EUR"}},'
        f'"updatedAt":{{"S":"2030-01-{1 + number % 28:02d}T{number % 24:02d}:'
        f'{number % 60:02d}:00Z"}},'
        f'"items":{{"L":[{_line(rng, number)},{_line(rng, key)}]}},'
        f'"address":{{"M":{{"city":{{"S":"city-{key % 997}"}},'
        f'"zip":{{"S":"{key % 99999:05d}"}}}}}},'
        f'"gift":{{"BOOL":{"true" if number % 7 else "false"}}},'
        f'"coupon":{{"NULL":true}},'
        f'"tags":{{"SS":["{_WORDS[key % 10]}","{_WORDS[number % 10].upper()}"]}},'
        f'"revision":{{"N":"{number}"}},'
        f'"note":{{"S":"{note[start : start + note_chars]}"}}}}'
    )


def _line(rng: random.Random, number: int) -> str:
    sku = f"sku-{rng.randrange(9999):04d}"
    return f'{{"M":{{"sku":{{"S":"{sku}"}},"qty":{{"N":"{1 + number % 9}"}}}}}}'


def _record(
    event: str, key: int, sequence: int, number: int, new: str | None, old: str | None
) -> str:
    images = (f'"NewImage":{new},' if new else "") + (f'"OldImage":{old},' if old else "")
    return (
        f'{{"awsRegion":"us-west-2","dynamodb":{{"ApproximateCreationDateTime":'
        f"{STARTED_AT + number // 10_000}.0,"
        f'"Keys":{{"orderId":{{"S":"order-{key:010d}"}}}},{images}'
        f'"SequenceNumber":"{sequence}","SizeBytes":{len(new or "") + len(old or "") - 200},'
        f'"StreamViewType":"NEW_AND_OLD_IMAGES"}},"eventID":"{sequence % 2**128:032x}",'
        f'"eventName":"{event}","eventSource":"aws:dynamodb","eventVersion":"1.1"}}'
    )
