"""Views that are written in SQL alone: the same views, and refused where they say what makes no sense."""

from pathlib import Path

import pytest

from bedplate import settings
from bedplate.app import checking
from bedplate.compute import sandbox
from bedplate.errors import InputError
from bedplate.features import FeatureView, declared
from bedplate.features.files import written
from bedplate.usecase.starter import starter

PIPELINE = """
from bedplate import pipeline


@pipeline.feature_view(
    entity="customer", inputs=("visits",), time="at", ttl="30 d", owner="growth", request=("amount",),
    windows={"spend": {"of": "sum", "column": "amount", "over": "7 d"}, "visits": {"of": "count", "over": "7 d"}},
    on_demand={"over_usual": "amount / spend"}, defaults={"visits": 0},
)
def windowed():
    return "select customer, at, amount from visits where amount > 0"


@pipeline.feature_view(entity="customer", inputs=("visits",), time="at", rows=True)
def newest():
    return "select customer, at, amount from visits"


@pipeline.feature_view(
    entity=("shop", "customer"), inputs=("weeks", "shops"),
    time={"weeks": {"column": "week", "first": "2016-12-26", "days": 7}, "shops": None},
)
def moments():
    return "select shop, customer, sum(n) as n\\nfrom weeks join shops using (shop) group by all"
"""
SQL = {
    "windowed": """-- # What people spend; a line for people.
-- entity: customer
-- inputs: [visits]
-- time: at
-- ttl: 30 d
-- owner: growth
-- request: [amount]
-- windows:
--   spend: { of: sum, column: amount, over: 7 d }
--   visits: { of: count, over: 7 d }
-- on_demand: { over_usual: amount / spend }
-- defaults: { visits: 0 }

select customer, at, amount from visits where amount > 0;
""",
    "newest": """-- { entity: [customer], inputs: [visits], time: at, rows: true }
select customer, at, amount from visits""",
    "moments": """-- entity: [shop, customer]
-- inputs: [weeks, shops]
-- time: { weeks: { column: week, first: 2016-12-26, days: 7 }, shops: null }
select shop, customer, sum(n) as n
from weeks join shops using (shop) group by all
""",
}
NAMES = tuple(SQL)


def views(folder: Path, **texts: str) -> tuple[FeatureView, ...]:
    (folder / "features").mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / "features" / f"{name}.sql").write_text(text)
    names = tuple(texts)
    return declared(written(folder, names), names)


def test_in_sql_and_in_python_a_view_is_the_same(tmp_path: Path) -> None:
    """Windowed with features on demand, row by row, and of moments: what is computed, and its version."""
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    in_python = declared(sandbox.describe(tmp_path / "pipeline.py"), NAMES)
    in_sql = views(tmp_path, **SQL)
    assert in_sql == in_python
    assert [view.digest for view in in_sql] == [view.digest for view in in_python]
    with pytest.raises(InputError, match="'newest' is declared twice"):
        declared((*sandbox.describe(tmp_path / "pipeline.py"), *written(tmp_path, ("newest",))), NAMES)


HEAD = "-- entity: customer\n-- inputs: [visits]\n-- time: at\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no comment at its head"),
        ("select 1", "no comment at its head"),
        (HEAD, "no SELECT"),
        (f"{HEAD};", "no SELECT"),
        (f"{HEAD}-- entity\nselect 1", "head cannot be used"),
        (f"{HEAD}-- windows: {{n: [\nselect 1", "head cannot be used"),
        (f"{HEAD}-- entty: customer\nselect 1", "unknown field `entty`"),
        ("-- inputs: [visits]\nselect 1", "missing required field `entity`"),
        (f"{HEAD}-- ttl: 30\nselect 1", "ttl"),
        (f"{HEAD}-- defaults: {{n: none}}\nselect 1", "defaults"),
        (f"{HEAD}-- windows: {{n: {{of: median, column: v, over: 7 d}}}}\nselect 1", "window of n cannot be used"),
        ("-- entity: [a, b, c]\n-- inputs: [visits]\n-- time: at\nselect 1", "one or two entity"),
        (f"-- {'x' * 70_000}\nselect 1", "larger than 64 KiB"),
    ],
)
def test_what_a_file_says_wrong_is_told_with_its_name(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(InputError, match=found) as caught:
        views(tmp_path, recent=text)
    assert "features/recent.sql" in str(caught.value)


def test_names_of_views_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "other.sql").write_text(SQL["newest"])
    (tmp_path / "features").mkdir()
    assert written(tmp_path, ("../other", "other", "/etc/passwd")) == ()
    (tmp_path / "features" / "odd.sql").write_bytes(HEAD.encode() + b"select '\xff'")
    with pytest.raises(InputError, match="UTF-8"):
        written(tmp_path, ("odd",))


def test_a_check_of_the_use_case_reads_them(tmp_path: Path) -> None:
    starter(tmp_path / "shop", "shop")
    file = tmp_path / "shop" / "usecase.yaml"
    file.write_text(f"{file.read_text()}\nfeatures: [newest]\n")
    views(tmp_path / "shop", newest=SQL["newest"])
    assert checking.check(file, settings.load({})).features == ("newest",)
    (tmp_path / "shop" / "features" / "newest.sql").write_text(SQL["newest"].replace("entity", "entiy"))
    with pytest.raises(InputError, match="unknown field `entiy`"):
        checking.check(file, settings.load({}))
