"""Conversion of a GetRecords response that botocore has parsed to a page of change records.

Used for clients whose responses can't be captured before the parser (see `capture`): about
twenty times the CPU, and the same page up to JSON formatting. The response is encoded as JSON
again and read by `wire`, so that stream records have one set of rules.
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


def page_from_parsed(answer: Mapping[str, Any], call: str = "GetRecords") -> RecordsPage:
    """Return the page in the dictionary that `client.get_records()` returned.

    Binary attributes, which botocore decodes, are base64 again. `body_bytes` is the length of
    the original body if the response has a content length, else that of the rebuilt JSON.

    Args:
        answer: Return value of `get_records`.
        call: Description of the call, for the error text.

    Raises:
        ServiceUnavailableError: The response is not one of GetRecords.
    """
    wire_form = {name: answer[name] for name in ("Records", "NextShardIterator") if name in answer}
    records = wire_form.get("Records")
    if isinstance(records, list):
        wire_form["Records"] = [_with_number_for_time(record) for record in records]
    try:
        body = msgspec.json.encode(wire_form)
    except (TypeError, ValueError, RecursionError) as error:
        raise ServiceUnavailableError(
            f"{call}: the parsed response contains a value that JSON can't represent ({error}).",
            safe="No position moved; the same page is read again.",
            hint="Check what this session's own botocore handlers do to the response.",
        ) from error
    page = parse_page(body, call)
    return page._replace(body_bytes=_wire_length(answer) or page.body_bytes)


def _with_number_for_time(record: Any) -> Any:
    """Undo botocore's conversion of the creation time to a datetime, if there is a record."""
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
