"""HTTP/1.1 on 127.0.0.1: one thread a connection, kept alive, answers in one write.

The standard library's handler spends more time on headers than SQLite on an item; what
DynamoDB clients send needs a request line, headers and a Content-Length, no more.
"""

from __future__ import annotations

import logging
import re
import socket
import socketserver
import struct
import threading
import uuid
import zlib
from collections.abc import Callable
from http import HTTPStatus

from datazone_dagster.local.admin_endpoint import ADMIN_PREFIX, AdminEndpoint
from datazone_dagster.local.faults import Fault, FaultKind
from datazone_dagster.local.operations import Answer, Operations, ResetBeforeWorkError
from datazone_dagster.local.service import DEFAULT_REGION
from datazone_dagster.local.service_errors import ServiceError

HOST = "127.0.0.1"
_LINE_BYTES_MAX = 64 * 1024
_BODY_BYTES_MAX = 32 * 1024 * 1024
_HEADERS_MAX = 200
_SIGNED_FOR = re.compile(r"Credential=[^/]*/\d+/([a-z0-9-]+)/")
_REASONS = {status.value: status.phrase for status in HTTPStatus}

logger = logging.getLogger(__name__)


class _BadRequestError(Exception):
    """What came is not HTTP as we speak it; the connection can't be used further."""


class Connection(socketserver.StreamRequestHandler):
    """One client connection."""

    disable_nagle_algorithm = True
    server: LocalServer

    def handle(self) -> None:
        """Answer requests until the client leaves."""
        try:
            while self._handle_one():
                pass
        except (ConnectionError, TimeoutError):
            return  # the client went away: nothing to answer
        except _BadRequestError as error:
            self._write(400, str(error).encode(), "text/plain")

    def _handle_one(self) -> bool:
        line = self.rfile.readline(_LINE_BYTES_MAX).decode("latin-1")
        if not line:
            return False
        parts = line.split()
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise _BadRequestError("expected an HTTP/1.1 request line")
        method, path, version = parts
        headers = self._headers()
        if headers.get("expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._body(headers)
        stays = headers.get("connection", "").lower() != "close" and version == "HTTP/1.1"
        return self._answer(method, path, headers, body) and stays

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for _ in range(_HEADERS_MAX):
            line = self.rfile.readline(_LINE_BYTES_MAX).decode("latin-1")
            if line in ("\r\n", "\n"):
                return headers
            name, colon, value = line.partition(":")
            if not colon:
                raise _BadRequestError("expected a header")
            headers[name.strip().lower()] = value.strip()
        raise _BadRequestError("too many headers")

    def _body(self, headers: dict[str, str]) -> bytes:
        if "transfer-encoding" in headers:
            raise _BadRequestError("Transfer-Encoding is not supported: send a Content-Length")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > _BODY_BYTES_MAX:
            raise _BadRequestError(f"Content-Length must be 0 to {_BODY_BYTES_MAX}")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionResetError
        return body

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bool:
        if path.startswith(ADMIN_PREFIX):
            answer = self.server.admin.answer(path, body)
            self._write(answer.status, answer.body, "application/json")
            return True
        if method != "POST":
            text = b"This is the local DynamoDB of datazone_dagster. POST with X-Amz-Target."
            self._write(200 if method == "GET" else 405, text, "text/plain")
            return True
        signed = _SIGNED_FOR.search(headers.get("authorization", ""))
        region = signed.group(1) if signed else DEFAULT_REGION
        try:
            answer = self._guarded(
                lambda: self.server.operations.answer(headers.get("x-amz-target", ""), body, region)
            )
        except ResetBeforeWorkError:
            return self._reset()
        if answer.fault is not None and not self._acted_out(answer.fault):
            return False
        self._write(answer.status, answer.body, "application/x-amz-json-1.0")
        return True

    def _guarded(self, work: Callable[[], Answer]) -> Answer:
        """A defect of ours becomes a 500 answer and a logged traceback, not a dead connection."""
        try:
            return work()
        except ResetBeforeWorkError:
            raise
        except Exception as error:
            logger.exception("The local DynamoDB failed inside a request")
            failure = ServiceError("InternalServerError", f"{type(error).__name__}: {error}")
            return Answer(500, failure.encoded())

    def _acted_out(self, fault: Fault) -> bool:
        """Play a fault of the connection; whether the answer is still to be written."""
        if fault.kind is FaultKind.SLOW:
            self.server.stopping.wait(fault.delay_seconds)
        elif fault.kind is FaultKind.ANSWER_LOST:
            return self._reset()
        elif fault.kind is FaultKind.NO_ANSWER:
            self.connection.settimeout(fault.delay_seconds)
            self.rfile.read(1)  # returns, or times out, when the client has given up
            return False
        return True

    def _reset(self) -> bool:
        # Linger with zero seconds makes close() send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        return False

    def _write(self, status: int, body: bytes, content_type: str) -> None:
        head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
            f"x-amzn-RequestId: {uuid.uuid4()}\r\nx-amz-crc32: {zlib.crc32(body)}\r\n\r\n"
        )
        self.wfile.write(head.encode("latin-1") + body)


class LocalServer(socketserver.ThreadingTCPServer):
    """Listens on 127.0.0.1 only.

    Args:
        port: The port; 0 takes a free one.
        operations: What answers the services' requests.

    Raises:
        OSError: The port is taken.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, operations: Operations) -> None:
        self.operations = operations
        self.admin = AdminEndpoint(operations)
        self.stopping = threading.Event()
        super().__init__((HOST, port), Connection)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.socket.getsockname()[1])
