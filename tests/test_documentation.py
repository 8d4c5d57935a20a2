"""The code in README and docs runs, file by file, top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^):\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
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
