"""Sources of changes. Importing this module loads neither boto3 nor Dagster."""

from datazone_dagster.api.kinesis_source import KinesisSource
from datazone_dagster.api.source import DynamoDBSource

__all__ = ["DynamoDBSource", "KinesisSource"]
