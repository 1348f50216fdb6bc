"""Features of labels as they were known, against a walk over every row in Python."""

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.features import FeatureView, Window, compute_view, join
from bedplate.features.joins import Source
from tests.laws import examples

START = datetime(2026, 1, 1)
MINUTE = 60.0
Row = tuple[int | None, int | None, int | None, int]

rows = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 2)),
        st.one_of(st.none(), st.integers(0, 12)),
        st.one_of(st.none(), st.integers(-5, 5)),
        st.integers(0, 2),
    ),
    max_size=40,
)
labels = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 3)), st.integers(0, 16)), min_size=1, max_size=20)

WINDOWS = {
    "n": Window(of="count", over=5 * MINUTE),
    "total": Window(of="sum", column="v", over=5 * MINUTE),
    "mean": Window(of="mean", column="v", over=3 * MINUTE),
    "low": Window(of="min", column="v", over=3 * MINUTE),
    "high": Window(of="max", column="v", over=5 * MINUTE),
    "last": Window(of="last", column="v", over=5 * MINUTE),
}


def moment(minute: int | None) -> datetime | None:
    return None if minute is None else START + timedelta(minutes=minute)


def given_rows(values: list[Row]) -> pa.Table:
    return pa.table(
        {
            "who": pa.array([r[0] for r in values], pa.int64()),
            "time": pa.array([moment(r[1]) for r in values], pa.timestamp("us")),
            "v": pa.array([r[2] for r in values], pa.int64()),
            "w": pa.array([r[3] for r in values], pa.int64()),
        }
    )


def asked(values: list[tuple[int | None, int]]) -> pa.Table:
    return pa.table(
        {
            "who": pa.array([a[0] for a in values], pa.int64()),
            "t": pa.array([moment(a[1]) for a in values], pa.timestamp("us")),
            "x": list(range(len(values))),
        }
    )


def view(name: str, **more: Any) -> FeatureView:
    sql = more.pop("sql", "select who, time, v, w from buys")
    return FeatureView(name=name, entity=("who",), times={"buys": "time"}, sql=sql, rows=True, **more)


def source(table: pa.Table) -> Source:
    return lambda _: table.to_reader(max_chunksize=3)


def before(values: list[Row], who: int | None, minute: int, over: int | None) -> list[Row]:
    """The rows of one entity in [minute - over, minute), whatever their order."""
    return [
        r for r in values
        if who is not None and r[0] == who and r[1] is not None and r[1] < minute
        and (over is None or r[1] >= minute - over)
    ]  # fmt: skip


def by_hand(values: list[Row], who: int | None, minute: int, ttl: int | None) -> dict[str, float | None]:
    """What the windows are for one label."""
    known = before(values, who, minute, None)
    if not known or (ttl is not None and minute - max(r[1] or 0 for r in known) > ttl):
        return dict.fromkeys(WINDOWS)
    found: dict[str, float | None] = {}
    for name, window in WINDOWS.items():
        inside = before(values, who, minute, round(window.over / MINUTE))
        numbers = [r[2] for r in inside if r[2] is not None]
        newest = max(((r[1], r[2]) for r in inside if r[2] is not None), default=None)
        made: dict[str, float | None] = {
            "count": len(inside),
            "sum": sum(numbers) if numbers else None,
            "mean": sum(numbers) / len(numbers) if numbers else None,
            "min": min(numbers, default=None),
            "max": max(numbers, default=None),
            "last": newest[1] if newest else None,
        }
        found[name] = made[window.of]
    return found


@examples(5)
@given(values=rows, wanted=labels, ttl=st.one_of(st.none(), st.integers(1, 6)))
def test_windows_hold_what_lay_before_each_label(values, wanted, ttl):
    """Ties, rows without a time or an entity, repeated and out of order: no label is dropped, none sees its future."""
    windowed = view("windowed", windows=WINDOWS, ttl=None if ttl is None else ttl * MINUTE, defaults={"total": 99.0})

    joined = join(asked(wanted), "t", [windowed], source(given_rows(values)), threads=1)

    assert joined["x"].to_pylist() == list(range(len(wanted)))
    for found, (who, minute) in zip(joined.to_pylist(), wanted, strict=True):
        expected = by_hand(values, who, minute, ttl)
        expected["total"] = 99.0 if expected["total"] is None else expected["total"]
        for name, value in expected.items():
            assert found[name] == (value if value is None else pytest.approx(value, rel=1e-6)), name


