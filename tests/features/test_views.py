"""Feature views as ``pipeline.py`` declares them."""

from types import SimpleNamespace

import pytest

from bedplate.errors import InputError
from bedplate.features import Periods, declared
from tests.train import shop


def declaration(**options):
    given = {"entity": ("customer",), "inputs": ("sales",), "time": "at", **options}
    return SimpleNamespace(
        name="view", kind="feature_view", options=given, sql="select 1 as customer", line=7, file="pipeline.py"
    )


def test_the_retail_views_are_well_formed():
    """All four, each with a time for every input but the product list."""
    views = {view.name: view for view in shop.views()}

    assert set(views) == {"household_recent", "product_popularity", "product_promotion", "household_product"}
    assert isinstance(views["product_promotion"].times["promotions"], Periods)
    assert views["product_popularity"].times == {"transactions": "transaction_timestamp", "products": None}


def test_views_come_in_the_order_asked_for():
    """The file decides which views there are."""
    first, second = declaration(), declaration()
    second.name = "other"

    assert [v.name for v in declared([first, second], ["other", "view"])] == ["other", "view"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"entity": ("a", "b", "c")}, "one or two entity"),
        ({"inputs": ()}, "at least one input"),
        ({"time": None}, "no input has a time"),
        ({"time": {"other": "at"}}, "how each input ends"),
        ({"time": {"sales": {"column": "week", "first": "soon", "days": 7}}}, "how each input ends"),
        ({"rows": True, "inputs": ("sales", "shops")}, "one input"),
        ({"rows": True, "time": {"sales": {"column": "week", "first": "2026-01-05", "days": 7}}}, "one input"),
        ({"windows": {"n": {"of": "count"}}}, "no length"),
        ({"windows": {"n": {"of": "count", "over": "7"}}}, "windows.n.over"),
        ({"windows": {"n": {"of": "count", "over": "-7 d"}}}, "windows.n.over"),
        ({"windows": {"n": {"of": "median", "column": "v", "over": "7 d"}}}, "window of n cannot be used"),
        ({"windows": {"n": {"of": "sum", "over": "7 d"}}}, "sum of no column"),
        ({"windows": {"n": {"of": "count", "column": "v", "over": "7 d"}}}, "count of v"),
        ({"windows": {"n": {"of": "count", "over": "7 d", "every": "1 d"}}}, "no 'every'"),
        ({"ttl": "soon"}, "ttl"),
        ({"defaults": {"n": "none"}}, "default is no number"),
        ({"on_demand": {"x": "__import__('os')"}}, "cannot be used in a feature on demand"),
        ({"on_demand": {"x": "n.real"}}, "cannot be used in a feature on demand"),
        ({"on_demand": {"x": "n **"}}, "no expression"),
        ({"on_demand": {"x": "min(n)"}}, "min takes 2"),
        ({"on_demand": {"x": "n"}, "entity": ("a", "b")}, "of one entity"),
        ({"on_demand": {"x": "n"}, "request": ("y",)}, "no feature on demand uses 'y'"),
        (
            {"windows": {"n": {"of": "count", "over": "7 d"}}, "on_demand": {"x": "y"}, "rows": True},
            "'y' is no feature",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(options, found):
    """Each names the view, and its line."""
    with pytest.raises(InputError, match=rf"pipeline.py:7: view(.|\n)*{found}|{found}(.|\n)*pipeline.py:7"):
        declared([declaration(**options)], ["view"])


def test_a_view_that_is_not_declared_is_refused():
    """The text lists those there are."""
    with pytest.raises(InputError, match=r"no feature view 'nothing'(.|\n)*view"):
        declared([declaration()], ["nothing"])
