from __future__ import annotations

import struct
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from datazone_dagster.delta import vectors
from datazone_dagster.delta.vectors import Vector, VectorError

positions = st.sets(
    st.one_of(
        st.integers(0, 70_000),
        st.integers(0, 2**32 - 1),
        # The highest bit of a bucket key is zero, because Java reads the key as signed.
        st.integers(0, 2**63 - 1),
    ),
    max_size=200,
)
bitmaps = st.one_of(
    positions.map(BitMap64),
    st.tuples(st.integers(0, 10**6), st.integers(1, 10**5)).map(
        lambda span: BitMap64(range(span[0], span[0] + span[1]))
    ),
)


@given(st.lists(bitmaps, max_size=5))
def test_a_file_gives_back_every_bitmap(found: list[BitMap64]) -> None:
    content, placed = vectors.file_of(found, uuid.uuid4())
    assert [vectors.in_file(content, vector) for vector in placed] == found
    assert [vector.cardinality for vector in placed] == [len(bitmap) for bitmap in found]


@given(bitmaps)
def test_the_layout_is_that_of_the_protocol(bitmap: BitMap64) -> None:
    """Parse the file by the text of the protocol alone, not by the code under test."""
    content, (vector,) = vectors.file_of([bitmap], uuid.uuid4())
    assert content[0] == 1
    assert vector.offset == 1
    (size_bytes,) = struct.unpack(">i", content[1:5])
    data = content[5 : 5 + size_bytes]
    assert len(content) == 5 + size_bytes + 4
    assert int.from_bytes(content[-4:], "big") == zlib.crc32(data)
    magic, buckets = struct.unpack("<iq", data[:12])
    assert magic == 1681511377
    assert buckets == len({position >> 32 for position in bitmap})
    assert BitMap64.deserialize(data[4:]) == bitmap


@given(st.binary(max_size=64).map(lambda data: data[: len(data) // 4 * 4]))
def test_z85_gives_back_the_bytes(data: bytes) -> None:
    assert vectors.z85_decoded(vectors.z85_encoded(data)) == data


def test_z85_is_that_of_zeromq() -> None:
    """The test vector of ZeroMQ RFC 32."""
    data = bytes([0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B])
    assert vectors.z85_encoded(data) == "HelloWorld"


@pytest.mark.parametrize("text", ["Hello", "Hell", "Hell\u00f6", "%%%%%", '"""""'])
def test_text_that_is_not_z85_is_refused(text: str) -> None:
    if text == "Hello":
        assert len(vectors.z85_decoded(text)) == 4
    else:
        with pytest.raises(VectorError, match="Z85"):
            vectors.z85_decoded(text)


def test_the_paths_of_the_protocol() -> None:
    in_table = Vector("u", "ab^-aqEH.-t@S}K{vb[*k^", 4, 40, 6)
    assert in_table.path == "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin"
    absolute = Vector("p", "s3://mytable/a%20b.bin", 4, 40, 6)
    assert absolute.path == "s3://mytable/a b.bin"


def test_an_inline_vector_is_read() -> None:
    """The text is from the Delta kernel's tests; the protocol's own example is an older format."""
    text = "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"
    assert vectors.inline(Vector("i", text, None, 44, 6)) == BitMap64([3, 4, 7, 11, 18, 29])
    older = Vector("i", "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", None, 40, 6)
    with pytest.raises(VectorError, match="magic number"):
        vectors.inline(older)


def test_a_path_is_that_of_the_named_file() -> None:
    identity = uuid.uuid4()
    _, (vector,) = vectors.file_of([BitMap64([1])], identity)
    assert vector.path == vectors.file_name(identity)
    assert vector.unique_id == f"u{vector.path_or_inline}@1"
    assert Vector.of_action(vector.action()) == vector


@given(bitmaps, st.data())
def test_any_changed_byte_is_noticed(bitmap: BitMap64, data: st.DataObject) -> None:
    content, (vector,) = vectors.file_of([bitmap], uuid.uuid4())
    at = data.draw(st.integers(0, len(content) - 1))
    changed = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    damaged = content[:at] + bytes([changed]) + content[at + 1 :]
    with pytest.raises(VectorError):
        vectors.in_file(damaged, vector)


@given(bitmaps, st.integers(0, 100))
def test_a_cut_file_is_noticed(bitmap: BitMap64, length: int) -> None:
    content, (vector,) = vectors.file_of([bitmap], uuid.uuid4())
    with pytest.raises(VectorError):
        vectors.in_file(content[: min(length, len(content) - 1)], vector)


def test_a_wrong_cardinality_and_an_unsupported_format_are_refused() -> None:
    data = vectors.encoded(BitMap64([1, 2]))
    with pytest.raises(VectorError, match="2 rows, the log says 3"):
        vectors.decoded(data, 3)
    with pytest.raises(VectorError, match="magic number"):
        vectors.decoded(struct.pack("<i", 1681511376) + data[4:], 2)
    with pytest.raises(VectorError, match="Roaring"):
        vectors.decoded(data[:4], 0)
    with pytest.raises(VectorError, match="no file"):
        _ = Vector("i", "00000", None, 4, 0).path
