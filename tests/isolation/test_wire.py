"""Frames come back as they were sent, and a claim of length costs nothing."""

import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.isolation import wire

KINDS = st.sampled_from(["progress", "name", "file", "result", "error"])
LIMITS = dict.fromkeys(["progress", "name", "file", "result", "error"], 1000)


@given(st.lists(st.tuples(KINDS, st.binary(max_size=1000))))
def test_frames_round_trip(frames):
    stream = io.BytesIO()
    for kind, payload in frames:
        wire.write(stream, kind, payload)
    stream.seek(0)

    assert [wire.read(stream, LIMITS) for _ in frames] == frames
    assert wire.read(stream, LIMITS) is None


@given(st.binary(min_size=1, max_size=40))
def test_arbitrary_bytes_are_read_or_refused(data):
    stream = io.BytesIO(data)
    try:
        while wire.read(stream, LIMITS) is not None:
            pass
    except ValueError:
        return


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"F" + (1 << 62).to_bytes(8, "little"), "over its limit"),
        (b"H" + bytes(8), "no frame of kind"),
        (b"?" + bytes(8), "no frame of kind"),
        (b"F\1", "breaks off in its head"),
        (b"F" + (900).to_bytes(8, "little") + b"short", "breaks off"),
    ],
)
def test_what_is_no_frame_is_refused(data, words):
    with pytest.raises(ValueError, match=words):
        wire.read(io.BytesIO(data), LIMITS)


def test_a_long_claim_without_bytes_takes_no_memory():
    claim = b"F" + (1 << 40).to_bytes(8, "little") + b"x"
    tracemalloc.start()
    with pytest.raises(ValueError, match="breaks off"):
        wire.read(io.BytesIO(claim), {"file": 1 << 41})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 1 << 22
