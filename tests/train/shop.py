"""A small made-up shop: households with tastes, so that there is something to learn. Only tests use it."""

from datetime import datetime, timedelta
from importlib import util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from bedplate import pipeline
from bedplate.features import FeatureView, compute_view, declared, moments
from bedplate.records import ViewRecord

START = datetime(2017, 1, 2)
DAYS = 150
RETAIL = Path(__file__).parents[2] / "examples" / "retail" / "pipeline.py"


def retail() -> ModuleType:
    """The retail example's ``pipeline.py``."""
    spec = util.spec_from_file_location("retail_pipeline", RETAIL)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def views() -> tuple[FeatureView, ...]:
    """The retail example's feature views."""
    declarations: list[Any] = []
    for function in vars(retail()).values():
        mark = pipeline.mark_of(function)
        if mark is not None and mark.kind == "feature_view":
            declarations.append(
                SimpleNamespace(
                    name=mark.name, kind=mark.kind, options=mark.options, sql=function(), line=1, file="pipeline.py"
                )
            )
    return declared(declarations, [d.name for d in declarations])


def recorded(view: FeatureView) -> ViewRecord:
    """What is written of a view."""
    return ViewRecord(digest=view.digest, entity=view.entity, rests_on=())


def tables(households: int = 120, products: int = 150, seed: int = 1) -> dict[str, pa.Table]:
    """Transactions, products, promotions and demographics in the retail data's columns."""
    random = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, products + 1)
    lines: list[tuple[int, int, int, datetime]] = []
    basket = 0
    for household in range(1, households + 1):
        taste = popularity * random.gamma(0.15, 1, products)
        taste /= taste.sum()
        day = float(random.uniform(0, 9))
        rhythm = float(random.uniform(3, 12))
        while day < DAYS:
            basket += 1
            bought = random.choice(products, size=int(random.integers(2, 7)), p=taste)
            lines += [(household, 1000 + int(p), basket, START + timedelta(days=day)) for p in np.unique(bought)]
            day += float(random.exponential(rhythm)) + 0.5
    n = len(lines)
    value = random.uniform(1, 9, n).round(2)
    weeks = np.arange(1, DAYS // 7 + 2)
    ids = np.arange(1000, 1000 + products)
    grid = np.array([(p, w) for p in ids for w in weeks if (p + w) % 5 == 0])
    return {
        "transactions": pa.table(
            {
                "household_id": [x[0] for x in lines],
                "product_id": [x[1] for x in lines],
                "basket_id": [x[2] for x in lines],
                "quantity": random.integers(1, 4, n),
                "sales_value": value,
                "retail_disc": np.where(random.random(n) < 0.3, value / 5, 0),
                "coupon_disc": np.zeros(n),
                "coupon_match_disc": np.zeros(n),
                "transaction_timestamp": pa.array([x[3] for x in lines], pa.timestamp("us")),
            }
        ),
        "products": pa.table(
            {
                "product_id": ids,
                "product_type": [f"type {p % 20}" for p in ids],
                "product_category": [f"category {p % 7}" for p in ids],
            }
        ),
        "promotions": pa.table(
            {
                "product_id": grid[:, 0],
                "store_id": np.ones(len(grid), np.int64),
                "display_location": np.where(grid[:, 0] % 2 == 0, "0", "9"),
                "mailer_location": np.where(grid[:, 0] % 3 == 0, "0", "A"),
                "week": grid[:, 1],
            }
        ),
        "demographics": pa.table(
            {
                "household_id": np.arange(1, households + 1, 2),
                "age": [("19-24", "65+")[h % 4 // 2] for h in range(1, households + 1, 2)],
                "income": ["50-74K"] * len(range(1, households + 1, 2)),
            }
        ),
    }


def cuts(windows: int = 2) -> tuple[datetime, ...]:
    """Moments to compute features for."""
    return moments(START + timedelta(days=DAYS), holdout=timedelta(days=28), windows=windows)


def features(data: dict[str, pa.Table], as_of: tuple[datetime, ...]) -> dict[str, pa.Table]:
    """The retail example's feature tables of ``data``."""
    return {view.name: compute_view(view, lambda name: data[name].to_reader(), as_of) for view in views()}


def task(windows: int = 2, **recipe: Any) -> Any:
    """A training task on the shop."""
    from bedplate.compute.task import Task

    data, as_of = tables(), cuts(windows)
    small = {"ranker": {"rounds": 30, "negatives": 0.5, "lightgbm": {"num_leaves": 15, "min_data_in_leaf": 20}}}
    parameters = {
        **retail().RECIPE,
        **small,
        "factors": {"size": 8, "min_buyers": 2, "iterations": 4},
        "as_of": [moment.isoformat() + "Z" for moment in as_of],
        **recipe,
    }
    return Task(tables={**data, **features(data, as_of)}, parameters=parameters)
