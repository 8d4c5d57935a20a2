"""The code in README and docs runs, file by file, top to bottom."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

import datazone_dagster
from datazone_dagster import sources, testing

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FILES = sorted([ROOT / "README.md", ROOT / "AGENTS.md", *DOCS.rglob("*.md")])
TUTORIAL = DOCS / "tutorial.md"
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^):\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@pytest.mark.parametrize(
    "path",
    # The tutorial is for a shell: tests/test_tutorial.py.
    [file for file in FILES if file != TUTORIAL and PYTHON.search(file.read_text("utf-8"))],
    ids=lambda path: path.name,
)
def test_the_code_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Examples that leave their folder behind leave it here.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    namespace: dict[str, object] = {"__name__": "documentation"}
    for block in PYTHON.findall(path.read_text("utf-8")):
        exec(compile(block, str(path), "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(path.read_text("utf-8")):
        file, _, anchor = target.partition("#")
        page = path.parent / file if file else path
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), target


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    """`make docs` fails too, but later."""
    listed = set(
        re.findall(r"[\w./-]+\.md$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    )
    there = {str(file.relative_to(DOCS)) for file in FILES if file.is_relative_to(DOCS)}
    assert there - listed == set(), "add these pages to nav in mkdocs.yml"


@pytest.mark.parametrize(
    "module", [datazone_dagster, sources, testing], ids=lambda one: one.__name__
)
def test_every_public_name_is_in_the_reference(module: ModuleType) -> None:
    pages = "".join(file.read_text("utf-8") for file in (DOCS / "reference").glob("*.md"))
    listed = set(re.findall(r"^::: datazone_dagster\.(?:\w+\.)?(\w+)$", pages, re.MULTILINE))
    assert set(module.__all__) - listed == set(), (
        "add `::: ...` of these to a page of docs/reference"
    )


def test_screenshots_are_small() -> None:
    """`make test-browser` writes them to .datazone/screenshots; these are copies."""
    sizes = {file.name: file.stat().st_size for file in (DOCS / "images").glob("*")}
    assert len(sizes) <= 5
    assert max(sizes.values()) < 150_000


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = HEADING.findall(page.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_the_example_is_the_one_in_definitions() -> None:
    def code(path: Path) -> str:
        text = path.read_text("utf-8")
        start = text.index("def process_orders_stream")
        body = text[start : text.index("    )\n", start)]
        return re.sub(r"#.*", "", body).replace("\n", "").replace(" ", "").rstrip(",")

    assert code(ROOT / "README.md") == code(ROOT / "definitions.py")
    assert len((ROOT / "definitions.py").read_text("utf-8").splitlines()) < 60
