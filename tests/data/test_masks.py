import datetime as dt
import itertools

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.data.masks import Mask, Masking, Masks, strictest
from bedplate.errors import InputError

KEY = b"0123456789abcdef"
MASK = st.builds(
    Mask,
    kind=st.sampled_from(["drop", "null", "hash", "noise", "generalise", "redact", "truncate"]),
    keep=st.integers(0, 5),
    step=st.sampled_from([0, 1, 5, 10, 2.5]),
    unit=st.sampled_from(["day", "month", "quarter", "year"]),
    scale=st.sampled_from([0.5, 2]),
    epsilon=st.sampled_from([0.25, 1]),
    members=st.lists(st.sampled_from(["a", "b", "c"]), unique=True).map(lambda names: tuple(sorted(names))),
)


def _masked(values: pa.Array, mask: Mask, key: bytes = KEY, batch: int = 2) -> pa.Table:
    table = pa.table({"a": values, "n": range(len(values))})
    masking = Masking(table.schema, table.column_names, {"a": mask}, key)
    scan = ds.dataset(table).scanner(columns=masking.columns, batch_size=batch)
    return masking.after(scan.to_reader()).read_all()


@given(st.lists(MASK, min_size=1, max_size=4))
def test_the_strictest_mask_wins_in_any_order(masks: list[Mask]) -> None:
    found = {strictest(order) for order in itertools.permutations(masks)}
    assert len(found) == 1


@given(st.lists(MASK, min_size=1, max_size=4), MASK)
def test_another_mask_never_shows_more(masks: list[Mask], more: Mask) -> None:
    order = ["truncate", "redact", "generalise", "noise", "hash", "null", "drop"]
    before, after = strictest(masks), strictest([*masks, more])
    assert before is not None
    assert after is not None
    assert order.index(after.kind) >= order.index(before.kind)
    if after.kind == before.kind:
        assert after.keep <= before.keep
        assert set(after.members) >= set(before.members)
        assert after.scale / after.epsilon >= before.scale / before.epsilon
        assert after.step == 0 or after.step >= before.step > 0
    assert after.with_(before) == after


def test_masks_by_column_and_by_tag_meet() -> None:
    masks = Masks(
        columns={"age": [Mask(kind="generalise", step=10)]},
        tags={
            "personal": {"age": [Mask(kind="null")]},
            "code": {"age": [Mask(kind="hash")], "id": [Mask(kind="hash")]},
        },
    )
    assert masks.of("age") == Mask(kind="null")
    assert masks.of("id") == Mask(kind="hash")
    assert masks.of("other") is None
    assert masks.of("age", {"personal"}) == Mask(kind="hash")
    assert masks.of("age", {"personal", "code"}) == Mask(kind="generalise", step=10)
    assert masks.of("age", {"", "personal", "code"}) is None
    assert masks.on(["id"]) == ("code",)
    assert masks.on(["age", "other"]) == ("", "personal", "code")
    with pytest.raises(InputError, match="age, id"):
        masks.check(pa.schema([("other", pa.int64())]), "t")


