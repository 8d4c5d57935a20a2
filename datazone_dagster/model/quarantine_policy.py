"""The quarantine policy: what is quarantined, with which reason, and what fails the run. Pure.

| found | then |
|---|---|
| a record that is no stream record, or has no usable key | quarantined, with the parser's reason |
| an image or a key that is not of its type | quarantined |
| a single change that needs more memory than there is | as one that the function fails on |
| a change that the function fails on | the run fails; quarantined with `on_error="quarantine"` |
| a result that is not rows of the chunk | the run fails: no choice of changes avoids it |
| a value of another type than a path reads | null and counted, by `on_mismatch`; see below |
| a value that a contract refuses | quarantined with `schema_policy` `"quarantine"` |
| a row that violates an expectation | quarantined with `on_violation="quarantine"` |
| a text that a partition column can't hold: empty, or too long for a folder | quarantined |
| a change after a quarantined one of its key, in append mode | quarantined: it waits |

A value of another type quarantines its change with `on_mismatch="quarantine"`, and in a key always;
with `"fail"` the run fails.

The quarantine stores the reasons, and later runs recognise them by their start: their texts must
never change. The stages find the cases, and ask.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import Enum

from datazone_dagster.text import shown

FUNCTION_FAILED = "the function failed: "
"""Start of the reason of a change that the function failed on."""

CONTRACT_REFUSES = "the contract refuses it: "
"""Start of the reason of a change that a dataset's contract refuses."""

OTHER_TYPE = "a path reads another type: "
"""Start of the reason of a change whose attribute has another type than a path of the function."""

EXPECTED_OTHERWISE = "it violates an expectation: "
"""Start of the reason of a change with a row that violates an expectation of a dataset."""

WAITS = "it waits behind an earlier change of its key"
"""Reason of a deferred change: the function accepts it, but an earlier change is quarantined."""

UNREADABLE_IMAGE = "an image holds a value that is not of its type"
"""Reason of a change whose image only SQL finds to be unreadable."""

REASON_CHARS = 500
"""Longest part of a reason that comes from the function."""

HOPELESS_AFTER = 16
"""Failing keys without a single passing call: the function itself is broken, not its input."""


class Failure(Enum):
    """Reason why a function's result can't be used for a chunk."""

    IMAGE = "an image is not DynamoDB JSON"
    CHANGES = "the function fails on some changes"
    CODE = "the function's result is not rows of the chunk"
    MEMORY = "the memory does not suffice for the chunk"


def is_quarantined(failure: Failure, on_error: str) -> bool:
    """Return whether the changes behind a failure are quarantined; otherwise the run fails.

    Args:
        failure: The failure.
        on_error: The transform's setting, `"fail"` or `"quarantine"`.
    """
    if failure is Failure.CHANGES:
        return on_error == "quarantine"
    return failure is Failure.IMAGE


def on_mismatch_of(on_mismatch: str, *, is_key: bool) -> str:
    """Return what happens to a value of another type: `"null"`, `"quarantine"` or `"fail"`.

    Args:
        on_mismatch: The transform's setting, one of the three.
        is_key: Whether the attribute is a key of the table: a key is never null.
    """
    return "quarantine" if is_key and on_mismatch == "null" else on_mismatch


def mismatch_reason(attribute: str, descriptor: str, path: str) -> str:
    """Return the reason of a change whose attribute has another type than a path."""
    return f"{OTHER_TYPE}{shown(attribute)!r} is {shown(descriptor)}, not as in {shown(path)}"


def is_hopeless(failing_keys: int, *, any_passed: bool) -> bool:
    """Return whether the search for failing changes is given up, so that the run fails.

    Args:
        failing_keys: Keys found so far.
        any_passed: Whether the function has passed on any part of the chunk.
    """
    return not any_passed and failing_keys >= HOPELESS_AFTER


def is_over_limit(failing_keys: int, keys: int, limit: float) -> bool:
    """Return whether a function fails on more keys of a chunk than the dataset quarantines.

    A few failing keys are always quarantined: in a small chunk they would be a large share.

    Args:
        failing_keys: Keys found so far.
        keys: Keys of the chunk.
        limit: `Dataset(quarantine_limit=...)`, a share of the keys.
    """
    return failing_keys >= HOPELESS_AFTER and failing_keys > limit * keys


def failed_reason(text: str) -> str:
    """Return the reason of a change that the function failed on, in one line."""
    return FUNCTION_FAILED + shown(" ".join(text.split()), REASON_CHARS)


def image_reason(image: str, problem: str) -> str:
    """Return the reason of a change with an image that is JSON but not an item."""
    return f"the {image} has {problem}"


def mistyped_key_reason(attribute: str) -> str:
    """Return the reason of a change with a key attribute that does not fit its column."""
    return f"the key {attribute!r} is of another type than its column"


def refuses(policy: str) -> bool:
    """Return whether a column's `schema_policy` quarantines what violates the contract."""
    return policy == "quarantine"


def may_refuse(policies: Iterable[str]) -> bool:
    """Return whether a contract with these policies of columns may quarantine changes."""
    return any(map(refuses, policies))


def needs_every_column(*, contract_may_refuse: bool, some_wait: bool) -> bool:
    """Return whether changes that the function accepts may be quarantined.

    The quarantine stores a change with all columns, so they have to be read.
    """
    return contract_may_refuse or some_wait


def keeps_order(mode: str) -> bool:
    """Return whether no change may overtake an earlier, quarantined change of its key.

    Readers of an append table see the events of a key in the order in which they were written. In
    the other modes a row is the state of its item, the highest version wins, and no change needs
    the one before it.
    """
    return mode == "append"


def blocks_later_changes(reason: str | None) -> bool:
    """Return whether later changes wait behind a change that is quarantined for this reason.

    They do where a redrive may append the change once the function or the contract is fixed, and
    not behind records that are malformed or have no usable key.
    """
    if reason is None:
        return False
    starts = (FUNCTION_FAILED, CONTRACT_REFUSES, OTHER_TYPE, EXPECTED_OTHERWISE)
    return reason == WAITS or reason.startswith(starts)


def blocked_after(
    waiting_keys: Collection[str], blocking: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """Return per key the version after which its changes wait.

    Args:
        waiting_keys: Keys that later changes wait behind since earlier chunks.
        blocking: Key and version of the changes of this chunk that later changes wait behind.
    """
    after = dict.fromkeys(waiting_keys, _EVERY_VERSION)
    for key, version in blocking:
        after[key] = min(version, after.get(key, version))
    return after


def waits(key: str, version: str, after: Mapping[str, str]) -> bool:
    """Return whether a change waits, given `blocked_after`."""
    return key in after and version > after[key]


_EVERY_VERSION = ""
