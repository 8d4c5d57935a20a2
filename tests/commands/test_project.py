from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datazone_dagster.commands.project import Project, load_project
from datazone_dagster.errors import DefinitionError

ORDERS = """
from datazone_dagster import *
from datazone_dagster.sources import DynamoDBSource

@transform(
    input_mapping={"orders": Input(Stream(source=DynamoDBSource("shop.orders")))},
    output_mapping={"open_orders": Output(Dataset("open_orders"))},
)
def open_orders(orders):
    return orders.items()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("DATAZONE_LAKEHOUSE_URI", raising=False)
    yield tmp_path
    for name in list(sys.modules):
        if name.partition(".")[0] in ("definitions", "shop_pipelines"):
            del sys.modules[name]


def load(folder: Path, code: str, **options: str) -> Project:
    (folder / "definitions.py").write_text(code, "utf-8")
    return load_project(**options)


def test_the_arguments_of_build_definitions_are_found(folder: Path) -> None:
    project = load(
        folder,
        f"{ORDERS}\ndefs = build_definitions([open_orders], lakehouse=Lakehouse("
        "uri='s3://lake/shop', storage_options={'AWS_REGION': 'eu-west-1'}))",
    )
    assert [one.name for one in project.transforms] == ["open_orders"]
    assert project.layout.uri == "s3://lake/shop"
    assert project.layout.storage_options == {"AWS_REGION": "eu-west-1"}
    assert list(project.sources) == ["shop_orders"]
    assert project.source_of("shop.orders") is project.source_of("shop_orders")
    transform, dataset = project.writer_of("open_orders")
    assert (transform.name, dataset.id) == ("open_orders", "open_orders")


def test_variables_are_resolved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        f"{ORDERS}\nfrom dagster import EnvVar\n"
        "defs = build_definitions([open_orders], lakehouse=Lakehouse(uri=EnvVar('LAKE')))"
    )
    monkeypatch.setenv("LAKE", str(folder / "lake"))
    assert load(folder, code).layout.uri == str(folder / "lake")


def test_transforms_of_other_modules_and_merged_definitions(folder: Path) -> None:
    package = folder / "shop_pipelines"
    package.mkdir()
    (package / "__init__.py").write_text("", "utf-8")
    (package / "orders.py").write_text(ORDERS, "utf-8")
    (package / "definitions.py").write_text(
        "from dagster import Definitions\nfrom datazone_dagster import build_definitions\n"
        "from shop_pipelines import orders\n"
        "defs = Definitions.merge(build_definitions([orders.open_orders]), Definitions())\n",
        "utf-8",
    )
    project = load_project(module_name="shop_pipelines.definitions")
    assert list(project.datasets) == ["open_orders"]
    by_file = load_project(python_file="shop_pipelines/definitions.py")
    assert list(by_file.datasets) == ["open_orders"]


def test_lazy_definitions(folder: Path) -> None:
    code = (
        f"import dagster\n{ORDERS}\n@dagster.definitions\ndef defs():\n"
        "    return build_definitions([open_orders], lakehouse=Lakehouse(uri='s3://late/x'))"
    )
    assert load(folder, code).layout.uri == "s3://late/x"


def test_without_build_definitions_the_modules_transforms_and_the_defaults_are_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = load(folder, ORDERS)
    assert list(project.datasets) == ["open_orders"]
    assert project.layout.uri == str(folder / ".datazone" / "lakehouse")
    monkeypatch.setenv("DATAZONE_LAKEHOUSE_URI", "s3://from/variable")
    assert load(folder, ORDERS).layout.uri == "s3://from/variable"


def test_a_given_lakehouse_wins_and_the_storage_options_stay(folder: Path) -> None:
    code = (
        f"{ORDERS}\ndefs = build_definitions([open_orders], lakehouse=Lakehouse("
        "uri='s3://lake/shop', storage_options={'AWS_REGION': 'eu-west-1'}))"
    )
    layout = load(folder, code, lakehouse_uri="s3://copy/shop").layout
    assert (layout.uri, layout.storage_options) == ("s3://copy/shop", {"AWS_REGION": "eu-west-1"})


def test_loading_writes_nothing(folder: Path) -> None:
    load(folder, f"{ORDERS}\ndefs = build_definitions([open_orders])")
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == [
        "definitions.py"
    ]


@pytest.mark.parametrize(
    ("code", "options", "words"),
    [
        ("x = 1", {}, "no transforms in definitions.py"),
        ("import no_such_thing", {}, "can't be imported: ModuleNotFoundError"),
        ("raise ValueError('the password')", {}, "can't be imported: ValueError"),
        (ORDERS, {"python_file": "other.py"}, "No file other.py"),
        (ORDERS, {"module_name": "no.such"}, "module 'no.such' can't be imported"),
        (ORDERS, {"python_file": "a.py", "module_name": "b"}, "Both a file"),
        (
            f"{ORDERS}\nb = [build_definitions([open_orders], lakehouse=Lakehouse(uri=u)) "
            "for u in ('s3://a/x', 's3://b/x')]",
            {},
            "several lakehouses: s3://a/x, s3://b/x",
        ),
    ],
)
def test_errors_say_what_to_do(
    folder: Path, code: str, options: dict[str, str], words: str
) -> None:
    with pytest.raises(DefinitionError, match=re.escape(words)) as caught:
        load(folder, code, **options)
    assert caught.value.hint


def test_without_a_file(folder: Path) -> None:
    with pytest.raises(DefinitionError, match="There is no file"):
        load_project()


def test_unknown_names_list_the_known_ones(folder: Path) -> None:
    project = load(folder, ORDERS)
    with pytest.raises(DefinitionError, match="Datasets of this project: open_orders"):
        project.writer_of("orders")
    with pytest.raises(DefinitionError, match="Sources of this project: shop_orders"):
        project.source_of("customers")


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("\n\n@transform\ndef orders(changes): ...", "definitions.py, line "),
        ("\nDataset('a b')", "definitions.py, line 5: Dataset(id='a b')"),
        ("\nnot_there", "definitions.py, line 5 can't be imported: NameError"),
        ("def of():\n    return Dataset(1)\nof()", "definitions.py, line 5: Dataset(id=1)"),
    ],
)
def test_a_mistake_in_the_definitions_is_named_with_its_line(
    folder: Path, code: str, what: str
) -> None:
    imports = "from datazone_dagster import *\nfrom datazone_dagster.sources import *\n\n"
    with pytest.raises(DefinitionError, match=re.escape(what)):
        load(folder, imports + code)
