"""The sensor of alerts, with a real server as the webhook."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest

from datazone_dagster import CheckEvent, DatazoneError, alert_sensor, slack, transform, webhook
from datazone_dagster import apprise as apprise_notifier
from tests.dagster_glue.conftest import MakeWorld, World, orders_transform

ALERTS = "datazone_alerts"


class Hook:
    """A server that records what is posted, and answers with the given statuses first."""

    def __init__(self) -> None:
        hook = self
        self.posts: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.gets: list[dict[str, str]] = []
        self.location = ""
        self.length = "0"

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = hook.statuses.pop(0) if hook.statuses else 200
                if status == 200:
                    hook.posts.append(json.loads(body))
                    hook.headers.append(dict(self.headers))
                self.send_response(status)
                if hook.location:
                    self.send_header("Location", hook.location)
                self.send_header("Content-Length", hook.length)
                self.end_headers()

            def do_GET(self) -> None:
                hook.gets.append(dict(self.headers))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=s3cr3t"


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def no_pause(_: float) -> None:
    pass


def alerting(make_world: MakeWorld, notify: Any, *transforms: Any, **options: Any) -> World:
    world = make_world(*transforms)
    sensor = alert_sensor(notify, clock=lambda: world.clock().timestamp(), **options)
    world.defs = dg.Definitions.merge(world.defs, dg.Definitions(sensors=[sensor]))
    return world


def later(world: World, **by: float) -> str | None:
    world.clock.advance(timedelta(**by))
    world.tick()
    return world.tick(ALERTS).skip


def test_a_failure_and_its_recovery_are_posted_once(make_world: MakeWorld, hook: Hook) -> None:
    world = alerting(
        make_world,
        webhook(hook.url, headers={"X-Team": "shop"}, pause=no_pause),
        base_url="https://dagster.example.com/",
    )
    world.put("a")
    later(world, seconds=0)
    later(world, minutes=6)
    later(world, seconds=10)
    (failed,) = hook.posts
    assert (failed["asset"], failed["check"], failed["severity"]) == ("orders", "lag", "ERROR")
    assert failed["link"] == (
        "https://dagster.example.com/assets/orders?view=checks&checkDetail=lag"
    )
    assert failed["text"].startswith("orders: check lag fails (ERROR). 1 batch waits")
    assert failed["metadata"]["pending_batches"] == 1
    assert hook.headers[0]["X-Team"] == "shop"
    world.run("apply_orders")
    world.tick(ALERTS)
    assert (hook.posts[1]["check"], hook.posts[1]["passed"]) == ("lag", True)
    assert world.tick(ALERTS).skip == "0 sent, 0 to be retried, 0 held back."


def test_a_failing_function_is_told_with_its_cause_and_run(
    make_world: MakeWorld, hook: Hook
) -> None:
    def broken(changes: Any) -> Any:
        raise ValueError("no such status")

    plain = orders_transform()
    failing = transform(
        name="orders", input_mapping=plain.input_mapping, output_mapping=plain.output_mapping
    )(broken)
    world = alerting(
        make_world,
        webhook(hook.url, pause=no_pause),
        failing,
        base_url="https://dagster.example.com",
        checks={"lag"},
    )
    world.put("a")
    world.tick()
    done = world.run("apply_orders", raise_on_error=False)
    later(world, minutes=6)
    (told,) = hook.posts
    assert "no such status" in told["text"]
    assert told["run_link"] == f"https://dagster.example.com/runs/{done.run_id}"
    assert told["run_link"] in told["text"]


def test_a_server_that_fails_is_tried_again(make_world: MakeWorld, hook: Hook) -> None:
    world = alerting(make_world, webhook(hook.url, pause=no_pause))
    world.put("a")
    later(world, seconds=0)
    hook.statuses = [500, 503]
    assert later(world, minutes=6) == "1 sent, 0 to be retried, 0 held back."
    world.run("apply_orders")
    hook.statuses = [500, 500, 500]
    assert world.tick(ALERTS).skip == "0 sent, 1 to be retried, 0 held back."
    assert world.tick(ALERTS).skip == "1 sent, 0 to be retried, 0 held back."


def test_no_error_shows_the_url(hook: Hook) -> None:
    hook.statuses = [404]
    event = CheckEvent("orders", "lag", False, "ERROR", "late")
    with pytest.raises(DatazoneError, match="status 404") as refused:
        webhook(hook.url, pause=no_pause)(event)
    with pytest.raises(DatazoneError, match=r"127\.0\.0\.1") as gone:
        webhook("http://127.0.0.1:9/?token=s3cr3t", pause=no_pause)(event)
    for caught in (refused, gone):
        assert "s3cr3t" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_an_answer_that_breaks_off_was_an_answer(hook: Hook) -> None:
    hook.length = "100"
    webhook(hook.url, pause=no_pause)(CheckEvent("orders", "lag", False, "ERROR", "late"))
    assert len(hook.posts) == 1


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datazone_dagster.dagster_glue.alerts.notifiers.POST_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        post = webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/secret")
        with pytest.raises(DatazoneError, match=r"no answer within 0\.05 s") as told:
            post(CheckEvent("orders", "lag", False, "ERROR", "late"))
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(hook: Hook, status: int) -> None:
    hook.statuses = [status]
    hook.location = hook.url.replace("127.0.0.1", "localhost")
    event = CheckEvent("orders", "lag", False, "ERROR", "late")
    send = webhook(hook.url, headers={"Authorization": "s3cr3t"}, pause=no_pause)
    with pytest.raises(DatazoneError, match=f"status {status}"):
        send(event)
    assert (hook.posts, hook.gets) == ([], [])


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/s3cr3t here", "http://127.0.0.1:9/s3\x01cr3t", "http://a:s3cr3t@b/"]
)
def test_a_url_that_can_not_be_asked_stays_secret(url: str) -> None:
    event = CheckEvent("orders", "lag", False, "ERROR", "late")
    with pytest.raises(DatazoneError, match="InvalidURL") as refused:
        webhook(url, pause=no_pause)(event)
    assert "cr3t" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_storm_is_held_back_and_told_later(make_world: MakeWorld) -> None:
    told: list[CheckEvent] = []
    names = ("orders", "others", "third")
    world = alerting(
        make_world, told.append, *map(orders_transform, names), checks={"lag"}, most_per_hour=2
    )
    world.put("a")
    later(world, seconds=0)
    assert later(world, minutes=6) == "2 sent, 0 to be retried, 1 held back."
    assert [one.asset for one in told] == ["orders", "others", ""]
    assert "1 more alert is held back" in str(told[2])
    later(world, seconds=10)
    assert len(told) == 3
    later(world, minutes=61)
    assert [one.asset for one in told] == ["orders", "others", "", "third"]


def test_what_is_told_can_be_chosen(make_world: MakeWorld) -> None:
    told: list[CheckEvent] = []
    world = alerting(make_world, told.append, on=("fail",), severity="ERROR", checks={"lag"})
    world.put("a")
    later(world, seconds=0)
    later(world, minutes=2)
    assert told == []
    later(world, minutes=4)
    world.run("apply_orders")
    world.tick(ALERTS)
    assert [one.severity for one in told] == ["ERROR"]


def test_one_notifier_that_fails_does_not_hold_back_the_others(make_world: MakeWorld) -> None:
    told: list[CheckEvent] = []

    def broken(event: CheckEvent) -> None:
        raise ConnectionError("chat is down")

    world = alerting(make_world, [broken, told.append], checks={"lag"})
    world.put("a")
    later(world, seconds=0)
    later(world, minutes=6)
    later(world, seconds=10)
    assert len(told) == 1


def test_a_dead_endpoint_ends_no_tick_and_is_told_what_it_missed(make_world: MakeWorld) -> None:
    told: list[str] = []
    tried: list[str] = []
    is_dead = [True]
    names = ("orders", "others", "third")

    def hanging(event: CheckEvent) -> None:
        tried.append(event.asset)
        if is_dead[0]:
            world.clock.advance(timedelta(seconds=33))
            raise TimeoutError

    def notes(event: CheckEvent) -> None:
        told.append(event.asset)

    world = alerting(make_world, [hanging, notes], *map(orders_transform, names), checks={"lag"})
    world.put("a")
    later(world, seconds=0)
    assert later(world, minutes=6) == "0 sent, 3 to be retried, 0 held back."
    assert (tried, told) == (["orders"], [])
    assert later(world, seconds=10) == "3 sent, 3 to be retried, 0 held back."
    later(world, seconds=10)
    assert told == ["orders", "others", "third"]
    assert tried == ["orders", "others", "third"]
    is_dead[0] = False
    later(world, seconds=10)
    assert sorted(tried[3:]) == ["orders", "others", "third"]
    assert later(world, seconds=10) == "0 sent, 0 to be retried, 0 held back."
    assert len(told) == 3


def test_an_alert_that_is_never_taken_does_not_hold_back_others(make_world: MakeWorld) -> None:
    told: list[str] = []

    def picky(event: CheckEvent) -> None:
        if event.asset == "orders":
            raise ValueError("status 400")
        told.append(event.asset)

    names = ("orders", "others", "third")
    world = alerting(make_world, picky, *map(orders_transform, names), checks={"lag"})
    world.put("a")
    later(world, seconds=0)
    assert later(world, minutes=6) == "0 sent, 3 to be retried, 0 held back."
    assert later(world, seconds=10) == "2 sent, 1 to be retried, 0 held back."
    assert told == ["others", "third"]


def test_a_slow_notifier_goes_on_at_the_next_tick(make_world: MakeWorld) -> None:
    told: list[str] = []

    def slow(event: CheckEvent) -> None:
        world.clock.advance(timedelta(seconds=11))
        told.append(event.asset)

    names = ("orders", "others", "third")
    world = alerting(make_world, slow, *map(orders_transform, names), checks={"lag"})
    world.put("a")
    later(world, seconds=0)
    assert later(world, minutes=6) == "2 sent, 1 to be retried, 0 held back."
    later(world, seconds=10)
    assert told == ["orders", "others", "third"]


def test_the_cursor_of_an_older_version_was_told_to_all(make_world: MakeWorld) -> None:
    told: list[CheckEvent] = []
    world = alerting(make_world, [told.append, told.append], checks={"lag"})
    world.cursors[ALERTS] = '{"levels": {"orders:lag": "ERROR"}, "sent": [], "held": false}'
    world.put("a")
    world.tick()
    later(world, minutes=6)
    assert told == []
    world.run("apply_orders")
    world.tick(ALERTS)
    assert [(one.passed, one.severity) for one in told] == [(True, "ERROR")] * 2


def test_slack_gets_a_text_with_links(hook: Hook) -> None:
    event = CheckEvent(
        "orders", "lag", False, "ERROR", "<!channel>", link="https://d/a", run_link="https://d/r"
    )
    slack(hook.url, pause=no_pause)(event)
    assert hook.posts == [
        {
            "text": ":rotating_light: orders: check lag fails (ERROR). &lt;!channel&gt; "
            "<https://d/a|check> <https://d/r|failed run>"
        }
    ]


def test_apprise_without_its_library_says_what_to_install() -> None:
    with pytest.raises(DatazoneError, match="apprise"):
        apprise_notifier()
    try:
        import apprise  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        with pytest.raises(DatazoneError, match=r"datazone-dagster\[apprise\]"):
            apprise_notifier("mailto://nobody")
    else:
        assert callable(apprise_notifier("mailto://nobody"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"notify": "#alerts"}, "notify"),
        ({"notify": []}, "notify"),
        ({"notify": print, "on": ("warn",)}, "on="),
        ({"notify": print, "severity": "INFO"}, "severity"),
        ({"notify": print, "most_per_hour": 0}, "most_per_hour"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(DatazoneError, match=says):
        alert_sensor(**arguments)
    with pytest.raises(DatazoneError, match="http"):
        webhook("ftp://example.com")
