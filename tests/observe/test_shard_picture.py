"""The picture of a stream's shards: what it shows, its size, and that nothing in it is markup."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.model.shard_tree import ShardNode
from datazone_dagster.observe.shard_picture import MAX_BYTES, MAX_SHARDS, shards_markdown

PARENT = ShardNode("shardId-1-aaaaaaaa", None, "finished")
LEFT = ShardNode("shardId-2-bbbbbbbb", PARENT.shard_id, "open")
RIGHT = ShardNode("shardId-3-cccccccc", PARENT.shard_id, "failing")


def drawn(markdown: str) -> tuple[str, ElementTree.Element]:
    """Return the line above the picture, and the picture."""
    found = re.fullmatch(r"(.*)\n\n!\[[^\]]*\]\(data:image/svg\+xml;base64,(\S+)\)", markdown)
    assert found is not None
    return found[1], ElementTree.fromstring(base64.b64decode(found[2]))


def boxes(svg: ElementTree.Element) -> dict[str, tuple[int, int]]:
    """Return where each text stands."""
    texts = svg.findall("{*}text")
    return {one.text or "": (int(one.attrib["x"]), int(one.attrib["y"])) for one in texts}


def test_children_stand_to_the_right_of_their_parent() -> None:
    summary, svg = drawn(shards_markdown([PARENT, LEFT, RIGHT]))
    assert summary == "Shards: 1 failing, 1 open, 1 finished"
    places = boxes(svg)
    assert set(places) == {"aaaaaaaa finished", "bbbbbbbb open", "cccccccc failing"}
    (x, y), first, second = places.values()
    assert first[0] == second[0] > x
    assert second[1] > first[1] == y
    path = svg.find("{*}path")
    assert path is not None
    assert path.attrib["d"].count("M") == 2  # a line to each child


def test_of_many_shards_those_that_need_somebody_are_drawn() -> None:
    many = [ShardNode(f"shardId-{number:08}", None, "open") for number in range(100)]
    lost = ShardNode("shardId-lost0000", None, "gap")
    summary, svg = drawn(shards_markdown([*many, lost]))
    assert summary == "Shards: 1 gap, 100 open (93 more are not drawn)"
    assert len(boxes(svg)) == MAX_SHARDS
    assert "lost0000 gap" in boxes(svg)


def test_without_shards_there_is_no_picture() -> None:
    assert shards_markdown([]) == ""


IDS = st.one_of(st.sampled_from(["a", "b", "c", "<b>&\"'", "](x)"]), st.text(max_size=60))
NODES = st.builds(
    ShardNode,
    IDS,
    st.none() | IDS,
    st.sampled_from(["open", "ending", "waiting", "failing", "gap", "finished"]),
)


@given(st.lists(NODES, min_size=1, max_size=40, unique_by=lambda node: node.shard_id))
def test_any_shards_make_a_small_picture(nodes: list[ShardNode]) -> None:
    markdown = shards_markdown(nodes)
    assert len(markdown) <= MAX_BYTES * 4 // 3
    _, svg = drawn(markdown)
    assert len(svg.findall("{*}rect")) == min(len(nodes), MAX_SHARDS)
    assert len({one.attrib["y"] + one.attrib["x"] for one in svg.findall("{*}rect")}) == len(
        svg.findall("{*}rect")
    )
