"""Orders that a thread writes to a local DynamoDB until it is stopped."""

from __future__ import annotations

import http.client
import threading
from contextlib import suppress

from datazone_dagster.local.traffic import TABLE, OrderTraffic, create_orders_table, run_traffic
from datazone_dagster.local.wire_client import WireClient


class LiveOrders:
    """Writes orders in a thread, from `start` to `stop`, or until the server is gone.

    Args:
        endpoint_url: URL of the local DynamoDB.
        traffic: Changes to write.
        changes: Number of changes; None means until stopped.
        changes_per_second: Pace, above 0.
    """

    def __init__(
        self,
        endpoint_url: str,
        traffic: OrderTraffic,
        *,
        changes: int | None = None,
        changes_per_second: float,
    ) -> None:
        self.count = 0
        """Number of changes written so far."""
        self.traffic = traffic
        self._client = WireClient(endpoint_url)
        self._changes, self._changes_per_second = changes, changes_per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    @classmethod
    def in_new_table(cls, endpoint_url: str, changes_per_second: float) -> LiveOrders:
        """Return traffic for the table `orders`, which is created unless it exists.

        Orders of an earlier start are still there: the new ones have higher numbers.
        """
        client = WireClient(endpoint_url)
        create_orders_table(client)
        items = int(client.call("DescribeTable", TableName=TABLE)["Table"]["ItemCount"])
        # A tenth of the changes are deletes, so twice the items is above every number in use.
        traffic = OrderTraffic(seed=items, first_order=2 * items + 1)
        return cls(endpoint_url, traffic, changes_per_second=changes_per_second)

    def _write(self) -> None:
        with suppress(OSError, http.client.HTTPException):  # the server has stopped first
            run_traffic(
                self._client,
                self.traffic,
                changes=self._changes,
                changes_per_second=self._changes_per_second,
                stop=self._counted,
            )

    def _counted(self, pause_seconds: float) -> bool:
        self.count += 1
        return self._stop.wait(pause_seconds)

    def start(self) -> LiveOrders:
        """Start to write."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop to write, and wait for the write under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
