"""Header blocks: the examples of the standard, whatever a peer may send, and nothing that crashes or grows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.serve import hpack
from bedplate.serve.hpack import Decoder, HpackError, literal

# RFC 7541, C.4: three requests on one connection, with Huffman codes.
REQUESTS = [
    ("828684418cf1e3c2e5f23a6ba0ab90f4ff", [(b":path", b"/"), (b":authority", b"www.example.com")]),
    ("828684be5886a8eb10649cbf", [(b":authority", b"www.example.com"), (b"cache-control", b"no-cache")]),
    ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", [(b"custom-key", b"custom-value")]),
]


def test_the_examples_of_the_standard() -> None:
    decoder = Decoder(8192)
    for block, expected in REQUESTS:
        headers = decoder.decode(bytes.fromhex(block))
        assert headers[:2] in (
            [(b":method", b"GET"), (b":scheme", b"http")],
            [(b":method", b"GET"), (b":scheme", b"https")],
        )
        assert [header for header in expected if header in headers] == expected


def test_every_character_has_its_code() -> None:
    """Packed with the codes that the lengths give, every text reads as itself; and the codes leave no gap."""
    by_character = {character: (length, code) for (length, code), character in hpack._CODES.items()}
    assert sorted(by_character) == list(range(256))
    # Together with the one of 30 bits that ends a text they are all there can be.
    assert sum(1 << (30 - length) for length, _ in by_character.values()) + 1 == 1 << 30
    text = bytes(range(256))
    bits = "".join(f"{code:0{length}b}" for length, code in (by_character[character] for character in text))
    bits += "1" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big")
    assert hpack._unpack(packed, 8192) == text
    assert by_character[ord("a")] == (5, 3)
    assert by_character[0] == (13, 0x1FF8)
    assert by_character[255] == (26, 0x3FFFFEE)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=300)), max_size=8))
def test_what_is_written_is_read(headers: list[tuple[bytes, bytes]]) -> None:
    assert Decoder(1 << 16).decode(b"".join(literal(*header) for header in headers)) == headers


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_no_bytes_crash_it(blocks: list[bytes]) -> None:
    decoder = Decoder(8192)
    try:
        for block in blocks:
            decoder.decode(block)
    except HpackError:
        pass
    assert 0 <= decoder._size <= hpack.TABLE
    assert decoder._size == sum(len(name) + len(value) + 32 for name, value in decoder._table)


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xff\xff\xff\xff\xff\x0f",  # an index beyond all bounds
        b"\xbe",  # not in the table
        b"\x40\x01a",  # breaks off
        b"\x00\x01a\x81\x00",  # Huffman: ends within a code
        b"\x00\x01a\x84\xff\xff\xff\xff",  # Huffman: the end of text
        b"\x3f\xe2\x1f",  # a table of more than was offered
        b"\x00\x01a\x7f\x81\x7f" + bytes(16_384),  # larger than allowed
        b"\x40\x01a\x7f\x81\x10" + bytes(2_176) + b"\xbe" * 100,  # a small block that unfolds to a large one
    ],
)
def test_what_is_wrong_is_refused(block: bytes) -> None:
    with pytest.raises(HpackError):
        Decoder(8192).decode(block)


def test_a_block_is_read_anew_once_the_table_has_changed() -> None:
    decoder = Decoder(8192)
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder.decode(b"\xbe") == decoder.decode(b"\xbe") == [(b"a", b"b")]
    decoder.decode(b"\x40\x01c\x01d")
    assert decoder.decode(b"\xbe") == [(b"c", b"d")]
    decoder.decode(b"\x20" + b"\x3f\xe1\x1f")  # emptied
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe")
    decoder.decode(b"\x40\x01a\x7f\x81\x1f" + bytes(4_096))  # larger than the table, which is empty then
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe")
