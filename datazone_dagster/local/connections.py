"""HTTP/1.1 on 127.0.0.1: one thread per connection, keep-alive, one write per answer."""

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
from email.utils import formatdate
from http import HTTPStatus

from datazone_dagster.local.admin_endpoint import ADMIN_PREFIX, AdminEndpoint
from datazone_dagster.local.faults import Fault, FaultKind
from datazone_dagster.local.http_requests import BadRequestError, Request, RequestReader
from datazone_dagster.local.operations import Answer, Operations, ResetBeforeWorkError
from datazone_dagster.local.service import DEFAULT_REGION
from datazone_dagster.local.service_errors import ServiceError

HOST = "127.0.0.1"
REQUEST_SECONDS = 60.0
IDLE_SECONDS = 600.0
_SIGNED_REGION = re.compile(r"Credential=[^/]*/\d+/([a-z0-9-]+)/")
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_NOT_THIS_MACHINE = ServiceError(
    "AccessDeniedException",
    "The local DynamoDB answers requests for 127.0.0.1 and localhost only. The Host header has "
    "another name: a web page may have sent the request. Nothing was done; use "
    "http://127.0.0.1:<port> as the endpoint.",
    status=403,
)

logger = logging.getLogger(__name__)


class Connection(socketserver.StreamRequestHandler):
    """One client connection."""

    disable_nagle_algorithm = True
    server: LocalServer

    def handle(self) -> None:
        """Answer requests until the client disconnects or a time limit passes."""
        self._requests = RequestReader(
            self.connection,
            request_seconds=self.server.request_seconds,
            idle_seconds=self.server.idle_seconds,
        )
        try:
            while (request := self._requests.next()) is not None:
                if not self._answer(request) or not request.keep_alive:
                    return
        except BadRequestError as error:
            self._refuse(str(error))
        except OSError:
            return  # the client disconnected or took too long: nothing to answer

    def _refuse(self, reason: str) -> None:
        try:
            self._write(400, reason.encode(), "text/plain")
        except OSError:
            return  # the client did not wait for the answer

    def _answer(self, request: Request) -> bool:
        """Answer one request; return whether the connection can be used again."""
        headers, body = request.headers, request.body
        if not request.for_this_machine:
            self._write(403, _NOT_THIS_MACHINE.encoded(), "application/x-amz-json-1.0")
            return True
        if request.path.startswith(ADMIN_PREFIX):
            answer = self._guarded(lambda: self.server.admin.answer(request))
            self._write(answer.status, answer.body, "application/json")
            return True
        if request.method != "POST":
            text = b"This is the local DynamoDB of datazone_dagster. POST with X-Amz-Target."
            self._write(200 if request.method == "GET" else 405, text, "text/plain")
            return True
        signed = _SIGNED_REGION.search(headers.get("authorization", ""))
        region = signed.group(1) if signed else DEFAULT_REGION
        try:
            answer = self._guarded(
                lambda: self.server.operations.answer(headers.get("x-amz-target", ""), body, region)
            )
        except ResetBeforeWorkError:
            return self._reset()
        if answer.fault is not None and not self._act_out(answer.fault):
            return False
        self._write(answer.status, answer.body, "application/x-amz-json-1.0")
        return True

    def _guarded(self, work: Callable[[], Answer]) -> Answer:
        """Turn a defect of the server into a 500 answer and a logged traceback."""
        try:
            return work()
        except ResetBeforeWorkError:
            raise
        except Exception as error:
            logger.exception("The local DynamoDB failed inside a request")
            failure = ServiceError("InternalServerError", f"{type(error).__name__}: {error}")
            return Answer(500, failure.encoded())

    def _act_out(self, fault: Fault) -> bool:
        """Act out a fault of the connection; return whether an answer is still to be written."""
        if fault.kind is FaultKind.SLOW:
            self.server.stopping.wait(fault.delay_seconds)
        elif fault.kind is FaultKind.ANSWER_LOST:
            return self._reset()
        elif fault.kind is FaultKind.NO_ANSWER:
            self._requests.wait(fault.delay_seconds)  # the client gives up, or this times out
            return False
        return True

    def _reset(self) -> bool:
        # SO_LINGER with zero seconds makes close() send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        return False

    def _write(self, status: int, body: bytes, content_type: str) -> None:
        date = formatdate(self.server.operations.clock.now(), usegmt=True)
        head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\nDate: {date}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
            f"x-amzn-RequestId: {uuid.uuid4()}\r\nx-amz-crc32: {zlib.crc32(body)}\r\n\r\n"
        )
        self.wfile.write(head.encode("latin-1") + body)


class LocalServer(socketserver.ThreadingTCPServer):
    """TCP server that listens on 127.0.0.1 only.

    Args:
        port: Port to listen on; 0 takes a free one.
        operations: Operations that answer the requests.
        request_seconds: Longest time that a client may take to send a request or to receive its
            answer.
        idle_seconds: Longest time that a connection stays open without a request.

    Raises:
        OSError: The port is taken.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        port: int,
        operations: Operations,
        *,
        request_seconds: float = REQUEST_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self.operations = operations
        self.request_seconds, self.idle_seconds = request_seconds, idle_seconds
        self.admin = AdminEndpoint(operations)
        self.stopping = threading.Event()
        super().__init__((HOST, port), Connection)

    @property
    def port(self) -> int:
        """Port that the server listens on."""
        return int(self.socket.getsockname()[1])
