"""Pages of Dagster as a user of the demo sees them, in Chromium.

Run by `make test-browser`, not by default. The tests follow one demo and depend on their order.
They find things by text and role, and wait for what they expect. Screenshots are written to
.datazone/screenshots, or to the folder that DATAZONE_SCREENSHOTS names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster.demo.servers import free_port, read_lock

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
PROJECT = Path(__file__).parents[2]
ASSET = "/assets/processed_orders"
CHANGE_LOG = "/assets/dynamodb/orders"
SENSOR = "/locations/__repository__@definitions.py/sensors/drain_orders"
LAG = f"{ASSET}?view=checks&checkDetail=lag"
TALL = {"width": 1300, "height": 1100}
WIDE = {"width": 1300, "height": 640}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(280),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


class Site:
    """Dagster's pages of a running demo, in one tab."""

    def __init__(self, url: str, page: Any, errors: Any, folder: Path) -> None:
        self.page = page
        self._url = url
        self._late = errors.TimeoutError
        self._folder = folder

    def open(self, path: str, size: dict[str, int] = TALL) -> None:
        self.page.set_viewport_size(size)
        self.page.goto(self._url + path)

    def open_until(
        self, path: str, sees: Callable[[Any], Any], size: dict[str, int] = TALL, seconds: int = 150
    ) -> None:
        """Load a page again until it shows something: not every part of it refreshes itself."""
        deadline = time.monotonic() + seconds
        while True:
            self.open(path, size)
            try:
                sees(self.page).first.wait_for(timeout=8_000)
                return
            except self._late:
                assert time.monotonic() < deadline, self.page.inner_text("body")

    def text(self, text: str | re.Pattern[str]) -> Any:
        return self.page.get_by_text(text).first

    def screenshot(self, name: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self._folder / f"{name}.png", animations="disabled")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a demo whose dataset may be half a minute behind."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(PROJECT / "workspace.yaml", folder)
    code = (PROJECT / "definitions.py").read_text("utf-8")
    late = code.replace('id="processed_orders"', 'id="processed_orders", max_lag=HALF_A_MINUTE')
    assert late != code
    head, separator, rest = late.partition("\n\n\n@transform")
    late = (
        f"{head}\n\nHALF_A_MINUTE = __import__('datetime').timedelta(seconds=30){separator}{rest}"
    )
    (folder / "definitions.py").write_text(late, "utf-8")
    ports = [f"--port={free_port(3400)}", f"--emulator-port={free_port(8400)}"]
    command = [sys.executable, "-m", "datazone_dagster.cli", "demo", *ports]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            started = any("Press Ctrl-C" in line for line in process.stdout)
            assert started, "the demo did not start"
            yield str(read_lock(folder / ".datazone" / "demo")["url"])
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def site(demo: str) -> Iterator[Site]:
    needs = "needs playwright: make test-browser installs it"
    playwright = pytest.importorskip("playwright.sync_api", reason=needs)
    default = PROJECT / ".datazone" / "screenshots"
    folder = Path(os.environ.get("DATAZONE_SCREENSHOTS") or default)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(timezone_id="UTC", locale="en-US")
        try:
            yield Site(demo, page, playwright, folder)
        finally:
            browser.close()


SNAPSHOT_RUNS = "/locations/definitions.py/jobs/snapshot_orders/runs"


def test_the_run_of_the_snapshot_says_how_far_it_is(site: Site) -> None:
    def view(page: Any) -> Any:
        return page.get_by_role("link", name="View", exact=True)

    site.open_until(SNAPSHOT_RUNS, view)
    view(site.page).first.click()
    site.text(re.compile("A consistent scan of .* takes about")).wait_for(timeout=30_000)
    site.text("the drain to have read every change up to").wait_for()
    site.text("snapshot_phase").wait_for()
    site.screenshot("snapshot-waits")
    site.text(re.compile(r"Snapshot of orders is complete.* rows \(\d+ %\)")).wait_for(
        timeout=180_000
    )
    site.screenshot("snapshot-run")


def test_the_checks_of_the_dataset_are_evaluated(site: Site) -> None:
    def told(page: Any) -> Any:
        page.get_by_role("tab", name="Execution history").click()
        return page.get_by_text("Consistent with the table since")

    site.open_until(f"{ASSET}?view=checks&checkDetail=complete", told)
    site.open_until(LAG, lambda page: page.get_by_text("Passed", exact=True))
    for name in ("complete", "function", "lag", "quarantine", "schema"):
        site.text(name).wait_for()
    site.screenshot("checks")


def test_the_graph_shows_change_log_and_dataset(site: Site) -> None:
    site.open_until(
        "/asset-groups", lambda page: page.get_by_text(re.compile("[3-9] / \\d Passed")), WIDE
    )
    site.text("processed_orders").wait_for()
    site.text("Materialized").wait_for()
    site.screenshot("asset-graph")


def test_the_page_of_the_change_log_leads_to_its_sensor(site: Site) -> None:
    def link(page: Any) -> Any:
        return page.locator("a[href$='/sensors/drain_orders']")

    site.open_until(CHANGE_LOG, link)
    site.screenshot("change-log")
    site.open(link(site.page).first.get_attribute("href"), WIDE)
    site.page.get_by_role("row").filter(has_text="Running").first.wait_for()
    site.text("drain_orders").wait_for()


def test_the_page_of_the_dataset_has_columns_and_plots(site: Site) -> None:
    site.open_until(ASSET, lambda page: page.get_by_text("customer_email"))
    site.text("From dynamodb.NewImage.customerEmail.S").wait_for()
    site.text("drain_orders").wait_for()
    site.screenshot("dataset")
    site.page.get_by_role("button", name="Plots").click()
    for name in ("rows_inserted", "rows_updated", "records_read"):
        site.text(name).wait_for()
    assert site.page.locator("canvas").count() >= 6
    site.text("records_read").scroll_into_view_if_needed()
    site.screenshot("plots")


def test_a_stopped_sensor_fails_the_lag_check(site: Site) -> None:
    set_sensor(site, on=False)
    deadline = time.monotonic() + 200
    failed = re.compile("The stream was last read to its end")
    while True:
        site.open(LAG)
        site.page.get_by_role("button", name=re.compile("Execute$")).click()
        try:
            site.text(failed).wait_for(timeout=25_000)
            break
        except site._late:
            assert time.monotonic() < deadline, site.page.inner_text("body")
    site.open(LAG)
    site.text(failed).wait_for()
    site.text("Failed").wait_for()
    site.screenshot("lag-failed")


def test_the_lag_check_recovers_when_the_sensor_runs_again(site: Site) -> None:
    set_sensor(site, on=True)
    site.open_until(LAG, lambda page: page.get_by_text("Passed", exact=True))
    assert not site.page.get_by_text("The stream was last read to its end").count()
    site.screenshot("lag-recovered")


def set_sensor(site: Site, *, on: bool) -> None:
    """Use the switch on the page of the sensor."""
    site.open(SENSOR, WIDE)
    switch = site.page.get_by_role("row").filter(has_text="Running").get_by_role("checkbox")
    switch.wait_for(state="attached")
    assert switch.is_checked() is not on
    switch.press("Space")
    site.page.wait_for_function("on => document.querySelector('input:checked') ? on : !on", arg=on)
