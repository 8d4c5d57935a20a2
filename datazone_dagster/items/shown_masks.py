"""Masks over what is shown: values of changes that landed before a mask was set are hidden.

A mask is applied when a change lands, so older changes are as they arrived. Pure: what is masked
already is known by its form, and no salt is needed.
"""

from __future__ import annotations

import re
from typing import Any

from datazone_dagster.api.mask import HIDDEN, SHOWN_CHARACTERS, Masked, Tree, mask_tree

_HASH = re.compile(r"[0-9a-f]{64}")


def hide(item: dict[str, Any], mask: Masked) -> bool:
    """Hide what a mask covers in an item in DynamoDB JSON; return whether anything was to hide.

    A text that has the form of a masked one counts as masked: 64 hexadecimal digits for `"hash"`.
    """
    return _hide(item, mask_tree(mask))


def _hide(item: dict[str, Any], tree: Tree) -> bool:
    found = False
    for name, rule in tree.items():
        if name not in item:
            continue
        value = item[name]
        if isinstance(rule, dict):
            found |= _hide_within(item, name, rule)
        elif rule == "drop":
            del item[name]
            found = True
        elif not _is_masked(value, rule):
            item[name] = {"NULL": True} if rule == "null" else {"S": HIDDEN}
            found = True
    return found


def _hide_within(item: dict[str, Any], name: str, tree: Tree) -> bool:
    """Hide attributes below a value; one that has none is hidden as a whole, as masks do it."""
    value = item[name]
    inner = value if isinstance(value, dict) else {}
    if isinstance(inner.get("M"), dict):
        return _hide(inner["M"], tree)
    if isinstance(inner.get("L"), list):
        elements = [{name: one} for one in inner["L"]]
        found = [_hide_within(one, name, tree) for one in elements]
        inner["L"] = [one[name] for one in elements]
        return any(found)
    if "NULL" in inner:
        return False
    item[name] = {"NULL": True}
    return True


def _is_masked(value: Any, rule: str) -> bool:
    if not isinstance(value, dict) or len(value) != 1:
        return False
    ((descriptor, payload),) = value.items()
    if descriptor == "NULL":
        return True
    if rule == "null":
        return False
    texts = payload if descriptor == "SS" else [payload] if descriptor == "S" else [None]
    return isinstance(texts, list) and all(
        isinstance(one, str) and _has_form(one, rule) for one in texts
    )


def _has_form(text: str, rule: str) -> bool:
    if rule == "hash":
        return _HASH.fullmatch(text) is not None
    return text.startswith(HIDDEN) and len(text) in (len(HIDDEN), len(HIDDEN) + SHOWN_CHARACTERS)
