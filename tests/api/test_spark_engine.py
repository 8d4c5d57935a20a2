"""SparkEngine and what a dataset with it can be: refused where it is declared."""

from __future__ import annotations

from typing import Any

import pytest

from datazone_dagster import Dataset, Input, Output, SparkEngine, Stream, Transform, transform
from datazone_dagster.errors import DefinitionError
from datazone_dagster.sources import DynamoDBSource

ENGINE = SparkEngine(remote="sc://spark.example.com:15002")


def transform_with(*datasets: Dataset, lookup: bool = False, **options: Any) -> Transform:
    given = ("stream_enabled", "drain", "drain_workers")
    source = DynamoDBSource(
        "orders", **{name: options.pop(name) for name in given if name in options}
    )
    inputs = {"changes": Input(Stream(source=source))}
    if lookup:
        inputs["other"] = Input(Dataset("other"))

    def kept(changes: Any, other: Any = None) -> Any:
        return changes

    return transform(
        input_mapping=inputs,
        output_mapping={one.id: Output(one) for one in datasets},
        **options,
    )(kept)


def test_it_is_a_value_that_never_shows_its_parameters() -> None:
    secret = SparkEngine("sc://host:443/;use_ssl=true;token=secret", lakehouse="/mnt/lake")
    assert secret == SparkEngine("sc://host:443/;use_ssl=true;token=secret", lakehouse="/mnt/lake")
    assert {secret: 1}[secret] == 1
    assert "secret" not in repr(secret)
    assert "secret" not in repr(Dataset("d", engine=secret))
    assert secret.address == "sc://host:443"


@pytest.mark.parametrize("remote", ["", "http://host", "sc://", "sc://a b", "sc:///;x", None, 3])
def test_another_url_is_refused(remote: Any) -> None:
    with pytest.raises(DefinitionError, match="Spark Connect"):
        SparkEngine(remote=remote)


@pytest.mark.parametrize(
    "remote",
    [
        "sc://host:abc",
        "sc://host/;token=secret==",
        "sc://host/;secret",
        "sc://host/;token=secret;",
        "sc://host:1:2",
    ],
)
def test_a_url_that_its_client_would_show_in_an_error_is_refused(remote: str) -> None:
    with pytest.raises(DefinitionError, match="remote") as refused:
        SparkEngine(remote=remote)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["s3", "s3a", "s3n", "S3A"])
def test_a_lakehouse_on_s3_is_refused(scheme: str) -> None:
    with pytest.raises(DefinitionError, match=r"on S3|folder"):
        SparkEngine("sc://host", lakehouse=f"{scheme}://bucket/lake")


@pytest.mark.parametrize("lakehouse", ["", "lake", 3])
def test_another_lakehouse_is_refused(lakehouse: Any) -> None:
    with pytest.raises(DefinitionError, match="folder"):
        SparkEngine("sc://host", lakehouse=lakehouse)


@pytest.mark.parametrize(
    "setting",
    [
        {"mode": "history"},
        {"buckets": 16},
        {"schema_policy": "freeze"},
        {"schema_policy": {"*": "evolve", "a": "quarantine"}},
        {"expect": {"positive": "total > 0"}},
        {"engine": "sc://host"},
    ],
    ids=str,
)
def test_settings_that_it_does_not_support_are_refused(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(DefinitionError, match=name) as refused:
        Dataset("d", **{"engine": ENGINE, **setting})
    assert "engine" in str(refused.value)


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"mode": "append"},
        {"deletes": "soft"},
        {"partition_by": "region"},
        {"ttl_deletes": "ignore"},
        {"deletion_vectors": True},
    ],
    ids=str,
)
def test_the_others_are_not(setting: dict[str, Any]) -> None:
    assert Dataset("d", engine=ENGINE, **setting).engine == ENGINE
    assert Dataset("d", **setting).engine is None


def test_a_transform_has_one_engine() -> None:
    spark, ours = Dataset("spark", engine=ENGINE), Dataset("ours")
    assert transform_with(spark).engine == ENGINE
    assert transform_with(ours).engine is None
    with pytest.raises(DefinitionError, match="different engines"):
        transform_with(spark, ours)
    with pytest.raises(DefinitionError, match="stream_enabled"):
        transform_with(spark, stream_enabled=False)
    with pytest.raises(DefinitionError, match="look up"):
        transform_with(spark, lookup=True)
    with pytest.raises(DefinitionError, match="row_wise"):
        transform_with(spark, row_wise=True)
    with pytest.raises(DefinitionError, match="drain="):
        transform_with(spark, drain="runs", drain_workers=2)
