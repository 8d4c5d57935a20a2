"""Capture of the body of a page of items or records before botocore parses it.

botocore's parser builds Python objects for every attribute of every item: about 120 ms of CPU
for a full page of GetRecords. botocore's `before-parse` event exposes the response first; the
handler takes the body and leaves an empty object to the parser. Errors (HTTP 300 and up) keep
their body, so botocore raises them as usual.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from datazone_dagster.errors import ServiceUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodbstreams import DynamoDBStreamsClient

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Limit of a decompressed body. A page is 1 MB of records or 16 MB of items; its JSON, with both
images and base64, is a few times that size."""

_GZIP_WINDOW_BITS = 31


class CapturedAnswer:
    """Body of one response as it came over the wire, once it has arrived."""

    __slots__ = ("_checksum", "_encoding", "_wire_body")

    def __init__(self) -> None:
        self._wire_body: bytes | None = None
        self._encoding = ""
        self._checksum: str | None = None

    def store(self, wire_body: bytes, headers: MutableMapping[str, str]) -> None:
        """Store the body of a response; a retried call overwrites it."""
        self._wire_body = wire_body
        self._encoding = headers.get("content-encoding", "").strip().lower()
        self._checksum = headers.get("x-amz-crc32")

    def body(self, call: str) -> bytes | None:
        """Return the body, checked and decompressed; None if the event did not fire.

        botocore does neither: it reads with `decode_content=False`, and checks `x-amz-crc32` for
        DynamoDB only, not for its streams.

        Args:
            call: Description of the call, for the error text.

        Raises:
            ServiceUnavailableError: The body was damaged in transit.
        """
        body = self._wire_body
        if body is None:
            return None
        checksum = self._checksum
        if checksum is not None and checksum.isdigit() and int(checksum) != zlib.crc32(body):
            raise _damaged(call, "its checksum (x-amz-crc32) does not match")
        if self._encoding in ("", "identity"):
            return body
        if self._encoding != "gzip":
            raise _damaged(
                call, f"it is encoded as {self._encoding[:20]!r}, which was not requested"
            )
        inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)
        try:
            inflated = inflater.decompress(body, MAX_BODY_BYTES)
        except zlib.error:
            raise _damaged(call, "its header says gzip, but it is not gzip") from None
        if not inflater.eof:
            raise _damaged(call, "it is cut short, or far too long")
        return inflated


def _damaged(call: str, fault: str) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"{call}: the response can't be used: {fault}.",
        safe="No position moved; the same page is read again.",
        hint="If it persists, look for a proxy between this process and the service.",
    )


_current: ContextVar[CapturedAnswer | None] = ContextVar("datazone_captured_answer", default=None)


def _take_body(response_dict: MutableMapping[str, Any], **_: object) -> None:
    answer = _current.get()
    if answer is None or response_dict["status_code"] >= 300:
        return
    answer.store(response_dict["body"], response_dict["headers"])
    response_dict["body"] = b"{}"


def _ask_for_gzip(request: Any, **_: object) -> None:
    if _current.get() is not None:
        # Set after signing: a proxy may change this header, and the signature must stay valid.
        request.headers["Accept-Encoding"] = "gzip"


def install(
    client: DynamoDBClient | DynamoDBStreamsClient | Any,
    *operations: str,
    ask_for_gzip: bool = False,
) -> None:
    """Enable `capturing` for operations of a client. Calls outside `capturing` are not affected.

    Args:
        client: botocore client of DynamoDB, of its streams or of Kinesis.
        operations: Names of the operations.
        ask_for_gzip: Whether captured calls allow the service to compress its response.
    """
    service = client.meta.service_model.service_id.hyphenize()
    for operation in operations:
        client.meta.events.register(
            f"before-parse.{service}.{operation}",
            _take_body,
            unique_id=f"datazone-take-body-{operation}",
        )
        if ask_for_gzip:
            client.meta.events.register(
                f"before-send.{service}.{operation}",
                _ask_for_gzip,
                unique_id=f"datazone-ask-for-gzip-{operation}",
            )


@contextmanager
def capturing() -> Iterator[CapturedAnswer]:
    """Capture the body of the installed call made in the block, by this thread only."""
    answer = CapturedAnswer()
    token = _current.set(answer)
    try:
        yield answer
    finally:
        _current.reset(token)
