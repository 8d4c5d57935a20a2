"""Guard of `dagster dev`: a laptop with AWS keys does not drain production unasked.

Sensors run by default, which is right for a deployment. `dagster dev` runs them, too: with the
keys of a developer, the tables of DynamoDB would be drained into a folder of the laptop, as one of
the two readers that a shard has.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from dagster import DefaultSensorStatus, EnvVar

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.resources import (
    LAKEHOUSE_URI_VARIABLE,
    DynamoDBStreamsResource,
    Lakehouse,
)

DEV_VARIABLE = "DAGSTER_IS_DEV_CLI"
"""Set by `dagster dev`, for its code servers as well."""
ALLOW_VARIABLE = "DATAZONE_ALLOW_DEV"
ENDPOINT_VARIABLES = (
    "AWS_ENDPOINT_URL_DYNAMODB_STREAMS",
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_ENDPOINT_URL",
)

_logger = logging.getLogger(__name__)

_AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


def guarded(
    options: RunOptions,
    lakehouse: Lakehouse,
    dynamodb: DynamoDBStreamsResource,
    sources: Iterable[DynamoDBSource],
) -> RunOptions:
    """Return the options of a call that gave no status: stopped, with the reason, or as they are.

    Sensors start unless all of this is true: the process is part of `dagster dev`, the lakehouse is
    the default folder, and a source with a stream is in AWS. `DATAZONE_ALLOW_DEV=1` says that this
    is wanted.
    """
    if not os.environ.get(DEV_VARIABLE) or os.environ.get(ALLOW_VARIABLE, "0") not in ("", "0"):
        return options
    if _value(lakehouse.uri) or os.environ.get(LAKEHOUSE_URI_VARIABLE):
        return options
    in_aws = {one.table_name for one in sources if one.stream_enabled and _is_in_aws(one, dynamodb)}
    if not in_aws:
        return options
    reason = (
        f"`dagster dev` does not drain {', '.join(sorted(in_aws))} in AWS into a folder of this "
        "machine by itself. Start the sensor in the UI, set DATAZONE_ALLOW_DEV=1, give the "
        "lakehouse a location, or use build_definitions(default_status=...)."
    )
    _logger.warning("%s", reason)
    return replace(options, default_status=DefaultSensorStatus.STOPPED, why_stopped=reason)


def _is_in_aws(source: DynamoDBSource, dynamodb: DynamoDBStreamsResource) -> bool:
    """Return whether the stream of a source is read from AWS, not from an emulator or a proxy."""
    variables = (os.environ.get(name) for name in ENDPOINT_VARIABLES)
    named = (source.endpoint_url, _value(dynamodb.endpoint_url), *variables)
    endpoint = next((one for one in named if one), None)
    return endpoint is None or (urlsplit(endpoint).hostname or "").endswith(_AWS_DOMAINS)


def _value(setting: str | None) -> str | None:
    return setting.get_value() if isinstance(setting, EnvVar) else setting
