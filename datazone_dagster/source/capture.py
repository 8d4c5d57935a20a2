"""Take the body of a GetRecords answer before botocore parses it.

botocore's parser builds Python objects for every attribute of every item: about 120 ms of
CPU for a full page. Its `before-parse` event hands out the answer first; what is left for
the parser is an empty object. Errors (HTTP 300 and up) keep their body, so they raise as ever.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from datazone_dagster.errors import ServiceUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodbstreams import DynamoDBStreamsClient

MAX_BODY_BYTES = 64 * 1024 * 1024
"""A page is 1 MB of records; its JSON with both images and base64 is a few times that."""

_GZIP_WINDOW_BITS = 31
_EVENT = "before-parse.dynamodb-streams.GetRecords"


class CapturedAnswer:
    """The body of one GetRecords answer as it came over the wire, once there is one."""

    __slots__ = ("_checksum", "_encoding", "_wire_body")

    def __init__(self) -> None:
        self._wire_body: bytes | None = None
        self._encoding = ""
        self._checksum: str | None = None

    def keep(self, wire_body: bytes, headers: MutableMapping[str, str]) -> None:
        """Keep the body of an answer; a retried call keeps the last one."""
        self._wire_body = wire_body
        self._encoding = headers.get("content-encoding", "").strip().lower()
        self._checksum = headers.get("x-amz-crc32")

    def body(self, place: str) -> bytes | None:
        """The body, checked and decompressed; None if the event did not fire.

        Neither is done for us: botocore reads with `decode_content=False`, and checks
        `x-amz-crc32` for DynamoDB only, not for its streams.

        Args:
            place: What was called, for the error.

        Raises:
            ServiceUnavailableError: The body was damaged on its way.
        """
        body = self._wire_body
        if body is None:
            return None
        checksum = self._checksum
        if checksum is not None and checksum.isdigit() and int(checksum) != zlib.crc32(body):
            raise _damaged(place, "its checksum (x-amz-crc32) does not match")
        if self._encoding in ("", "identity"):
            return body
        if self._encoding != "gzip":
            raise _damaged(
                place, f"it is encoded as {self._encoding[:20]!r}, which nobody asked for"
            )
        inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)
        try:
            inflated = inflater.decompress(body, MAX_BODY_BYTES)
        except zlib.error:
            raise _damaged(place, "it is not gzip, as its header says") from None
        if not inflater.eof:
            raise _damaged(place, "it is cut short, or far too long")
        return inflated


def _damaged(place: str, fault: str) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"{place}: the answer can't be used: {fault}.",
        safe="No position moved; the same page is read again.",
        hint="If it stays, look for a proxy between this process and the service.",
    )


_current: ContextVar[CapturedAnswer | None] = ContextVar("datazone_captured_answer", default=None)


def _take_body(response_dict: MutableMapping[str, Any], **_: object) -> None:
    answer = _current.get()
    if answer is None or response_dict["status_code"] >= 300:
        return
    answer.keep(response_dict["body"], response_dict["headers"])
    response_dict["body"] = b"{}"


def _ask_for_gzip(request: Any, **_: object) -> None:
    if _current.get() is not None:
        # After signing: a proxy may change this header, and the signature must stand then.
        request.headers["Accept-Encoding"] = "gzip"


def install(client: DynamoDBStreamsClient, *, ask_for_gzip: bool = False) -> None:
    """Let `capturing` work on a client. It changes nothing for calls outside of it.

    Args:
        client: A botocore client.
        ask_for_gzip: Whether captured calls tell the service that it may compress its answer.
    """
    client.meta.events.register(_EVENT, _take_body, unique_id="datazone-take-get-records-body")
    if ask_for_gzip:
        client.meta.events.register(
            "before-send.dynamodb-streams.GetRecords",
            _ask_for_gzip,
            unique_id="datazone-ask-for-gzip",
        )


@contextmanager
def capturing() -> Iterator[CapturedAnswer]:
    """Take the body of the GetRecords call made inside, in this thread only."""
    answer = CapturedAnswer()
    token = _current.set(answer)
    try:
        yield answer
    finally:
        _current.reset(token)
