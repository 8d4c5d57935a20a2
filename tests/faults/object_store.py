"""An S3 on this machine (moto) behind a proxy that loses answers and refuses commits by script."""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "lake"
Trouble = Literal["refused", "answer lost"]


class FaultyStore:
    """Counts the commits (PUTs of Delta log entries) of one table, and troubles some of them.

    Args:
        moto: Where requests go.
        commits_to: Part of the path of the table.
        trouble: `refused`: the store answers 500 and keeps nothing. `answer lost`: the store
            keeps the entry, the connection is closed without an answer.
        every: Which commits are struck: every nth.
    """

    def __init__(
        self, moto: tuple[str, int], commits_to: str, trouble: Trouble, *, every: int
    ) -> None:
        self.struck = 0
        self._moto = moto
        self._commits_to = commits_to
        self._trouble = trouble
        self._every = every
        self._commits = 0
        self._lock = threading.Lock()

    def strikes(self, method: str, path: str) -> bool:
        if method != "PUT" or "/_delta_log/" not in path or self._commits_to not in path:
            return False
        with self._lock:
            self._commits += 1
            strikes = self._commits % self._every == 0
            self.struck += strikes
        return strikes

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        struck = self.strikes(request.command, request.path)
        if struck and self._trouble == "refused":
            request.send_error(500)
            return
        connection = http.client.HTTPConnection(*self._moto)
        connection.request(request.command, request.path, body, dict(request.headers.items()))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if struck:
            request.close_connection = True
            request.connection.close()
            return
        request.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)


@contextmanager
def faulty_store(
    moto: tuple[str, int], commits_to: str, trouble: Trouble, *, every: int
) -> Iterator[tuple[FaultyStore, dict[str, str]]]:
    """The store, and the storage options that lead to it."""
    store = FaultyStore(moto, commits_to, trouble, every=every)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            store.handle(self)

        def do_HEAD(self) -> None:
            store.handle(self)

        def do_POST(self) -> None:
            store.handle(self)

        def do_PUT(self) -> None:
            store.handle(self)

        def do_DELETE(self) -> None:
            store.handle(self)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        yield store, _options(*proxy.server_address[:2])
        proxy.shutdown()
        thread.join()


@contextmanager
def moto_server() -> Iterator[tuple[str, int]]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = _options(host, port)
    client = boto3.client(
        "s3",
        endpoint_url=options["AWS_ENDPOINT_URL"],
        region_name=options["AWS_REGION"],
        aws_access_key_id=options["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=options["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
    yield host, port
    server.stop()


def _options(host: object, port: object) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "aws_conditional_put": "etag",
        "max_retries": "1",
    }