@examples(5)
@given(values=rows, wanted=labels, ttl=st.one_of(st.none(), st.integers(1, 6)))
def test_several_views_of_rows_and_of_moments_at_once(values, wanted, ttl):
    """The newest row of each entity, the greatest at one time; the newest moment that is not after the label."""
    seconds = None if ttl is None else ttl * MINUTE
    newest = view("newest", sql="select who, time, w, v from buys where w > 0", ttl=seconds)
    spend = FeatureView(
        name="spend", entity=("who",), times={"buys": "time"}, ttl=seconds, defaults={"spent": -9.0},
        sql="select who, sum(v) as spent from buys where who is not null group by who",
    )  # fmt: skip
    given = given_rows(values)
    cuts = (4, 9)
    computed = compute_view(spend, lambda _: given.to_reader(), [START + timedelta(minutes=c) for c in cuts])

    joined = join(
        asked(wanted), "t", [newest, spend],
        lambda v: (given if v.rows else computed).to_reader(max_chunksize=2), threads=1,
    )  # fmt: skip

    for found, (who, minute) in zip(joined.to_pylist(), wanted, strict=True):
        known = [(r[1], r[3], -99 if r[2] is None else r[2]) for r in before(values, who, minute, None) if r[3] > 0]
        seen = max(known, default=None)
        alive = seen is not None and (ttl is None or minute - (seen[0] or 0) <= ttl)
        assert found["w"] == (seen[1] if seen and alive else None)
        assert found["v"] == (seen[2] if seen and alive and seen[2] != -99 else None)
        cut = max((c for c in cuts if c <= minute and before(values, who, c, None)), default=None)
        spent = [r[2] for r in before(values, who, cut, None) if r[2] is not None] if cut is not None else []
        fresh = cut is not None and (ttl is None or minute - cut <= ttl)
        assert found["spent"] == (sum(spent) if fresh and spent else -9.0)


def test_the_table_of_a_view_holds_its_moments_and_what_was_asked_for():
    """Both by the same code; rows that nobody knew anything of are not there."""
    windowed = view("windowed", windows={"n": Window(of="count", over=60 * MINUTE)})
    values: list[Row] = [(1, 2, 1, 0), (1, 5, 1, 0), (2, 5, 1, 0)]
    extra = pa.table({"who": [1, 2], "as_of": pa.array([moment(3), moment(3)], pa.timestamp("us"))})

    table = compute_view(windowed, lambda _: given_rows(values).to_reader(), [moment(9), moment(4)], asked=extra)

    assert [(r["who"], r["as_of"].minute, r["seen"].minute, r["n"]) for r in table.to_pylist()] == [
        (1, 9, 5, 2.0),
        (2, 9, 5, 1.0),
        (1, 4, 2, 1.0),
        (1, 3, 2, 1.0),
    ]


