"""What `dg` runs with our components: list, scaffold, check, refresh of the state."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_dg_finds_the_components_in_a_project(tmp_path: Path) -> None:
    """What `dg` runs: list, scaffold, check, in a project without an installed entry point."""
    package = tmp_path / "shop"
    (package / "defs").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "defs" / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS, "utf-8")
    (tmp_path / "pyproject.toml").write_text(PYPROJECT, "utf-8")
    script = tmp_path / "run_dg.py"
    script.write_text(RUN_DG, "utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2])])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


DEFINITIONS = """
from pathlib import Path
from dagster import definitions, load_from_defs_folder

@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
PYPROJECT = """
[project]
name = "shop"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "shop"
registry_modules = ["datazone_dagster"]
"""
RUN_DG = r"""
import json, os, shutil, sys
sys.path.insert(0, "")
from pathlib import Path
from click.testing import CliRunner
from dagster_dg_cli.cli import create_dg_cli

import boto3
from datazone_dagster.local import LocalDynamoDB

ONE = "datazone_dagster.DynamoDBStreamComponent"
BY_TAG = "datazone_dagster.DynamoDBTablesByTagComponent"
cli = create_dg_cli()

def dg(*arguments, code=0):
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == code, (arguments, done.output, done.exception)
    return done.stdout if code == 0 else done.output + str(done.exception)

listed = json.loads(dg("list", "components", "--json", "--package", "datazone_dagster"))
assert [one["key"] for one in listed["items"]] == [ONE, BY_TAG], listed
dg("scaffold", "defs", ONE, "orders", "--table-name", "orders", "--region", "eu-west-1")
file = Path("shop/defs/orders/defs.yaml")
assert "table_name: orders" in file.read_text()
dg("scaffold", "defs", BY_TAG, "tagged", "--tag-key", "team", "--tag-value", "shop")
tagged = Path("shop/defs/tagged/defs.yaml")
assert "tag_value: shop" in tagged.read_text()
dg("check", "yaml")
dg("check", "defs")
file.write_text(file.read_text().replace("table_name", "tabel_name"))
assert "tabel_name" in dg("check", "yaml", code=1)
shutil.rmtree(file.parent)

def assets():
    return {one["asset_key"] for one in json.loads(dg("list", "defs", "--json"))["assets"]}

with LocalDynamoDB(shards=1) as server:
    os.environ.update(AWS_ENDPOINT_URL=server.endpoint_url, AWS_DEFAULT_REGION="us-east-1")
    os.environ.update(AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local")
    assert "none found" in dg("utils", "refresh-defs-state", code=1)
    aws = boto3.client("dynamodb")
    ARN = aws.create_table(
        TableName="lost",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )["TableDescription"]["TableArn"]
    assert assets() == set(), "no state yet, and loading finds no table by itself"
    # The state of a first refresh is known to the second: a dataset stays without its tag.
    aws.tag_resource(ResourceArn=ARN, Tags=[{"Key": "team", "Value": "shop"}])
    dg("utils", "refresh-defs-state")
    aws.untag_resource(ResourceArn=ARN, TagKeys=["team"])
    dg("utils", "refresh-defs-state")
    assert assets() == {"dynamodb/lost", "lost"}
"""
