"""HTTP/1.1 requests as DynamoDB clients send them, read within limits of size and time.

A request is a request line, headers and a Content-Length, no more. The standard library's
handler spends more time on headers than SQLite does on an item.
"""

from __future__ import annotations

import io
import re
import socket
import time
from dataclasses import dataclass

_HEAD_BYTES_MAX = 64 * 1024
_HEADERS_MAX = 200
_BODY_BYTES_MAX = 32 * 1024 * 1024
_LENGTH = re.compile(r"[0-9]{1,9}")
_LOOPBACK = re.compile(
    r"(127(\.[0-9]{1,3}){3}|\[::1\]|([a-z0-9_-]+\.)*localhost)(:[0-9]{1,5})?", re.IGNORECASE
)


class BadRequestError(Exception):
    """The request is not HTTP as this server supports it; the connection can't be used again."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Args:
        method: Method, such as `POST`.
        path: Path with its query.
        headers: Headers by lower-case name.
        body: Body, empty if there is none.
        keep_alive: Whether the connection stays open after the answer.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool

    @property
    def for_this_machine(self) -> bool:
        """True if the client asked for a loopback name.

        A web page whose own name was made to resolve to 127.0.0.1 (DNS rebinding) sends that name.
        """
        return _LOOPBACK.fullmatch(self.headers.get("host", "")) is not None


class RequestReader:
    """The requests of one connection.

    Args:
        connection: Socket of the connection.
        request_seconds: Longest time from the first byte of a request to its last.
        idle_seconds: Longest time without a request.
    """

    def __init__(
        self, connection: socket.socket, *, request_seconds: float, idle_seconds: float
    ) -> None:
        self._connection = connection
        self._request_seconds, self._idle_seconds = request_seconds, idle_seconds
        self._raw = _DeadlineSocket(connection)
        self._bytes = io.BufferedReader(self._raw, 64 * 1024)
        self._head_bytes = 0

    def next(self) -> Request | None:
        """Read the next request; None when the client has closed the connection.

        Raises:
            BadRequestError: The request is not supported, or exceeds a limit of size.
            ConnectionError: The client closed the connection within the request.
            TimeoutError: The client took too long.
        """
        self.wait(self._idle_seconds)
        if not self._bytes.peek(1):
            return None
        self._raw.allow(self._request_seconds)
        self._head_bytes = 0
        parts = self._line().split()
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise BadRequestError("expected an HTTP/1.1 request line")
        method, path, version = parts
        headers = self._headers()
        if headers.get("expect", "").lower() == "100-continue":
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._body(headers)
        keep_alive = headers.get("connection", "").lower() != "close" and version == "HTTP/1.1"
        self._connection.settimeout(self._request_seconds)  # of the answer
        return Request(method, path, headers, body, keep_alive)

    def wait(self, seconds: float) -> None:
        """Wait until the client sends something or disconnects.

        Raises:
            TimeoutError: Nothing happened for this long.
        """
        self._raw.allow(seconds)
        self._bytes.peek(1)

    def _line(self) -> str:
        line = self._bytes.readline(_HEAD_BYTES_MAX - self._head_bytes + 1)
        self._head_bytes += len(line)
        if self._head_bytes > _HEAD_BYTES_MAX:
            raise BadRequestError(f"more than {_HEAD_BYTES_MAX} bytes before the body")
        if not line.endswith(b"\n"):
            raise ConnectionResetError
        return line.decode("latin-1").rstrip("\r\n")

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for _ in range(_HEADERS_MAX):
            line = self._line()
            if not line:
                return headers
            name, colon, value = line.partition(":")
            if not colon:
                raise BadRequestError("expected a header")
            name = name.strip().lower()
            if name in headers and name in ("host", "content-length"):
                raise BadRequestError(f"{name} is given twice")
            headers[name] = value.strip()
        raise BadRequestError("too many headers")

    def _body(self, headers: dict[str, str]) -> bytes:
        if "transfer-encoding" in headers:
            raise BadRequestError("Transfer-Encoding is not supported: send a Content-Length")
        length = headers.get("content-length", "0")
        if not _LENGTH.fullmatch(length) or int(length) > _BODY_BYTES_MAX:
            raise BadRequestError(f"Content-Length must be 0 to {_BODY_BYTES_MAX}")
        body = self._bytes.read(int(length))
        if len(body) < int(length):
            raise ConnectionResetError
        return body


class _DeadlineSocket(io.RawIOBase):
    """Bytes that a socket receives; no read lasts longer than the deadline.

    A timeout of the socket alone starts over with each byte that arrives.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = 0.0

    def allow(self, seconds: float) -> None:
        """Set the deadline, in seconds from now."""
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # any writable buffer
        """Receive bytes; return their number, 0 at the end."""
        left_seconds = self._deadline - time.monotonic()
        if left_seconds <= 0:
            raise TimeoutError
        self._connection.settimeout(left_seconds)
        return self._connection.recv_into(buffer)
