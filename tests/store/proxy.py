"""A proxy in front of a store: counts, delays, breaks and holds back requests.

It runs in a process of its own: delta-rs holds the interpreter's lock during some of its calls,
so a proxy in a thread of the same process could never answer them. The Host header goes through
unchanged, so the signatures of the clients hold.

Faults by script: "the 3rd PUT of a log entry gets 503", "every DELETE hangs". See `Proxy`.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

Kind = Literal[
    "log entry", "checkpoint", "last checkpoint", "list", "delete many", "multipart",
    "vectors", "data file", "other",
]  # fmt: skip
Action = Literal["answer", "reset", "hang", "ignore condition"]

_HEAD_BYTES = 1 << 20
_LOG_ENTRY = re.compile(r"/_delta_log/\d{20}\.json$")
_BLOB = re.compile(rb"<Blob><Name>(.*?)</Name>.*?</Blob>", re.DOTALL)
_ACCESS_KEY = re.compile(r"Credential=([^/]+)/")
_CODES = {
    301: "PermanentRedirect",
    400: "ExpiredToken",
    403: "AccessDenied",
    404: "NoSuchKey",
    500: "InternalError",
    501: "NotImplemented",
    503: "SlowDown",
}
_FAULT = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
    "<Message>{code} by script</Message><RequestId>1</RequestId></Error>"
)


@dataclass(frozen=True)
class Request:
    """A request that the proxy has seen.

    Args:
        method: HTTP method.
        kind: What it asks for.
        path: Path with query, percent-encoded as sent.
        status: Status of the answer that the client got; 0 if it got none.
        headers: Headers of the request, names in lower case.
    """

    method: str
    kind: Kind
    path: str
    status: int
    headers: Mapping[str, str]

    @property
    def access_key(self) -> str | None:
        """Access key id in the signature; None if the request is not signed."""
        found = _ACCESS_KEY.search(self.headers.get("authorization", ""))
        return found[1] if found else None


@dataclass
class Counts:
    """Requests and new connections of a block; complete when the block has ended."""

    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def by_method(self) -> Counter[str]:
        """Requests by HTTP method."""
        return Counter(one.method for one in self.requests)

    @property
    def by_kind(self) -> Counter[tuple[str, Kind]]:
        """Requests by HTTP method and kind."""
        return Counter((one.method, one.kind) for one in self.requests)


class Proxy:
    """The proxy as a test uses it.

    Args:
        url: URL for clients of the store.
        control_url: URL of the control port, whose requests are not counted.
    """

    def __init__(self, url: str, control_url: str) -> None:
        self.url = url
        self._control_url = control_url

    def counts(self) -> Counts:
        """Return what was seen since the last call."""
        seen = self._post("seen", {})
        requests = [Request(**one) for one in seen["requests"]]
        return Counts(requests, int(seen["connections"]))

    @contextmanager
    def counted(self) -> Iterator[Counts]:
        """Count the requests of a block."""
        self.counts()
        found = Counts()
        yield found
        seen = self.counts()
        found.requests, found.connections = seen.requests, seen.connections

    def delay(self, milliseconds: float) -> None:
        """Delay each request from now on; 0 ends it."""
        self._post("delay", {"seconds": milliseconds / 1000})

    @contextmanager
    def delayed(self, milliseconds: float) -> Iterator[None]:
        """Delay each request of a block."""
        self.delay(milliseconds)
        try:
            yield
        finally:
            self.delay(0)

    def break_requests(
        self,
        action: Action | int,
        *,
        nth: int = 1,
        times: int | None = 1,
        methods: Sequence[str] = (),
        kinds: Sequence[Kind] = (),
        path: str = "",
        after: bool = False,
        code: str | None = None,
    ) -> None:
        """Add a fault, until `heal`.

        Args:
            action: A status to answer with (an error of S3 as XML); `reset`: the connection is
                closed without an answer; `hang`: no answer at all until `heal`; `ignore condition`:
                a refused conditional PUT is answered as if it had been carried out.
            nth: First request that is struck, counted from 1 among those that match.
            times: How many are struck in turn; None for all.
            methods: HTTP methods that match; empty for all.
            kinds: Kinds that match; empty for all.
            path: Substring of the path that matches, decoded.
            after: Whether the store gets the request all the same.
            code: Error code of S3; by default the usual one of the status.
        """
        status = action if isinstance(action, int) else 0
        fault = {
            "action": "answer" if isinstance(action, int) else action,
            "status": status,
            "code": code or _CODES.get(status, "InternalError"),
            "nth": nth,
            "times": times,
            "methods": list(methods),
            "kinds": list(kinds),
            "path": path,
            "after": after,
        }
        self._post("break", fault)

    def heal(self) -> int:
        """Remove all faults, let go of what hangs, and return how many requests were struck."""
        return int(self._post("heal", {})["struck"])

    @contextmanager
    def broken(self, action: Action | int, **which: Any) -> Iterator[None]:
        """Break requests of a block as `break_requests` does, with its arguments."""
        self.break_requests(action, **which)
        try:
            yield
        finally:
            self.heal()

    def _post(self, operation: str, body: Mapping[str, Any]) -> Any:
        content = json.dumps(body).encode()
        with urllib.request.urlopen(f"{self._control_url}/{operation}", content, 30) as answer:
            return json.load(answer)


@contextmanager
def proxy_for(address: tuple[str, int]) -> Iterator[Proxy]:
    """Run a proxy for this server, in a process that ends with the block or with its parent."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, address[0], str(address[1])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        try:
            url, control_url = process.stdout.readline().split()
            yield Proxy(url, control_url)
        finally:
            process.kill()
            process.wait()


