"""Hooks of the documentation site: pages from files outside of docs/, and no request elsewhere.

The README is the first page; the changelog, the examples and the results of the benchmarks are
pages too: each fact has one file, which GitHub shows as well. `make docs` builds the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
RESULTS = "benchmarks/results"
PAGES = {"README.md": "index.md", "AGENTS.md": "agents.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository that are pages of the site."""

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)((?:#[^)\s]*)?)\)")
_LOADED = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^\"'>]*"
)


def pages() -> dict[str, str]:
    """Return the pages that are made of other files, by path in the repository."""
    results = {
        str(one.relative_to(ROOT)): f"figures/{one.name}"
        for one in sorted((ROOT / RESULTS).glob("*.md"))
    }
    examples = {
        str(one.relative_to(ROOT)): f"examples/{one.parent.name}.md"
        for one in sorted((ROOT / "examples").glob("*/README.md"))
    }
    return PAGES | examples | results


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files outside of docs/."""
    for source, page in pages().items():
        text = (ROOT / source).read_text("utf-8")
        if source.startswith(RESULTS):
            text = f"---\nsearch: {{exclude: true}}\n---\n\n# {Path(source).stem}\n\n{text}"
        in_nav = (
            InclusionLevel.NOT_IN_NAV if source.startswith(RESULTS) else InclusionLevel.UNDEFINED
        )
        files.append(File.generated(config, page, content=text, inclusion=in_nav))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links, which are right in the repository, to the pages of the site."""
    moved = pages()
    there = {made: source for source, made in moved.items()}
    source = there.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def led(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        if ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        made = moved.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if made is not None:
            return (
                f"[{text}]({posixpath.relpath(made, posixpath.dirname(page.file.src_uri))}{anchor})"
            )
        # A file that only the repository has.
        return text if (ROOT / path).exists() else match[0]

    return _LINK.sub(led, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that makes the browser ask another host."""
    if loaded := _LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads from another host: {loaded[0]}")
    return output
