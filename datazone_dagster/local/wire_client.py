"""Small DynamoDB client on the standard library, for the local server only.

Requests are not signed. The client exists because the traffic and the admin calls must not
need boto3.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from datazone_dagster.local.service_errors import ServiceError

_TIMEOUT_SECONDS = 30.0


class WireClient:
    """Client of a local DynamoDB: one keep-alive connection per thread, no retries.

    `put_item`, `update_item` and `delete_item` have the signatures of boto3's client.

    Args:
        endpoint_url: URL of the server.
        region: Region of new tables and their ARNs.

    Example:
        `WireClient(server.endpoint_url).call("PutItem", TableName="orders", Item=item)`
    """

    def __init__(self, endpoint_url: str, region: str = "us-east-1") -> None:
        self._address = urlsplit(endpoint_url).netloc
        self._region = region
        self._local = threading.local()

    def call(self, operation: str, /, **request: Any) -> dict[str, Any]:
        """Call one DynamoDB operation and return its answer.

        Raises:
            ServiceError: The server refused the request.
            OSError: The server can't be reached.
        """
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Authorization": (
                f"AWS4-HMAC-SHA256 Credential=local/20240101/{self._region}/dynamodb/aws4_request"
            ),
        }
        return self.post("/", request, headers)

    def put_item(self, **request: Any) -> dict[str, Any]:
        """`PutItem`, with the arguments of boto3's client."""
        return self.call("PutItem", **request)

    def update_item(self, **request: Any) -> dict[str, Any]:
        """`UpdateItem`, with the arguments of boto3's client."""
        return self.call("UpdateItem", **request)

    def delete_item(self, **request: Any) -> dict[str, Any]:
        """`DeleteItem`, with the arguments of boto3's client."""
        return self.call("DeleteItem", **request)

    def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """Send one request and return its answer, or raise its error."""
        connection = self._connection()
        try:
            connection.request("POST", path, msgspec.json.encode(body), dict(headers))
            response = connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        answer = msgspec.json.decode(raw, type=dict[str, Any])
        if response.status != 200:
            code = str(answer.pop("__type", "")).rsplit("#", 1)[-1]
            message = str(answer.pop("message", ""))
            raise ServiceError(code, message, status=response.status, extra=answer)
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None and _closed_by_server(connection):
            self.close()
            connection = None
        if connection is None:
            connection = http.client.HTTPConnection(self._address, timeout=_TIMEOUT_SECONDS)
            self._local.connection = connection
        return connection

    def close(self) -> None:
        """Close this thread's connection; the next call opens a new one."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None


def _closed_by_server(connection: http.client.HTTPConnection) -> bool:
    """Return whether the server has ended an idle connection: there is nothing to wait for."""
    if connection.sock is None:
        return False
    connection.sock.settimeout(0)
    try:
        connection.sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.sock.settimeout(_TIMEOUT_SECONDS)
    return True


def post_json(
    endpoint_url: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
) -> dict[str, Any]:
    """Send one JSON request on a connection of its own and return the answer.

    Raises:
        ServiceError: The server refused the request.
        OSError: The server can't be reached.
    """
    client = WireClient(endpoint_url)
    try:
        return client.post(path, body, {"Content-Type": "application/json", **headers})
    finally:
        client.close()
