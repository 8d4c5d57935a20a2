"""A small DynamoDB client on the standard library, for the local server only.

It signs nothing. It is here because the traffic and the admin calls must not need boto3.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from datazone_dagster.local.service_errors import ServiceError

_TIMEOUT_SECONDS = 30.0


class WireClient:
    """Talks to a local DynamoDB. One connection a thread, kept alive. Nothing is retried.

    `put_item`, `update_item` and `delete_item` have the shape of boto3's client.

    Args:
        endpoint_url: The server's URL.
        region: The region that new tables and their ARNs get.

    Example:
        `WireClient(server.endpoint_url).call("PutItem", TableName="orders", Item=item)`
    """

    def __init__(self, endpoint_url: str, region: str = "us-east-1") -> None:
        self._address = urlsplit(endpoint_url).netloc
        self._region = region
        self._local = threading.local()

    def call(self, operation: str, /, **request: Any) -> dict[str, Any]:
        """One DynamoDB operation; its answer.

        Raises:
            ServiceError: The server refused the request.
            OSError: The server is not there.
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
        """`PutItem`, called as boto3's client calls it."""
        return self.call("PutItem", **request)

    def update_item(self, **request: Any) -> dict[str, Any]:
        """`UpdateItem`, called as boto3's client calls it."""
        return self.call("UpdateItem", **request)

    def delete_item(self, **request: Any) -> dict[str, Any]:
        """`DeleteItem`, called as boto3's client calls it."""
        return self.call("DeleteItem", **request)

    def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """One request; its answer, or its error raised."""
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


def post_json(endpoint_url: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """One JSON request on a connection of its own.

    Raises:
        ServiceError: The server refused the request.
        OSError: The server is not there.
    """
    client = WireClient(endpoint_url)
    try:
        return client.post(path, body, {"Content-Type": "application/json"})
    finally:
        client.close()
