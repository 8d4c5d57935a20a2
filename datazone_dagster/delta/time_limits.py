"""Time that a request to an object store may take, where the user's options do not say.

A tick of a sensor has 60 seconds. A store that hangs must leave it time to report that: a request
that gets no answer in 20 seconds fails and is not repeated, one that fails at once is repeated
for 12 seconds. The libraries' own limits are 30 seconds and 3 minutes.
"""

from __future__ import annotations

from collections.abc import Mapping

REQUESTS = {
    "connect_timeout": "5s",
    "timeout": "20s",
    "max_retries": "8",
    "retry_timeout": "12s",
    "backoff_config.max_backoff": "3s",
}
"""Limits of all requests: those of a file up to `remote_files.SMALL_BYTES` included."""

UPLOADS = {**REQUESTS, "timeout": "90s"}
"""Limits of the upload of a large file by one request: it waits for a slow line, in one thread."""


def limited(options: Mapping[str, str], limits: Mapping[str, str] = REQUESTS) -> dict[str, str]:
    """Return options with the limits that they do not have, all under their canonical names."""
    return {**limits, **options}
