import pytest

from bedplate.plan import requirements
from bedplate.plan.types import DataFacts, RecommenderSize, Requirements
from bedplate.usecase import Loaded


def test_each_item_says_line_and_rule(loaded: Loaded, needs: Requirements) -> None:
    lines = loaded.text.splitlines()
    for item in needs.items:
        assert item.rule
        assert 1 <= item.line <= len(lines)
        assert item.unit
    assert "p99" in lines[needs.item("p99").line - 1]
    assert "peak" in lines[needs.item("peak rate").line - 1]
    assert "retention" in lines[needs.item("prediction log kept").line - 1]


def test_concurrency_is_littles_law(needs: Requirements) -> None:
    assert needs.value("concurrency") == pytest.approx(500 * 0.020)


def test_the_day_has_24_hours_and_one_peak() -> None:
    for shape in requirements.SHAPES.values():
        assert len(shape) == 24
        assert max(shape) == 1
        assert min(shape) > 0


def test_the_budgets_of_the_stages_add_up_to_the_p99(needs: Requirements) -> None:
    assert sum(budget.seconds for budget in needs.budgets) == pytest.approx(0.020)
    names = [budget.stage for budget in needs.budgets]
    assert names == ["network", "waiting", "auth and decode", "features", "retrieval", "ranking", "encode", "log"]


def test_storage_is_growth_times_retention(needs: Requirements) -> None:
    months = 400 * 86400 / (730 * 3600)
    assert needs.value("prediction log kept") == pytest.approx(needs.value("prediction log a month") * months)


def test_the_shortest_time_named_is_the_cadence(needs: Requirements) -> None:
    assert needs.value("retrainings a month") == pytest.approx(730 / (7 * 24))


def test_what_nobody_knows_has_no_number(loaded: Loaded) -> None:
    names = {item.name for item in requirements.derive(loaded, DataFacts()).items}
    assert "one training" not in names
    assert "tables kept" not in names


def test_sizes_come_from_the_file(needs: Requirements) -> None:
    assert isinstance(needs.size, RecommenderSize)
    assert needs.size.catalogue == 92_000
    assert needs.residency == ("eu",)
    assert needs.replicas_max == 40
