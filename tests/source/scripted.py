"""A local HTTP server with scripted responses to DynamoDB calls that no emulator gives."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple


class Answer(NamedTuple):
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = {}


class Request(NamedTuple):
    operation: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ok(content: object, **headers: str) -> Answer:
    return Answer(json.dumps(content).encode(), 200, headers)


def error(code: str, status: int = 400, message: str = "as scripted") -> Answer:
    name = f"com.amazonaws.dynamodb.v20120810#{code}"
    return Answer(json.dumps({"__type": name, "message": message}).encode(), status)


class ScriptedService:
    """Returns the scripted responses of an operation in turn, then repeats the last one."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._answers: dict[str, list[Answer]] = defaultdict(list)
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                target = self.headers.get("X-Amz-Target", "")
                operation = target.rpartition(".")[2] or "STS"
                answer = service._next(Request(operation, dict(self.headers), body))
                if "Date" in answer.headers:
                    self.send_response_only(answer.status)
                else:
                    self.send_response(answer.status)
                self.send_header("Content-Length", str(len(answer.body)))
                for name, value in answer.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def script(self, operation: str, *answers: Answer) -> None:
        with self._lock:
            self._answers[operation] = list(answers)

    def clear(self) -> None:
        with self._lock:
            self.requests.clear()
            self._answers.clear()

    def calls(self, operation: str) -> list[Request]:
        return [request for request in self.requests if request.operation == operation]

    def _next(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            answers = self._answers[request.operation]
            if not answers:
                return error("InternalServerError", 500, f"{request.operation} is not scripted")
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def __enter__(self) -> ScriptedService:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
