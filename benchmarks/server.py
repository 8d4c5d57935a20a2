"""Server of generated pages over HTTP as DynamoDB Streams does, faster than any client reads.

    python -m benchmarks.server <folder of pages>

The server prints its port. Nothing is computed per page: the answer is a header and bytes from a
file. Only the calls that a drain makes are supported; `datazone-dagster emulator` is the real
emulator.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

from benchmarks.pages import FIRST_SEQUENCE, STREAM_ARN
from benchmarks.stream import PagesStream
from datazone_dagster.model.shard import TRIM_HORIZON, after

TABLE = "orders"


Answer = Callable[[str, dict[str, Any]], bytes]
"""Function of the operation, in lower case, and its arguments; returns the body of the answer."""


class Connection(asyncio.Protocol):
    """One connection with requests one after the other, as botocore sends them."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(rest) < int(headers.get(b"content-length", b"0")):
            return
        self._received = b""
        operation = headers[b"x-amz-target"].rpartition(b".")[2].decode()
        body = self._answer(operation, json.loads(rest or b"{}"))
        self._transport.writelines(
            (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\n"
                b"x-amzn-requestid: bench\r\ndate: %s\r\ncontent-length: %d\r\n\r\n"
                % (formatdate(usegmt=True).encode(), len(body)),
                body,
            )
        )


class Stream:
    """Answers of the stream of generated pages."""

    def __init__(self, folder: Path) -> None:
        self._pages = PagesStream(folder)

    def answer(self, operation: str, asked: dict[str, Any]) -> bytes:
        """Answer the calls of a drain."""
        if operation == "getrecords":
            return self._pages.raw(asked["ShardIterator"])
        if operation == "getsharditerator":
            number = asked.get("SequenceNumber")
            start = TRIM_HORIZON if number is None else after(int(number))
            found = self._pages.shard_iterator(STREAM_ARN, asked["ShardId"], start)
            return json.dumps({"ShardIterator": found}).encode()
        return json.dumps(self._listing(operation)).encode()

    def _listing(self, operation: str) -> dict[str, Any]:
        if operation == "liststreams":
            stream = {"StreamArn": STREAM_ARN, "TableName": TABLE, "StreamLabel": "2030"}
            return {"Streams": [stream]}
        if operation == "describetable":
            enabled = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
            table = {"LatestStreamArn": STREAM_ARN, "StreamSpecification": enabled}
            return {"Table": {"TableName": TABLE, **table}}
        assert operation == "describestream", operation
        shards = [
            {
                "ShardId": shard.shard_id,
                "SequenceNumberRange": {"StartingSequenceNumber": str(FIRST_SEQUENCE)},
            }
            for shard in self._pages.describe(STREAM_ARN).shards
        ]
        return {
            "StreamDescription": {
                "StreamArn": STREAM_ARN,
                "StreamStatus": "ENABLED",
                "StreamViewType": "NEW_AND_OLD_IMAGES",
                "Shards": shards,
            }
        }


async def answering(answer: Answer) -> None:
    """Serve on a free port, print it, and serve until the process is terminated."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(answer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run a server in a process of its own and yield its endpoint URL."""
    command = [sys.executable, "-m", "benchmarks.server", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(answering(Stream(Path(sys.argv[1])).answer))
