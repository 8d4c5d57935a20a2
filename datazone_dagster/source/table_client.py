"""Table client for DynamoDB, or for any service that implements its API: scans and single items."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from datazone_dagster.errors import ServiceUnavailableError, SourceError, ThrottledError
from datazone_dagster.model.service_limits import BATCH_KEYS
from datazone_dagster.model.table_scan import ScanPage, TableDescription
from datazone_dagster.source import capture
from datazone_dagster.source.failures import Call, translated
from datazone_dagster.source.item_wire import (
    CanonicalKey,
    KeySlicer,
    canonical,
    parse_batch,
    parse_scan,
    request_key,
    wire_body,
)
from datazone_dagster.source.service_time import served_at
from datazone_dagster.source.session import ClientFactory, Clients

_WAIT_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Longest wait before unprocessed keys are asked again, for each time in a row without an item."""

_BATCH_MEMBERS = ("Responses", "UnprocessedKeys")
_SCAN_MEMBERS = ("Items", "Count", "LastEvaluatedKey", "ConsumedCapacity")


class BotoTableClient:
    """`TableClient` of `model.table_scan`, on botocore.

    Safe to call from several threads. They share the HTTP connections of one client, at most
    `ConnectionSettings.max_pool_connections`.

    Args:
        table_name: Name or ARN of the table.
        clients: Pair of clients, or a function that builds it; called once, on first use.
        role_arn: Role that the clients assume, for error texts.
        wait: Function that waits a number of seconds before unprocessed keys are asked again.

    Every method raises only subclasses of `SourceError` (see the protocol).
    """

    def __init__(
        self,
        table_name: str,
        clients: Clients | ClientFactory,
        *,
        role_arn: str | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.table_name = table_name
        self._factory = clients
        self._role_arn = role_arn
        self._wait = wait
        self._lock = threading.Lock()
        self._clients: Clients | None = None
        self._slicer: KeySlicer | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.table_name!r})"

    def describe_table(self) -> TableDescription:
        """See `TableClient`."""
        call = self._call("DescribeTable")
        ask: Any = self._connected().dynamodb.describe_table
        with translated(call):
            answer = ask(TableName=self.table_name)
            return replace(
                _description(self.table_name, answer["Table"]), served_at=served_at(answer)
            )

    def scan_page(
        self, segment: int, segments: int, start_key: str | None, *, consistent: bool
    ) -> ScanPage:
        """See `TableClient`."""
        call = self._call("Scan")
        slicer = self._keys()
        request: dict[str, Any] = {
            "TableName": self.table_name,
            "Segment": segment,
            "TotalSegments": segments,
            "ConsistentRead": consistent,
            "ReturnConsumedCapacity": "TOTAL",
        }
        if start_key is not None:
            request["ExclusiveStartKey"] = request_key(start_key, call.summary)
        ask: Any = self._connected().dynamodb.scan
        with translated(call), capture.capturing() as answer:
            parsed = ask(**request)
        body = answer.body(call.summary) or wire_body(parsed, *_SCAN_MEMBERS)
        page = parse_scan(body, slicer, call.summary, consistent=consistent)
        if page.next_key is not None and page.next_key == start_key:
            raise _endless(call)
        return ScanPage(page.items, page.next_key, page.read_units, _service_time(parsed, call))

    def get_items(self, keys: Sequence[str]) -> dict[str, str]:
        """See `TableClient`."""
        call = self._call("BatchGetItem")
        asked: dict[CanonicalKey, dict[str, Any]] = {}
        texts: list[tuple[str, CanonicalKey]] = []
        for text in keys:
            request = request_key(text, call.summary)
            key = canonical(text)
            asked[key] = request
            texts.append((text, key))
        images: dict[CanonicalKey, str] = {}
        waiting, fruitless = list(asked), 0
        while waiting:
            group, waiting = waiting[:BATCH_KEYS], waiting[BATCH_KEYS:]
            found, unprocessed = self._batch({key: asked[key] for key in group}, call)
            images.update(found)
            waiting += unprocessed
            fruitless = fruitless + 1 if len(unprocessed) == len(group) else 0
            if fruitless > len(_WAIT_SECONDS):
                raise _unprocessed(call, len(waiting))
            if unprocessed:
                # Full jitter, as botocore's own retries: callers must not come back together.
                longest = _WAIT_SECONDS[max(fruitless - 1, 0)]
                self._wait(random.uniform(0, longest))
        return {text: images[key] for text, key in texts if key in images}

    def _batch(
        self, asked: dict[CanonicalKey, dict[str, Any]], call: Call
    ) -> tuple[dict[CanonicalKey, str], list[CanonicalKey]]:
        """Ask for up to 100 keys; return the images found and the keys left unprocessed."""
        slicer = self._keys()
        request = {"Keys": list(asked.values()), "ConsistentRead": True}
        ask: Any = self._connected().dynamodb.batch_get_item
        with translated(call), capture.capturing() as answer:
            parsed = ask(RequestItems={self.table_name: request}, ReturnConsumedCapacity="TOTAL")
        body = answer.body(call.summary) or wire_body(parsed, *_BATCH_MEMBERS)
        batch = parse_batch(body, slicer, call.summary)
        if not asked.keys() >= batch.images.keys() | batch.unprocessed:
            raise _not_asked(call)
        return batch.images, [key for key in asked if key in batch.unprocessed]

    def close(self) -> None:
        """Close the HTTP connections. The client must not be used afterwards."""
        if self._clients is not None:
            for client in self._clients:
                client.close()

    def _keys(self) -> KeySlicer:
        """Return the slicer of the table's keys: the key schema of a table never changes."""
        if self._slicer is None:
            self._slicer = KeySlicer(self.describe_table().key_names)
        return self._slicer

    def _connected(self) -> Clients:
        if self._clients is None:
            with self._lock:
                if self._clients is None:
                    factory = self._factory
                    clients = factory if isinstance(factory, Clients) else factory()
                    capture.install(clients.dynamodb, "Scan", "BatchGetItem")
                    self._clients = clients
        return self._clients

    def _call(self, operation: str) -> Call:
        client = self._connected().dynamodb
        return Call(
            operation,
            self.table_name,
            client.meta.region_name,
            client.meta.endpoint_url,
            role_arn=self._role_arn,
        )


