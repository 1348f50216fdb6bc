"""Online features come back as they went in, and only to a reader that knows their shape."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bedplate import online
from bedplate.errors import InputError, IntegrityError
from bedplate.features import materialise
from bedplate.ids import digest_bytes
from bedplate.records import ViewRecord
from bedplate.serve.state import View, key_of, moments_of, pack_row, pack_rows, unpack_many, unpack_row, unpack_rows

NOW, THEN = datetime(2017, 2, 1, tzinfo=UTC), datetime(2017, 1, 1, tzinfo=UTC)
WIDTH = 3
VIEW = View(namespace="v", columns=("a", "b", "c"))
OTHER = View(namespace="v", columns=("b", "a", "c"))


def of(*entity: str) -> ViewRecord:
    """What is written of a view of these columns."""
    return ViewRecord(digest=digest_bytes(b""), entity=entity, rests_on=())


@given(values=hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(WIDTH)), elements=st.floats(width=32)))
def test_packing_keeps_every_bit(values):
    """Rows and lists of rows, of any length, any float."""
    items = np.arange(len(values), dtype=np.int64) - 2

    back, again = unpack_rows(VIEW, pack_rows(VIEW.columns, items, values, 7))

    assert np.array_equal(back, items)
    assert again.tobytes() == values.tobytes()
    assert unpack_many(VIEW, [pack_row(VIEW.columns, row, 7) for row in values]).tobytes() == values.tobytes()


def test_columns_in_another_order_are_refused():
    """The same names in another order would be read as the wrong features."""
    row = pack_row(VIEW.columns, np.zeros(WIDTH, np.float32), 7)

    with pytest.raises(IntegrityError, match="other columns"):
        unpack_row(OTHER, row)
    with pytest.raises(IntegrityError, match="other columns"):
        unpack_many(OTHER, [row])
    with pytest.raises(IntegrityError, match="other columns"):
        unpack_many(VIEW, [row[:-4]])


def test_the_rows_of_one_moment_go_online(tmp_path):
    """Other moments stay out; a pair view comes as one value per first entity; nulls become the missing value."""
    single = pa.table({"customer": [1, 2, 1], "as_of": [NOW, NOW, THEN], "x": pa.array([1.5, None, 9], pa.float32())})
    pairs = pa.table(
        {
            "customer": [1, 2, 1],
            "item": [8, 7, 7],
            "as_of": [NOW, NOW, NOW],
            "y": pa.array([1, 2, 3], pa.float32()),
        }
    )
    store = online.open(tmp_path / "online")

    counts = materialise(store, {"s": (of("customer"), single), "p": (of("customer", "item"), pairs)}, NOW)

    assert counts == {"s": 2, "p": 2}
    one, two = (store.get("s", key_of(i)) for i in (1, 2))
    bought = store.get("p", key_of(1))
    assert one is not None
    assert two is not None
    assert bought is not None
    assert unpack_row(View(namespace="s", columns=("x",)), one).tolist() == [1.5]
    assert moments_of([one, two, bought]) == [NOW.timestamp() * 1e6] * 3
    assert unpack_row(View(namespace="s", columns=("x",)), two).tolist() == [-1]
    items, values = unpack_rows(View(namespace="p", columns=("y",)), bought)
    assert items.tolist() == [7, 8]
    assert values.ravel().tolist() == [3, 1]
    store.close()


def test_online_views_are_keyed_by_whole_numbers(tmp_path):
    """Text keys are refused with the column's name."""
    table = pa.table({"customer": ["a"], "as_of": [NOW], "x": pa.array([1], pa.float32())})
    store = online.open(tmp_path / "online")

    with pytest.raises(InputError, match="customer"):
        materialise(store, {"s": (of("customer"), table)}, NOW)
    store.close()