# -- the process


def kind_of(method: str, target: str) -> Kind:
    """Return what a request asks for; paths are those of S3 and of Azure's blobs."""
    path, _, query = target.partition("?")
    path = unquote(path)
    if method == "GET" and ("list-type=" in query or "comp=list" in query):
        return "list"
    if method == "POST" and (query == "delete" or query.startswith(("delete=", "delete&"))):
        return "delete many"
    if "uploads" in query or "uploadId=" in query or "comp=block" in query:
        return "multipart"
    if _LOG_ENTRY.search(path):
        return "log entry"
    if path.endswith("/_delta_log/_last_checkpoint"):
        return "last checkpoint"
    if "/_delta_log/" in path:
        return "checkpoint" if ".checkpoint." in path else "other"
    if path.endswith(".bin"):
        return "vectors"
    return "data file" if path.endswith(".parquet") else "other"


@dataclass
class _Message:
    """One request or response: its first line, headers as sent, body."""

    first: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def encoded(self, *, framed: bool = True) -> bytes:
        """Bytes of the message; `framed` sets its Content-Length."""
        headers = self.headers
        if framed:
            headers = [
                (key, value)
                for key, value in headers
                if key.lower() not in ("content-length", "transfer-encoding")
            ]
            headers = [*headers, ("Content-Length", str(len(self.body)))]
        lines = [self.first, *(f"{key}: {value}" for key, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


async def _read_message(
    reader: asyncio.StreamReader, *, asked: str | None = None
) -> _Message | None:
    """Read a request, or the response to a request of method `asked`; None at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = [(key, value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    message = _Message(first, headers, b"")
    status = first.split(" ")[1] if asked else ""
    if asked == "HEAD" or status in ("204", "304"):
        return message
    if message.header("transfer-encoding").lower() == "chunked":
        message.body = await _read_chunks(reader)
    else:
        message.body = await reader.readexactly(int(message.header("content-length") or 0))
    return message


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return bytes(body)


class _Fault:
    def __init__(self, script: Mapping[str, Any]) -> None:
        self.action: Action = script["action"]
        self.status, self.code, self.after = script["status"], script["code"], script["after"]
        self._script, self._matched = script, 0

    def strikes(self, method: str, kind: Kind, path: str) -> bool:
        script = self._script
        if (script["methods"] and method not in script["methods"]) or (
            script["kinds"] and kind not in script["kinds"]
        ):
            return False
        if script["path"] not in unquote(path):
            return False
        self._matched += 1
        position = self._matched - script["nth"]
        return position >= 0 and (script["times"] is None or position < script["times"])


class _Server:
    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._faults: list[_Fault] = []
        self._healed = asyncio.Event()
        self._seen: list[dict[str, Any]] = []
        self._connections = self._struck = 0
        self._delay_seconds = 0.0
        self._tasks: set[Any] = set()  # asyncio itself forgets them, and then they end

    # -- control

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read_message(reader)
        if request is not None:
            operation = request.first.split(" ")[1].strip("/")
            answer = getattr(self, f"_do_{operation}")(json.loads(request.body))
            content = json.dumps(answer).encode()
            headers = [("Content-Type", "application/json"), ("Connection", "close")]
            writer.write(_Message("HTTP/1.1 200 OK", headers, content).encoded())
            await writer.drain()
        writer.close()

    def _do_seen(self, _: Mapping[str, Any]) -> dict[str, Any]:
        seen = {"requests": self._seen, "connections": self._connections}
        self._seen, self._connections = [], 0
        return seen

    def _do_delay(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self._delay_seconds = float(body["seconds"])
        return {}

    def _do_break(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self._faults.append(_Fault(body))
        return {}

    def _do_heal(self, _: Mapping[str, Any]) -> dict[str, Any]:
        struck, self._struck, self._faults = self._struck, 0, []
        self._healed.set()
        self._healed = asyncio.Event()
        return {"struck": struck}

    # -- the store

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        task = asyncio.current_task()
        self._tasks.add(task)
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            upstream = await asyncio.open_connection(*self._upstream, limit=_HEAD_BYTES)
            while (request := await _read_message(reader)) is not None:
                answer = await self._answer(request, upstream)
                if answer is None:
                    writer.transport.abort()
                    break
                writer.write(answer.encoded(framed=not request.first.startswith("HEAD ")))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # One of the two sides went away; the other notices.
        finally:
            self._tasks.discard(task)
            writer.close()
            if upstream is not None:
                upstream[1].close()

    async def _answer(
        self, request: _Message, upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> _Message | None:
        method, path, _ = request.first.split(" ")
        kind = kind_of(method, path)
        fault = next((one for one in self._faults if one.strikes(method, kind, path)), None)
        headers = {key.lower(): value for key, value in request.headers}
        seen = {"method": method, "kind": kind, "path": path, "status": 0, "headers": headers}
        self._seen.append(seen)
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)
        answer = None
        if fault is None or fault.after or fault.action == "ignore condition":
            answer = await _forwarded(request, upstream, method)
        if fault is not None:
            self._struck += 1
            answer = await self._struck_answer(fault, answer)
        if answer is not None:
            seen["status"] = int(answer.first.split(" ")[1])
        return answer

    async def _struck_answer(self, fault: _Fault, answer: _Message | None) -> _Message | None:
        if fault.action == "ignore condition" and answer is not None:
            if " 412 " in answer.first:
                return _Message("HTTP/1.1 200 OK", [("ETag", '"0"')], b"")
            return answer
        if fault.action == "hang":
            await self._healed.wait()
        if fault.action != "answer":
            return None
        content = _FAULT.format(code=fault.code).encode()
        return _Message(
            f"HTTP/1.1 {fault.status} {fault.code}", [("Content-Type", "application/xml")], content
        )


async def _forwarded(
    request: _Message,
    upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    method: str,
) -> _Message:
    reader, writer = upstream
    writer.write(request.encoded(framed=bool(request.body or request.header("content-length"))))
    await writer.drain()
    answer = await _read_message(reader, asked=method)
    if answer is None:
        raise ConnectionResetError
    start = re.search(r"[?&]startFrom=([^& ]+)", request.first)
    if start and " 200 " in answer.first:
        # Azure lists from this name on. Azurite ignores it, and delta-rs relies on it.
        first = unquote(start[1]).encode()
        answer.body = _BLOB.sub(
            lambda blob: b"" if html.unescape(blob[1].decode()).encode() < first else blob[0],
            answer.body,
        )
    return answer


async def _run(host: str, port: int) -> None:
    server = _Server(host, port)
    store = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
    control = await asyncio.start_server(server.control, "127.0.0.1", 0, limit=_HEAD_BYTES)
    ports = [one.sockets[0].getsockname()[1] for one in (store, control)]
    sys.stdout.write(" ".join(f"http://127.0.0.1:{port}" for port in ports) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(sys.argv[1], int(sys.argv[2])))
