"""What docs/deployment.md says of permissions is enough for everything that is done."""

from __future__ import annotations

import json
import re
from pathlib import Path

from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    apply_transform,
    drain_once,
    maintain_dataset,
    open_dataset,
    rebuild_dataset,
)
from datazone_dagster.testing import ScriptedStream
from tests.faults.orders import SOURCE, flow, order
from tests.store.proxy import Proxy, Request

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"


def action_of(request: Request) -> str:
    """IAM action that S3 asks for."""
    query = request.path.partition("?")[2]
    if request.kind == "list":
        return "s3:ListBucket"
    if request.method == "DELETE" and "uploadId" in query:
        return "s3:AbortMultipartUpload"
    return {
        "GET": "s3:GetObject",
        "HEAD": "s3:GetObject",
        "PUT": "s3:PutObject",
        "POST": "s3:DeleteObject" if request.kind == "delete many" else "s3:PutObject",
        "DELETE": "s3:DeleteObject",
    }[request.method]


def allowed() -> set[str]:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    actions: set[str] = set()
    for statement in json.loads(text)["Statement"]:
        named = statement["Action"]
        actions |= {named} if isinstance(named, str) else set(named)
    return actions


def test_the_role_of_the_page_may_do_everything(s3_lakehouse: Layout, proxy: Proxy) -> None:
    stream = ScriptedStream()
    with proxy.counted() as counts:
        for status in ("placed", "paid"):
            for number in range(3):
                stream.put(order(number, status, number))
            drain_once(SOURCE, stream, s3_lakehouse)
            apply_transform(flow, s3_lakehouse)
        rebuild_dataset(flow, "current", s3_lakehouse)
        for dataset in flow.outputs.values():
            maintain_dataset(dataset, s3_lakehouse)
    used = {action_of(one) for one in counts.requests}
    assert used >= {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    assert used <= allowed()


def test_a_reader_only_reads(s3_lakehouse: Layout, proxy: Proxy) -> None:
    stream = ScriptedStream()
    stream.put(order(1, "placed", 1))
    drain_once(SOURCE, stream, s3_lakehouse)
    apply_transform(flow, s3_lakehouse)
    with proxy.counted() as counts:
        assert len(open_dataset(s3_lakehouse, "current").arrow()) == 1
        assert len(open_dataset(s3_lakehouse, "current").lazy().collect()) == 1
    assert {action_of(one) for one in counts.requests} <= {"s3:ListBucket", "s3:GetObject"}
