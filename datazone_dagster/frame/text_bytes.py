"""Bytes of the texts of Arrow arrays, without a Python object per text."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes: TypeAlias = npt.NDArray[np.uint8]
Offsets: TypeAlias = npt.NDArray[np.int32]


def bytes_of(texts: pa.Array) -> Bytes:
    """Return the bytes of all texts, one after the other; a null may have some, too."""
    _, _, data = texts.buffers()
    offsets = offsets_of(texts)
    whole = np.frombuffer(b"" if data is None else data, np.uint8)
    return whole[offsets[0] : offsets[-1]]


def offsets_of(texts: pa.Array) -> Offsets:
    """Return where each text begins, and where the last one ends."""
    if not len(texts):
        return np.zeros(1, np.int32)
    return np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]


def are_within(found: Bytes, first: str, last: str) -> bool:
    """Return whether all bytes are between those of two ASCII characters."""
    return not len(found) or bool(found.min() >= ord(first) and found.max() <= ord(last))
