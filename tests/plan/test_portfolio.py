"""Several use cases on one budget: the laws of what is funded and of what is shared."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.plan import catalogue, choose, portfolio, requirements
from bedplate.plan.portfolio import Entry, Portfolio
from bedplate.plan.types import Requirements
from bedplate.usecase import load
from bedplate.usecase.types import Money
from tests.laws import examples
from tests.plan.conftest import FACTS, PROBE, changed
from tests.usecase.conftest import write

CATALOGUE = catalogue.load()


@pytest.fixture(scope="module")
def needs(tmp_path_factory: pytest.TempPathFactory) -> Requirements:
    folder = tmp_path_factory.mktemp("case")
    write(folder)
    return requirements.derive(load(folder), FACTS)


def entry(
    needs: Requirements, name: str, worth: float | None, *, peak: float = 60, where: tuple[str, ...] = ()
) -> Entry:
    asked = msgspec.structs.replace(needs, use_case=name, residency=where, on_breach="warn")
    plan = choose.plan(changed(asked, "peak rate", peak), CATALOGUE, PROBE)
    return Entry(plan=plan, worth=None if worth is None else Money(amount=worth, currency="USD"))


def dollars(amount: float) -> Money:
    return Money(amount=amount, currency="USD")


def net(found: Portfolio) -> float:
    return found.worth - found.cost


@pytest.fixture(scope="module")
def several(needs: Requirements) -> list[Entry]:
    return [
        entry(needs, "anywhere", 900),
        entry(needs, "europe", 500, peak=90, where=("eu",)),
        entry(needs, "america", 700, peak=30, where=("us",)),
        entry(needs, "poor", 1),
        entry(needs, "unsaid", None),
        Entry(plan=choose.plan(changed(needs, "p99", 0.0006), CATALOGUE, PROBE), worth=dollars(9000)),
    ]


def test_each_use_case_gets_a_verdict_and_the_funded_an_order(several: list[Entry]) -> None:
    found = portfolio.choose(several, None)
    states = {share.use_case: share.state for share in found.shares}
    assert states == {
        "anywhere": "funded", "europe": "funded", "america": "funded", "poor": "not worth it", "unsaid": "no value",
        "retail": "no plan",
    }  # fmt: skip
    funded = [share for share in found.shares if share.order]
    assert [share.order for share in funded] == [1, 2, 3]
    ratios = [(share.worth or 0) / (share.cost or 1) for share in funded]
    assert ratios == sorted(ratios, reverse=True)
    assert found.cost == pytest.approx(sum(share.cost or 0 for share in funded))
    assert found.worth == 2100
    assert found.gap == 0
    assert found == portfolio.choose(several[::-1], None)
    tight = portfolio.choose(several, dollars(1))
    assert tight.cost == 0
    assert {share.state for share in tight.shares} == {"over budget", "not worth it", "no value", "no plan"}
    unsaid = next(f"{share.state}: {share.why}" for share in tight.shares if share.state == "no value")
    assert "objective.value.monthly" in unsaid[:60], "a table that cuts its last column shows what to write"


@examples(2)
@given(budget=st.floats(1, 500), more=st.floats(0, 300))
def test_more_budget_is_never_worth_less_and_is_never_exceeded(
    several: list[Entry], budget: float, more: float
) -> None:
    less, larger = (portfolio.choose(several, dollars(amount)) for amount in (budget, budget + more))
    assert less.cost <= budget + 1e-6
    assert net(less) <= net(larger) + 1e-6


def test_sharing_keeps_residency_and_never_has_fewer_machines_than_one_needs(needs: Requirements) -> None:
    apart = [entry(needs, "eu", 900, where=("eu",)), entry(needs, "us", 900, where=("us",))]
    assert portfolio.choose(apart, None).pool == "", "no machine may be in both places"
    together = [entry(needs, f"eu{i}", 900, peak=8, where=("eu",)) for i in range(3)]
    found = portfolio.choose(together, None)
    assert found.pool
    assert found.saved > 0
    assert found.cost < sum(share.alone or 0 for share in found.shares)
    regions = {i.region for i in CATALOGUE.instances if i.residency == "eu"} | {"here"}
    for share, one in zip(found.shares, together, strict=True):
        assert share.option.split("/")[1] in regions
        assert (share.cost or 0) <= (share.alone or 0) + 1e-9
        used = next(option for option in one.plan.options if share.option == portfolio.named(option))
        assert used.meets


def test_many_are_chosen_one_by_one_and_the_gap_is_no_lie(
    several: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    for amount in (60.0, 150.0, 400.0):
        best = portfolio.choose(several, dollars(amount))
        with monkeypatch.context() as few:
            few.setattr(portfolio, "EXACT", 1)
            found = portfolio.choose(several, dollars(amount))
        assert found.cost <= amount
        assert net(found) <= net(best) + 1e-6 <= net(found) + found.gap + 1e-3
