"""What users write: streams, datasets, sources and transforms, validated when they are built.

Every value is frozen, deep down, and every mistake is a `DefinitionError` at import time that
names the argument and the values it takes. Standard library only.
"""

from datazone_dagster.api.dataset import Dataset
from datazone_dagster.api.mapping import Input, Output, Stream
from datazone_dagster.api.source import DynamoDBSource
from datazone_dagster.api.transform import Transform, transform

__all__ = ["Dataset", "DynamoDBSource", "Input", "Output", "Stream", "Transform", "transform"]
