"""Records of the prediction log: what goes in comes out, and what is not whole is refused."""

import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import IntegrityError
from bedplate.ids import digest_bytes
from bedplate.journal.predictions import Encoder, Packed, decode, part
from bedplate.records import Prediction, TraceContext

NONE = digest_bytes(b"")
DTYPES = ("<f4", "<f8", "<f2", "|b1", "|u1", "<i8", "<u2")


class Own(msgspec.Struct):
    entity: str
    features: dict[str, Any]
    id: str
    inputs: dict[str, Any]
    latency_ms: float
    outputs: dict[str, Any]
    request_id: str
    time: str


def own(inputs: dict[str, Any], outputs: dict[str, Any]) -> Own:
    return Own("7", {"age": 4}, "pred_1", inputs, 1.5, outputs, "ü\0", "2026-01-01T00:00:00.000000Z")


def head(encoder: Encoder) -> bytes:
    names = dict.fromkeys(("endpoint", "use_case", "principal", "decision"), "x")
    return encoder.head({**names, "bundle": NONE, "evidence": NONE})


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    numbers = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 2, shape)
    return numbers.astype(draw(st.sampled_from(DTYPES)))


@given(
    st.lists(st.dictionaries(st.text(max_size=5), arrays() | st.lists(st.text()), max_size=4), min_size=2, max_size=6)
)
def test_one_record_after_the_other_is_read_as_it_was_made(made: list[dict[str, Any]]) -> None:
    encoder = Encoder()
    for inputs, outputs in itertools.pairwise(made):
        given = [
            {k: Packed(v.dtype.str, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for k, v in one.items()}
            for one in (inputs, outputs)
        ]
        trace = TraceContext(parent="00-1") if len(inputs) % 2 else None

        found = decode(encoder.record(head(encoder), own(*given), trace))

        plain = [
            {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in one.items()} for one in (inputs, outputs)
        ]
        assert [found.inputs, found.outputs] == plain
        assert (found.request_id, found.trace, found.bundle, found.features) == ("ü\0", trace, NONE, {"age": 4})


def test_what_cannot_be_encoded_leaves_nothing_for_the_next_record() -> None:
    encoder = Encoder()
    packed = Packed("<i8", (1,), b"12345678")
    with pytest.raises(NotImplementedError):
        encoder.record(head(encoder), own({"a": packed}, {"b": object()}))

    record = encoder.record(head(encoder), own({"a": Packed("<i8", (1,), bytes(8))}, {}))

    assert decode(record).inputs == {"a": [0]}
    assert record.endswith(bytes(8))
    assert b"12345678" not in record


@given(st.integers(0, 10**4))
def test_a_record_that_breaks_off_is_refused(cut: int) -> None:
    encoder = Encoder()
    record = encoder.record(head(encoder), own({"a": Packed("<i8", (4,), bytes(32))}, {}))
    with pytest.raises(IntegrityError):
        decode(record[: cut % len(record)])


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(record: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode(record)
    with pytest.raises(IntegrityError):
        part(record, Prediction)
