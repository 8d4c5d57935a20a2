"""A local S3 (moto) behind a proxy that loses responses and refuses commits by script.

Both run in a process of their own: delta-rs holds the interpreter's lock during some of its
calls, so a store in a thread of the same process could never respond to them.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "lake"
SCRIPT = "/_script"
DELIVER = "/_deliver"
Trouble = Literal["refused", "answer lost", "late", "killed before", "killed after"]


class FaultyStore:
    """The store as a test uses it: its storage options, and a script for its commits.

    Args:
        url: URL of the proxy.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def options(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self._url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "aws_conditional_put": "etag",
            "max_retries": "1",
        }

    def script(
        self, commits_to: str, trouble: Trouble, *, every: int, victim: int | None = None
    ) -> None:
        """Inject a fault into the commits (PUTs of Delta log entries) of one table.

        Args:
            commits_to: Path of the table below the lakehouse, or a part that it begins with:
                "current/" is not "_tombstones/current/".
            trouble: `refused`: the store responds with 500 and stores nothing. `answer lost`:
                the store stores the entry, and the connection is closed without a response.
                `late`: the connection is closed at once, and the entry comes to the store with
                `deliver`, as if the network had kept it.
                `killed`: the committing process gets SIGKILL before or after the store stores
                the entry.
            every: Every nth commit is struck.
            victim: Id of the committing process.
        """
        script = {"commits_to": commits_to, "trouble": trouble, "every": every}
        self._post({**script, "victim": victim})

    def heal(self) -> int:
        """Stop the faults; return how many commits were struck."""
        return self._post({"commits_to": None, "trouble": "refused", "every": 1})

    def deliver(self) -> int:
        """Let the entries that are late come to the store; return how many it stored."""
        return self._post({}, DELIVER)

    def _post(self, script: dict[str, object], path: str = SCRIPT) -> int:
        body = json.dumps(script).encode()
        with urllib.request.urlopen(self._url + path, body, timeout=60) as answer:
            return int(json.load(answer)["count"])


@contextmanager
def faulty_store() -> Iterator[FaultyStore]:
    """Run the store in a process that ends with the block or with its parent."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        try:
            yield FaultyStore(process.stdout.readline().strip())
        finally:
            process.kill()
            process.wait()


class _Proxy(ThreadingHTTPServer):
    def __init__(self, moto: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.moto = moto
        self.lock = threading.Lock()
        self.late: list[tuple[str, bytes, dict[str, str]]] = []
        self.set_script({"commits_to": None, "trouble": "refused", "every": 1})

    def set_script(self, script: dict[str, object]) -> int:
        """Set a new script; return how often the previous one struck."""
        with self.lock:
            struck = getattr(self, "struck", 0)
            self.script = script
            self.commits = self.struck = 0
        return struck

    def trouble_of(self, method: str, path: str) -> object:
        commits_to = self.script["commits_to"]
        if commits_to is None or method != "PUT" or "/_delta_log/" not in path:
            return None
        _, _, _, table_path = path.split("/", 3)  # bucket, lakehouse
        if not table_path.startswith(str(commits_to)):
            return None
        with self.lock:
            self.commits += 1
            if self.commits % int(str(self.script["every"])):
                return None
            self.struck += 1
        return self.script["trouble"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == SCRIPT:
            struck = self.server.set_script(json.loads(body))
            self._answer(200, {}, json.dumps({"count": struck}).encode())
            return
        if self.path == DELIVER:
            late, self.server.late = self.server.late, []
            answers = [self._forwarded("PUT", *request)[0].status for request in late]
            self._answer(200, {}, json.dumps({"count": answers.count(200)}).encode())
            return
        trouble = self.server.trouble_of(self.command, self.path)
        if trouble == "refused":
            self._answer(500, {}, b"")
            return
        if trouble == "killed before":
            self._kill()
            return
        headers = dict(self.headers.items())
        if trouble == "late":
            self.server.late.append((self.path, body, headers))
            self._hang_up()
            return
        answer, content = self._forwarded(self.command, self.path, body, headers)
        if trouble == "killed after":
            self._kill()
        if trouble in ("answer lost", "killed after"):
            self._hang_up()
            return
        headers = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "connection")
        }
        self._answer(answer.status, headers, content)

    def _forwarded(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(*self.server.moto)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _kill(self) -> None:
        """Kill the process that sent this request; killing it twice does no harm."""
        with suppress(ProcessLookupError):
            os.kill(int(str(self.server.script["victim"])), signal.SIGKILL)
        self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        if "content-length" not in {name.lower() for name in headers}:
            headers["Content-Length"] = str(len(content))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )
    s3.create_bucket(Bucket=BUCKET)
    with _Proxy((host, port)) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        sys.stdout.write(f"http://127.0.0.1:{proxy.server_address[1]}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