def test_features_on_demand_are_made_of_the_view_and_of_the_label():
    """Missing where anything they take is, or their default."""
    made = view(
        "made",
        windows={"total": Window(of="sum", column="v", over=60 * MINUTE)},
        on_demand={"share": "x / total", "twice": "share * 2"},
        request=("x",),
        defaults={"twice": 7.0},
    )

    joined = join(asked([(1, 5), (1, 5), (2, 5)]), "t", [made], source(given_rows([(1, 2, 4, 0)])))

    assert joined["share"].to_pylist() == [0.0, 0.25, None]
    assert joined["twice"].to_pylist() == [0.0, 0.5, 7.0]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"sql": "select who, time, sum(v) as s from buys group by all"}, "row by row"),
        ({"sql": "select who, time, sum(v) over (partition by who) as s from buys"}, "row by row"),
        ({"sql": "select who, time, max(v) as s from buys"}, "row by row"),
        ({"sql": "select who, time, (select max(v) from buys) as s from buys"}, "row by row"),
        ({"sql": "select b.who, b.time, c.v from buys b join buys c using (who)"}, "row by row"),
        ({"sql": "select who, time, v from buys order by v"}, "row by row"),
        ({"sql": "with b as (from buys) select who, time, v from b"}, "row by row"),
        ({"sql": "select who, time - interval 1 day as time, v from buys"}, "changes the time"),
        ({"sql": "select * replace (time - interval 1 day as TIME) from buys"}, "changes the time"),
        ({"sql": "select * exclude (time), v::varchar::timestamp as time from buys"}, "changes the time"),
        ({"sql": "select who, w as time, v from buys"}, "changes the time"),
        ({"sql": "select who, v from buys"}, "no column 'time'"),
        ({"sql": "select who, time, 'a' as v from buys"}, "not a number"),
        ({"sql": "select who, time, v as seen from buys"}, "cannot be called"),
        ({"sql": "select who, time, v from nothing"}, "nothing"),
        ({"sql": "select who, time from buys"}, "no features"),
        ({"windows": {"s": Window(of="sum", column="z", over=1.0)}}, "no column 'z'"),
        ({"defaults": {"z": 1.0}}, "default for 'z'"),
    ],
)
def test_sql_that_could_look_ahead_is_refused(changes, found):
    """What a row says may rest on that row alone."""
    with pytest.raises(InputError, match=found) as caught:
        join(asked([(1, 5)]), "t", [view("wrong", **changes)], source(given_rows([(1, 2, 4, 0)])))
    assert "feature view wrong" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "time", "found"),
    [
        ({"entity": ("household",)}, "t", "no column 'household'"),
        ({}, "x", "no times"),
        ({}, "when", "no column 'when'"),
    ],
)
def test_labels_without_what_is_needed_are_refused(changes, time, found):
    with pytest.raises(InputError, match=found):
        join(
            asked([(1, 5)]), time, [FeatureView(**{"name": "n", "entity": ("who",), "times": {"buys": "time"},
            "sql": "select who, time, v from buys", "rows": True} | changes)], source(given_rows([])),
        )  # fmt: skip


def test_a_feature_of_two_views_is_refused():
    twice = [view("one", sql="select who, time, v from buys"), view("two", sql="select who, time, v from buys")]
    with pytest.raises(InputError, match="there twice"):
        join(asked([(1, 5)]), "t", twice, source(given_rows([])))


ZONED = pa.timestamp("us", "UTC")


def test_labels_and_rows_on_different_clocks_are_refused() -> None:
    """Neither is taken for the other: an hour of summer time is an hour of the future."""
    newest = view("newest", sql="select who, time, v from buys")
    bare, labelled = given_rows([(1, 2, 5, 0)]), asked([(1, 3)])
    moved = bare.set_column(1, "time", bare["time"].cast(ZONED))
    zoned = labelled.set_column(1, "t", labelled["t"].cast(pa.timestamp("us", "Europe/Lisbon")))
    for labels_, rows_, at_fault in ((zoned, bare, "buys"), (labelled, moved, "the labels")):
        with pytest.raises(InputError, match=f"those of {at_fault} name none"):
            join(labels_, "t", [newest], source(rows_))
    assert join(zoned, "t", [newest], source(moved))["v"].to_pylist() == [5], "moments are moments in whatever zone"
    with pytest.raises(InputError, match="those of buys name none"):
        compute_view(newest, lambda _: bare.to_reader(), [], asked=zoned.rename_columns(["who", "as_of", "x"]))
    both = FeatureView(
        name="both", entity=("who",), times={"buys": "time", "visits": "time"},
        sql="select who, count(*) as n from buys join visits using (who) group by who",
    )  # fmt: skip
    with pytest.raises(InputError, match="those of buys name none"):
        compute_view(both, lambda name: (bare if name == "buys" else moved).to_reader(), [START])
    assert compute_view(both, lambda _: moved.to_reader(), [START + timedelta(minutes=9)]).num_rows == 1
