"""DynamoDB Streams become Delta Lake tables in Dagster.

Public names load on first use (PEP 562). Importing this package loads neither Dagster nor
boto3 nor Delta Lake, so transforms are cheap to define and to test.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datazone_dagster.api.dataset import Dataset
    from datazone_dagster.api.expect import Expect
    from datazone_dagster.api.mapping import Input, Output, Stream
    from datazone_dagster.api.source import DynamoDBSource
    from datazone_dagster.api.spark_engine import SparkEngine
    from datazone_dagster.api.transform import Transform, transform
    from datazone_dagster.dagster_glue.alerts.alerting import alert_sensor
    from datazone_dagster.dagster_glue.alerts.alerts import CheckEvent, slack_alert
    from datazone_dagster.dagster_glue.alerts.notifiers import apprise, slack, webhook
    from datazone_dagster.dagster_glue.assets.conditions import on_applied
    from datazone_dagster.dagster_glue.components.stream_component import DynamoDBStreamComponent
    from datazone_dagster.dagster_glue.components.tables_by_tag_component import (
        DynamoDBTablesByTagComponent,
    )
    from datazone_dagster.dagster_glue.definitions import build_definitions
    from datazone_dagster.dagster_glue.instance_config import dagster_yaml
    from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource, Lakehouse
    from datazone_dagster.dagster_glue.translator import (
        DagsterDatazoneTranslator,
        DatazoneAssetData,
    )
    from datazone_dagster.errors import DatazoneError
    from datazone_dagster.pipeline import DatasetReader

__all__ = [
    "CheckEvent",
    "DagsterDatazoneTranslator",
    "Dataset",
    "DatasetReader",
    "DatazoneAssetData",
    "DatazoneError",
    "DynamoDBSource",
    "DynamoDBStreamComponent",
    "DynamoDBStreamsResource",
    "DynamoDBTablesByTagComponent",
    "Expect",
    "Input",
    "Lakehouse",
    "Output",
    "SparkEngine",
    "Stream",
    "Transform",
    "alert_sensor",
    "apprise",
    "build_definitions",
    "dagster_yaml",
    "on_applied",
    "slack",
    "slack_alert",
    "transform",
    "webhook",
]

_MODULES = {
    "CheckEvent": "dagster_glue.alerts.alerts",
    "DagsterDatazoneTranslator": "dagster_glue.translator",
    "Dataset": "api.dataset",
    "DatasetReader": "pipeline",
    "DatazoneAssetData": "dagster_glue.translator",
    "DatazoneError": "errors",
    "DynamoDBSource": "api.source",
    "DynamoDBStreamComponent": "dagster_glue.components.stream_component",
    "DynamoDBStreamsResource": "dagster_glue.resources",
    "DynamoDBTablesByTagComponent": "dagster_glue.components.tables_by_tag_component",
    "Expect": "api.expect",
    "Input": "api.mapping",
    "Lakehouse": "dagster_glue.resources",
    "Output": "api.mapping",
    "SparkEngine": "api.spark_engine",
    "Stream": "api.mapping",
    "Transform": "api.transform",
    "alert_sensor": "dagster_glue.alerts.alerting",
    "apprise": "dagster_glue.alerts.notifiers",
    "build_definitions": "dagster_glue.definitions",
    "dagster_yaml": "dagster_glue.instance_config",
    "on_applied": "dagster_glue.assets.conditions",
    "slack": "dagster_glue.alerts.notifiers",
    "slack_alert": "dagster_glue.alerts.alerts",
    "transform": "api.transform",
    "webhook": "dagster_glue.alerts.notifiers",
}


if not TYPE_CHECKING:  # a type checker must still find misspelt names

    def __getattr__(name: str) -> object:
        """Load a public name on first use."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