def _description(table_name: str, table: Any) -> TableDescription:
    by_type = {element["KeyType"]: element["AttributeName"] for element in table["KeySchema"]}
    provisioned = table.get("ProvisionedThroughput", {}).get("ReadCapacityUnits", 0)
    warm = table.get("WarmThroughput", {}).get("ReadUnitsPerSecond", 0)
    units = provisioned or warm
    # The service shows a limit that was removed as -1.
    limit = table.get("OnDemandThroughput", {}).get("MaxReadRequestUnits", 0)
    return TableDescription(
        table_name=table_name,
        table_arn=table.get("TableArn") or None,
        table_id=table.get("TableId") or None,
        key_names=tuple(by_type[kind] for kind in ("HASH", "RANGE") if kind in by_type),
        item_count=table.get("ItemCount", 0),
        size_bytes=table.get("TableSizeBytes", 0),
        read_units_per_second=float(units) if units > 0 else None,
        max_read_units=float(limit) if limit > 0 else None,
    )


def _service_time(answer: Any, call: Call) -> datetime:
    at = served_at(answer)
    if at is None:
        raise ServiceUnavailableError(
            f"{call.summary}: the response has no valid Date header.",
            safe=call.safe,
            hint="A scan is ordered against the stream by the time of the service, never by the "
            "clock of this machine: look for a proxy that removes the header.",
        )
    return at


def _unprocessed(call: Call, count: int) -> ThrottledError:
    return ThrottledError(
        f"{call.summary}: {count:,} keys are still unprocessed after {len(_WAIT_SECONDS)} more "
        "attempts without an item.",
        safe="No item counts as absent because of it.",
        hint="The read capacity of the table is used up: lower snapshot_rcu, or raise the "
        "capacity. The next attempt asks again.",
    )


def _endless(call: Call) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"{call.summary}: the service returns the same page again and again.",
        safe=call.safe,
        hint="Check the endpoint URL: an emulator may not page as DynamoDB does.",
    )


def _not_asked(call: Call) -> SourceError:
    return ServiceUnavailableError(
        f"{call.summary}: the response holds keys that were not asked for.",
        safe="No item counts as absent because of it.",
        hint="Check the endpoint URL: an emulator may not answer as DynamoDB does.",
    )
