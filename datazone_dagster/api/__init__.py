"""Public API of a project: streams, datasets, sources and transforms, validated when built.

Every value is deeply frozen. Every mistake raises a `DefinitionError` at import time that names
the argument and its allowed values. Standard library only.
"""

from datazone_dagster.api.dataset import Dataset
from datazone_dagster.api.expect import Expect
from datazone_dagster.api.kinesis_source import KinesisSource
from datazone_dagster.api.mapping import Input, Output, Stream
from datazone_dagster.api.source import DynamoDBSource
from datazone_dagster.api.spark_engine import SparkEngine
from datazone_dagster.api.transform import Transform, transform

__all__ = [
    "Dataset",
    "DynamoDBSource",
    "Expect",
    "Input",
    "KinesisSource",
    "Output",
    "SparkEngine",
    "Stream",
    "Transform",
    "transform",
]