@given(st.lists(st.none() | st.integers(-(1 << 63), (1 << 63) - 1), min_size=1), st.integers(1, 1 << 40))
def test_whole_numbers_are_rounded_down_exactly(values: list[int | None], step: int) -> None:
    floors = [None if v is None or v // step * step < -(1 << 63) else v // step * step for v in values]
    assert _masked(pa.array(values, pa.int64()), Mask(kind="generalise", step=step)).column("a").to_pylist() == floors


def test_a_dropped_column_is_not_there_and_a_null_one_is_empty() -> None:
    assert _masked(pa.array([1, 2]), Mask(kind="drop")).to_pydict() == {"n": [0, 1]}
    assert _masked(pa.array([1, 2]), Mask(kind="null")).to_pydict() == {"a": [None, None], "n": [0, 1]}


def test_members_of_json_texts_are_emptied_at_any_depth() -> None:
    mask = Mask(kind="redact", members=("age", "income"))
    texts = ['{"age":34,"id":7,"more":[{"income":[1,2],"x":null}]}', "[]", None, '"age"', "age: 34"]
    assert _masked(pa.array(texts), mask).column("a").to_pylist() == [
        '{"age":null,"id":7,"more":[{"income":null,"x":null}]}',
        "[]",
        None,
        '"age"',
        None,
    ]
    assert _masked(pa.array([1, 2]), mask).column("a").to_pylist() == [None, None]


def test_codes_are_the_same_for_the_same_value_and_key_only() -> None:
    codes = _masked(pa.array(["ana", "bo", None, "ana", ""]), Mask(kind="hash")).column("a").to_pylist()
    assert codes[0] == codes[3] != codes[1]
    assert codes[2] is None
    assert {len(code) for code in codes if code is not None} == {32}
    other = _masked(pa.array(["ana"]), Mask(kind="hash"), b"another key of 24 bytes.").column("a").to_pylist()
    assert other[0] != codes[0]
    numbers = _masked(pa.array([7, None, 7]), Mask(kind="hash")).column("a").to_pylist()
    assert numbers == _masked(pa.array(["7", None, "7"]), Mask(kind="hash")).column("a").to_pylist()
    with pytest.raises(InputError, match="secret key"):
        _masked(pa.array(["ana"]), Mask(kind="hash"), b"")


@pytest.mark.parametrize(
    ("values", "mask", "expected"),
    [
        (pa.array(["Zürich", "x", None]), Mask(kind="truncate", keep=2), ["Zü", "x", None]),
        (pa.array([89, -1, None, 90]), Mask(kind="generalise", step=10), [80, -10, None, 90]),
        (pa.array([-128, 127], pa.int8()), Mask(kind="generalise", step=10), [None, 120]),
        (pa.array([1.9, -0.1]), Mask(kind="generalise", step=0.5), [1.5, -0.5]),
        (pa.array([dt.date(2024, 5, 17)]), Mask(kind="generalise", unit="quarter"), [dt.date(2024, 4, 1)]),
        (pa.array([dt.datetime(2024, 5, 17, 8)]), Mask(kind="generalise"), [dt.datetime(2024, 1, 1)]),
        (pa.array([-128, -120, -1], pa.int8()), Mask(kind="generalise", step=8), [-128, -120, -8]),
        (pa.array([-(1 << 63), (1 << 63) - 1]), Mask(kind="generalise", step=10), [None, (1 << 63) - 8]),
        (pa.array([-3, 3], pa.int8()), Mask(kind="generalise", step=1e30), [None, 0]),
        (pa.array([12345]), Mask(kind="truncate", keep=2), [None]),
        (pa.array(["text"]), Mask(kind="generalise", step=10), [None]),
        (pa.array([7]), Mask(kind="generalise"), [None]),
        (pa.array([[1]]), Mask(kind="hash"), [None]),
    ],
)
def test_values_are_coarser_and_what_does_not_fit_is_null(values: pa.Array, mask: Mask, expected: list[object]) -> None:
    assert _masked(values, mask).column("a").to_pylist() == expected


NOISE = Mask(kind="noise", scale=10, epsilon=0.5)


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.float64(), pa.float32()])
def test_noise_is_of_the_size_that_its_scale_and_epsilon_say_and_new_at_every_read(kind: pa.DataType) -> None:
    rows = 20_000
    truth = pa.array([1000] * rows, kind)
    first, again = (_masked(truth, NOISE, batch=1 << 13).column("a") for _ in range(2))
    assert first.type == kind
    assert first != again
    off = [value - 1000 for value in first.to_pylist()]
    # A Laplace distribution of width 20: no mean and a mean size of 20, within five standard errors.
    assert abs(sum(off) / rows) < 5 * 20 * 2**0.5 / rows**0.5
    assert abs(sum(map(abs, off)) / rows - 20) < 5 * 20 / rows**0.5
    grid = 1.0 if pa.types.is_integer(kind) else 2.0 ** (4 - 10)
    assert all(value % grid == 0 for value in first.to_pylist())  # nothing below it, where it would tell of the number


def test_noise_hides_what_is_no_number_and_fits_the_type() -> None:
    odd = pa.array([None, float("nan"), float("inf"), -float("inf"), 1.0])
    assert _masked(odd, NOISE).column("a").to_pylist()[:4] == [None] * 4
    for kind, edge in ((pa.int64(), (1 << 63) - 1), (pa.int8(), -128), (pa.uint8(), 255)):
        out = _masked(pa.array([edge] * 50, kind), NOISE).column("a")
        assert (out.type, out.null_count) == (kind, 0)
    for texts in (pa.array(["x"]), pa.array([dt.date(2026, 1, 1)]), pa.array([True]), pa.array([[1]])):
        assert _masked(texts, NOISE).column("a").to_pylist() == [None]


@pytest.mark.parametrize(("scale", "epsilon"), [(0, 1), (1, 0), (-1, 1), (float("inf"), 1), (1, float("nan"))])
def test_noise_without_a_size_is_refused(scale: float, epsilon: float) -> None:
    with pytest.raises(InputError, match="above 0"):
        Mask(kind="noise", scale=scale, epsilon=epsilon)
