"""From a GetRecords answer that botocore has parsed to a page of change records.

The ordinary way, for clients whose answers can't be taken before the parser (`capture`):
about twenty times the CPU, the same page up to JSON formatting. It goes back to JSON and
through `wire`, so that there is one set of rules for what a stream record is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from datazone_dagster.errors import ServiceUnavailableError
from datazone_dagster.model.record import RecordsPage
from datazone_dagster.source.wire import parse_page

_CREATED = "ApproximateCreationDateTime"


def page_from_parsed(answer: Mapping[str, Any], place: str = "GetRecords") -> RecordsPage:
    """The page in the dictionary that `client.get_records()` returned.

    Binary attributes, which botocore decodes, are base64 again. `body_bytes` is the
    length of the body as it came where the answer tells it, else of the rebuilt JSON.

    Args:
        answer: The return value of `get_records`.
        place: What was called, for the error.

    Raises:
        ServiceUnavailableError: It is not the answer of GetRecords.
    """
    wire_form = {name: answer[name] for name in ("Records", "NextShardIterator") if name in answer}
    records = wire_form.get("Records")
    if isinstance(records, list):
        wire_form["Records"] = [_with_number_for_time(record) for record in records]
    try:
        body = msgspec.json.encode(wire_form)
    except (TypeError, ValueError) as error:
        raise ServiceUnavailableError(
            f"{place}: the parsed answer holds something that JSON can't ({error}).",
            safe="No position moved; the same page is read again.",
            hint="Look at what this session's own botocore handlers do to the answer.",
        ) from error
    page = parse_page(body, place)
    return page._replace(body_bytes=_wire_length(answer) or page.body_bytes)


def _with_number_for_time(record: Any) -> Any:
    """botocore turns the creation time into a datetime, if it finds a record there."""
    if not isinstance(record, Mapping) or not isinstance(record.get("dynamodb"), Mapping):
        return record
    created = record["dynamodb"].get(_CREATED)
    if not isinstance(created, datetime):
        return record
    return {**record, "dynamodb": {**record["dynamodb"], _CREATED: created.timestamp()}}


def _wire_length(answer: Mapping[str, Any]) -> int:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    length = str(headers.get("content-length", ""))
    return int(length) if length.isascii() and length.isdigit() else 0
