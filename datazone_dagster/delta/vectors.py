"""Deletion vectors: positions of the deleted rows of a data file. Pure: bytes in, bytes out.

Delta protocol, "Deletion Vectors" and "Deletion Vector Format". A vector is a 64-bit Roaring
bitmap in its portable form after a magic number, little-endian. In a `.bin` file each vector is
between its size and its CRC-32, both big-endian. A file is named by a UUID, which the log
spells in Z85 (ZeroMQ RFC 32).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from pyroaring import BitMap64

MAGIC = 1681511377
FILE_VERSION = 1

IN_TABLE = "u"
"""Storage type: a file in the table's folder, named by a UUID."""

INLINE = "i"
ABSOLUTE = "p"

_UUID_Z85_CHARS = 20
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_Z85_VALUES = {char: value for value, char in enumerate(_Z85)}


class VectorError(ValueError):
    """The bytes are not the deletion vector that the log describes."""


@dataclass(frozen=True, slots=True)
class Vector:
    """Location of a deletion vector, and the number of rows that it deletes.

    Args:
        storage_type: `u`, `i` or `p`: a file of the table, inline in the log, an absolute path.
        path_or_inline: Encoded path of the file, or the vector itself.
        offset: Position of the vector's size field in the file, in bytes; None if inline.
        size_bytes: Size of the bitmap with its magic number, without size field and checksum.
        cardinality: Number of rows that the vector deletes.
    """

    storage_type: str
    path_or_inline: str
    offset: int | None
    size_bytes: int
    cardinality: int

    @classmethod
    def of_action(cls, action: Mapping[str, Any]) -> Vector:
        """Read the `deletionVector` of an add or remove action."""
        return cls(
            action["storageType"],
            action["pathOrInlineDv"],
            action.get("offset"),
            action["sizeInBytes"],
            action["cardinality"],
        )

    def action(self) -> dict[str, Any]:
        """Return the `deletionVector` of an add or remove action."""
        offset = {} if self.offset is None else {"offset": self.offset}
        return {
            "storageType": self.storage_type,
            "pathOrInlineDv": self.path_or_inline,
            **offset,
            "sizeInBytes": self.size_bytes,
            "cardinality": self.cardinality,
        }

    @property
    def unique_id(self) -> str:
        """Identifier among the vectors of one data file; part of the file's identity in the log."""
        name = self.storage_type + self.path_or_inline
        return name if self.offset is None else f"{name}@{self.offset}"

    @property
    def path(self) -> str:
        """Path of the vector's file: relative to the table, or absolute.

        Raises:
            VectorError: The vector is inline, or has an unsupported storage type.
        """
        if self.storage_type == ABSOLUTE:
            return unquote(self.path_or_inline)
        if self.storage_type != IN_TABLE or len(self.path_or_inline) < _UUID_Z85_CHARS:
            raise VectorError(f"a vector of storage type {self.storage_type!r} has no file")
        prefix = self.path_or_inline[:-_UUID_Z85_CHARS]
        name = file_name(UUID(bytes=z85_decoded(self.path_or_inline[-_UUID_Z85_CHARS:])))
        return f"{prefix}/{name}" if prefix else name


def file_name(identity: UUID) -> str:
    """Return the name of a file of vectors."""
    return f"deletion_vector_{identity}.bin"


def file_of(bitmaps: Iterable[BitMap64], identity: UUID) -> tuple[bytes, list[Vector]]:
    """Return the content of one file with these bitmaps, and their vectors in the same order."""
    pieces, vectors, offset = [bytes([FILE_VERSION])], [], 1
    encoded_identity = z85_encoded(identity.bytes)
    for bitmap in bitmaps:
        data = encoded(bitmap)
        pieces += [struct.pack(">i", len(data)), data, struct.pack(">I", zlib.crc32(data))]
        vectors.append(Vector(IN_TABLE, encoded_identity, offset, len(data), len(bitmap)))
        offset += len(data) + 8
    return b"".join(pieces), vectors


def in_file(content: bytes, vector: Vector) -> BitMap64:
    """Read the bitmap of `vector` from the content of its file.

    Raises:
        VectorError: Version, size, checksum, format or cardinality do not match.
    """
    at = vector.offset or 0
    if not content or content[0] != FILE_VERSION:
        raise VectorError(f"the file's version is {content[:1].hex() or 'missing'}, not 01")
    end = at + 4 + vector.size_bytes
    if len(content) < end + 4:
        raise VectorError(f"the file ends after {len(content)} bytes, before the vector does")
    (size_bytes,) = struct.unpack_from(">i", content, at)
    if size_bytes != vector.size_bytes:
        raise VectorError(f"the file says {size_bytes} bytes, the log {vector.size_bytes}")
    data = content[at + 4 : end]
    (checksum,) = struct.unpack_from(">I", content, end)
    if checksum != zlib.crc32(data):
        raise VectorError("the checksum does not match")
    return decoded(data, vector.cardinality)


def inline(vector: Vector) -> BitMap64:
    """Read the bitmap of a vector stored inline in the log.

    Raises:
        VectorError: The inline text is not a valid vector.
    """
    data = z85_decoded(vector.path_or_inline)
    if len(data) < vector.size_bytes:
        raise VectorError(f"{len(data)} bytes are inline, the log says {vector.size_bytes}")
    return decoded(data[: vector.size_bytes], vector.cardinality)


def encoded(bitmap: BitMap64) -> bytes:
    """Encode a bitmap, magic number included."""
    return struct.pack("<i", MAGIC) + bitmap.serialize()


def decoded(data: bytes, cardinality: int) -> BitMap64:
    """Decode a bitmap from the format of `encoded`.

    Raises:
        VectorError: The format is another, or the number of rows is not that of the log.
    """
    magic = struct.unpack_from("<i", data)[0] if len(data) >= 4 else None
    if magic != MAGIC:
        raise VectorError(f"the magic number is {magic}, not {MAGIC}")
    try:
        bitmap = BitMap64.deserialize(data[4:])
    except (ValueError, IndexError) as error:
        raise VectorError(f"no Roaring bitmap: {error}") from error
    if len(bitmap) != cardinality:
        raise VectorError(f"it deletes {len(bitmap)} rows, the log says {cardinality}")
    return bitmap


def z85_encoded(data: bytes) -> str:
    """Encode bytes in base 85 as in ZeroMQ RFC 32; their length must be a multiple of 4."""
    return "".join(
        _Z85[word // power % 85]
        for (word,) in struct.iter_unpack(">I", data)
        for power in (85**4, 85**3, 85**2, 85, 1)
    )


def z85_decoded(text: str) -> bytes:
    """Decode the text of `z85_encoded`.

    Raises:
        VectorError: The text is not Z85.
    """
    if len(text) % 5 or not _Z85_VALUES.keys() >= set(text):
        raise VectorError("the text is not Z85")
    words = []
    for start in range(0, len(text), 5):
        value = 0
        for char in text[start : start + 5]:
            value = value * 85 + _Z85_VALUES[char]
        if value >= 1 << 32:
            raise VectorError("the text is not Z85")
        words.append(struct.pack(">I", value))
    return b"".join(words)
