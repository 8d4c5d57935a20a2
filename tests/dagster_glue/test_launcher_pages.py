"""Settings of docs/launchers.md, read by the classes that they are for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance, DagsterInvalidConfigError, DagsterRun

from datazone_dagster.dagster_glue.instance_config import dagster_yaml

PAGE = Path(__file__).parents[2] / "docs" / "launchers.md"
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def settings(word: str) -> dict[str, Any]:
    """Return the block of the page that has a word."""
    [found] = [block for block in BLOCK.findall(PAGE.read_text("utf-8")) if word in block]
    loaded: dict[str, Any] = yaml.safe_load(found)
    return loaded


def instance_with(home: Path, word: str) -> DagsterInstance:
    """Return an instance of the shipped dagster.yaml with what the page adds to it."""
    merged = {**yaml.safe_load(dagster_yaml()), **settings(word)}
    (home / "dagster.yaml").write_text(yaml.safe_dump(merged))
    return DagsterInstance.from_config(str(home))


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that nobody uses: no call leaves this process."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("DAGSTER_PG_URL", "postgresql://db.internal/dagster")


def run_of(instance: DagsterInstance, **tags: str) -> DagsterRun:
    """Add a run as a sensor requests it of a code server whose image is known."""
    from dagster._core.code_pointer import ModuleCodePointer
    from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
    from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin

    pointer = ModuleCodePointer("definitions", "defs")
    repository = RepositoryPythonOrigin(
        "python", pointer, container_image="registry.internal/orders:42"
    )
    location = GrpcServerCodeLocationOrigin(host="orders", port=4000, location_name="orders")
    run = DagsterRun(
        "apply_orders",
        tags=tags,
        job_code_origin=JobPythonOrigin("apply_orders", repository),
        remote_job_origin=RemoteRepositoryOrigin(location, "defs").get_job_origin("apply_orders"),
    )
    instance.add_run(run)
    return run


@pytest.mark.usefixtures("account")
def test_a_run_becomes_a_task_of_ecs_with_its_cpu_and_memory(tmp_path: Path) -> None:
    from botocore.validate import ParamValidator
    from dagster._core.launcher import LaunchRunContext

    asked: dict[str, Any] = {}

    def answer(operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Check a request by the model of the service, as boto3 does before it sends it."""
        shape = launcher.ecs.meta.service_model.operation_model(operation).input_shape
        assert not ParamValidator().validate(request, shape).has_errors(), request
        asked[operation] = request
        return {"taskArn": "arn:task", "clusterArn": "arn:cluster"}

    with instance_with(tmp_path, "EcsRunLauncher") as instance:
        launcher: Any = instance.run_launcher
        launcher._run_task = lambda **request: answer("RunTask", request)
        launcher._reuse_or_register_task_definition = lambda **given: answer(
            "RegisterTaskDefinition", given["task_definition_dict"]
        )
        run = run_of(instance, **{"ecs/cpu": "2048", "ecs/memory": "8192"})
        launcher.launch_run(LaunchRunContext(run, workspace=None))
        assert instance.run_monitoring_start_timeout_seconds == 300
    task, definition = asked["RunTask"], asked["RegisterTaskDefinition"]
    assert (task["overrides"]["cpu"], task["overrides"]["memory"]) == ("2048", "8192")
    assert (task["cluster"], task["launchType"]) == ("dagster", "FARGATE")
    assert (definition["cpu"], definition["memory"]) == ("1024", "2048")
    assert definition["taskRoleArn"].endswith(":role/orders")
    [container] = definition["containerDefinitions"]
    assert container["image"] == "registry.internal/orders:42"
    environment = {one["name"]: one["value"] for one in container["environment"]}
    assert environment["DATAZONE_LAKEHOUSE_URI"] == "s3://acme-lake/shop"
    assert environment["DAGSTER_PG_URL"] == "postgresql://db.internal/dagster"


@pytest.mark.usefixtures("account")
def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    merged = {**yaml.safe_load(dagster_yaml()), **settings("EcsRunLauncher")}
    merged["run_launcher"]["config"]["run_task_kwarg"] = {}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(merged))
    with (
        DagsterInstance.from_config(str(tmp_path)) as instance,
        pytest.raises(DagsterInvalidConfigError, match="run_task_kwarg"),
    ):
        _ = instance.run_launcher


@pytest.mark.celery
def test_a_run_becomes_a_pod_with_its_cpu_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launchers = pytest.importorskip("dagster_k8s.launcher", reason="run `make test-celery`")
    monkeypatch.setattr(launchers, "load_kubernetes_config", lambda **_: None)  # no cluster here
    with instance_with(tmp_path, "class: K8sRunLauncher") as instance:
        launcher: Any = instance.run_launcher
        pod = {"container_config": {"resources": {"requests": {"cpu": "4", "memory": "8Gi"}}}}
        run = run_of(instance, **{"dagster-k8s/config": json.dumps(pod)})
        found = launcher.get_container_context_for_run(run).run_k8s_config.container_config
    assert found["resources"] == {
        "requests": {"cpu": "4", "memory": "8Gi"},
        "limits": {"memory": "2Gi"},
    }


@pytest.mark.celery
def test_the_chart_gives_the_launcher_what_the_page_gives_it() -> None:
    values = settings("k8sRunLauncher:")
    chart = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    own = settings("class: K8sRunLauncher")["run_launcher"]["config"]["run_k8s_config"]
    assert chart["containerConfig"] == own["container_config"]


@pytest.mark.celery
def test_celery_takes_its_settings(tmp_path: Path) -> None:
    pytest.importorskip("dagster_celery", reason="run `make test-celery`")
    from dagster_celery.cli import get_validated_config

    with instance_with(tmp_path, "CeleryRunLauncher") as instance:
        launcher: Any = instance.run_launcher
        assert launcher.broker == "redis://127.0.0.1:6379/0"
    workers = tmp_path / "celery.yaml"
    workers.write_text(yaml.safe_dump(settings("# celery.yaml")))
    assert get_validated_config(str(workers))["broker"] == launcher.broker


def test_a_queue_for_runs_in_processes_launches_several_at_a_time(tmp_path: Path) -> None:
    with instance_with(tmp_path, "dequeue_use_threads") as instance:
        queue: Any = instance.run_coordinator
        assert (queue.dequeue_use_threads, queue.dequeue_num_workers) == (True, 4)
        assert queue.dequeue_interval_seconds == 1
