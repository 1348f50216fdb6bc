"""Plans held to what happened: each training, release and day once, and the next plan made with it."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from bedplate import clock, settings
from bedplate.app import access, actuals, planning
from bedplate.app.system import System
from bedplate.compute import sandbox
from bedplate.ids import digest_bytes
from bedplate.observe.ship import SCHEMA
from bedplate.plan import catalogue, choose, requirements
from bedplate.plan.experience import Actual
from bedplate.plan.types import Plan
from bedplate.records import Estimate, Governance, LoadTest, ReplicaPrice
from bedplate.usecase import Loaded
from bedplate.usecase.types import Money
from tests.app.test_access import logged
from tests.governed import govern
from tests.plan.conftest import FACTS, PROBE
from tests.usecase.conftest import write

NAME, DAY = "retail", date(2026, 5, 31)
PRICE = ReplicaPrice(hour=0.1, currency="USD", basis="a machine")


def plan_of(loaded: Loaded, system: System | None = None) -> Plan:
    experience = planning.past(system.store).experience if system is not None else requirements.NOTHING_LEARNED
    needs = requirements.derive(loaded, FACTS, experience, PROBE.cpu)
    return choose.plan(needs, catalogue.load(), PROBE)


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    from bedplate.usecase import load

    write(tmp_path)
    return load(tmp_path)


@pytest.fixture
def system(tmp_path: Path, loaded: Loaded) -> Iterator[System]:
    """A home whose use case has a plan and an endpoint, and was asked 300 times on one day, once in a replay."""
    with System(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")})) as opened:
        govern(opened, NAME, Governance(purpose="care", sensitive=()))
        some = digest_bytes(b"bundle")
        rows = [
            logged(some) | {"use_case": NAME, "endpoint": NAME, "id": f"p{i}", "latency_ms": float(1 + i % 10),
                            "time": datetime(2026, 5, 31, tzinfo=UTC) + timedelta(minutes=4 * i), "replayed": i == 0}
            for i in range(300)
        ]  # fmt: skip
        opened.tables.write(access.predictions_table(NAME), pa.Table.from_pylist(rows, schema=SCHEMA), mode="append")
        with opened.store.transaction() as tx:
            tx.facts.put("plan", NAME, plan_of(loaded))
            tx.endpoints.put(NAME, use_case=NAME, bundle=some, spec={"price": msgspec.to_builtins(PRICE)})
        yield opened


def kept(system: System) -> list[Actual]:
    with system.store.read() as tx:
        return [actual for _, actual in actuals.history(tx, NAME)]


def trained(system: System, plan: Plan, seconds: float, run: str, at: str = "2026-05-30T10:00:00Z") -> Actual:
    actual = actuals.of_training(plan, run, seconds=seconds, peak=3 << 30, at=at)
    with system.store.transaction() as tx:
        tx.facts.put(actuals.KIND, NAME, actual)
    return actual


def failed(system: System, plan: Plan, seconds: float) -> None:
    with system.store.transaction() as tx:
        tx.facts.put(actuals.KIND, NAME, actuals.of_failure(plan, seconds))


def test_a_day_is_written_down_once_also_after_a_restart(system: System) -> None:
    ran = {(NAME, DAY): (86_400.0, 24.0)}
    for _ in range(2):
        actuals.close(system, [DAY, DAY - timedelta(days=1)], ran)
    actuals.close(system, [DAY], {})  # an owner that came up later and knows nothing of that day
    (day,) = kept(system)
    assert (day.of, day.when, day.requests, day.hours) == ("day", "2026-05-31", 299, 24.0)
    assert day.spent == pytest.approx(2.4)
    figures = {figure.name: figure for figure in day.figures}
    assert figures["p99"].measured == pytest.approx(0.010)
    assert figures["p99"].limit == pytest.approx(0.020)
    assert figures["mean rate"].measured == pytest.approx(299 / 86400)
    cost = figures["cost of serving"]
    assert cost.predicted is not None
    assert cost.predicted.low < cost.predicted.value < cost.predicted.high
    with system.store.read() as tx:
        recorded = [system.ledger.entry(tx, row.position)[0].action for row in tx.ledger.entries(0, 50)]
    assert recorded.count("plan.compare") == 1


def test_the_owner_counts_what_ran_and_closes_the_day_that_is_over(system: System) -> None:
    days = actuals.Days()
    for at in ("2026-06-01T00:00:10", "2026-06-01T06:00:00"):
        with clock.frozen(datetime.fromisoformat(at).replace(tzinfo=UTC)):
            days.look(system)
    assert [day.when for day in kept(system)] == ["2026-05-31"], "the day before had requests; today is not over"
    assert kept(system)[0].spent is None, "nobody counted what ran on it"


def test_a_plan_of_an_older_version_does_not_stop_the_owner(system: System) -> None:
    with system.store.transaction() as tx:
        tx.facts.put("plan", NAME, {"use_case": NAME})
    actuals.close(system, [DAY], {})
    assert kept(system) == []


def test_the_next_plan_is_made_with_what_runs_took(system: System, loaded: Loaded) -> None:
    first = plan_of(loaded)
    item = first.requirements.item("one training")
    cores = 2
    for i in range(6):
        trained(system, first, 3 * item.value / cores, f"run{i}", f"2026-05-{20 + i}T10:00:00Z")
    second = plan_of(loaded, system)
    corrected = second.requirements.item("one training")
    assert corrected.kind == "derived"
    assert corrected.rule.endswith("corrected by 6 runs")
    assert 2.4 * item.value < corrected.value < 3 * item.value
    assert (corrected.high or 0) / corrected.value < (item.high or 0) / item.value
    assert second == plan_of(loaded, system), "experience is an input like others: the same gives the same"
    assert second.requirements.learned[0].factor.n == 6
    # What is learned is what the models get wrong, not what a correction already mends.
    again = trained(system, second, 3 * item.value / cores, "run9")
    assert again.cases[0].predicted == pytest.approx(item.value / cores)


def test_a_release_corrects_the_work_of_a_request_on_every_machine(system: System, loaded: Loaded) -> None:
    first = plan_of(loaded)
    assert first.here is not None
    assert first.here.service is not None
    slow = first.here.service.value * 2e3
    load = LoadTest(
        requests=400, failed=0, seconds=4, rate=100, connections=1, p50_ms=slow, p90_ms=2 * slow, limit_p99_ms=20,
        p99=Estimate(value=3 * slow, low=2 * slow, high=4 * slow), met=False,
    )  # fmt: skip
    actual = actuals.of_release(first, "sha256:b", load, memory=300 << 20, at="2026-05-30T10:00:00Z")
    with system.store.transaction() as tx:
        tx.facts.put(actuals.KIND, NAME, actual)
    second = plan_of(loaded, system)
    known = {option.name: option.service.value for option in first.options if option.service is not None}
    for option in second.options:
        if option.service is not None:
            assert 1.1 * known[option.name] < option.service.value < 2 * known[option.name]
    assert "corrects work of a request" in " ".join(planning.report(second.requirements, second).reasons)


def test_a_budget_blocks_before_it_is_overspent(system: System, loaded: Loaded) -> None:
    plan = plan_of(loaded)
    assert plan.chosen is not None
    assert plan.chosen.cost is not None
    with clock.frozen(datetime(2026, 5, 31, 12, tzinfo=UTC)), system.store.read() as tx:
        assert actuals.overspent(tx, NAME, plan) == ""
    big = msgspec.structs.replace(plan_of(loaded), here=msgspec.structs.replace(plan.options[0], price_hour=9e4))
    with clock.frozen(datetime(2026, 5, 31, 12, tzinfo=UTC)):
        trained(system, big, 3600.0, "dear")
        with system.store.read() as tx:
            why = actuals.overspent(tx, NAME, plan)
            warns = msgspec.structs.replace(plan.requirements, on_breach="warn")
            assert actuals.overspent(tx, NAME, msgspec.structs.replace(plan, requirements=warns)) == ""
    assert "were spent this month" in why
    assert "the budget of a month is 2,000" in why
    with clock.frozen(datetime(2026, 6, 1, 12, tzinfo=UTC)), system.store.read() as tx:
        assert actuals.spent(tx, NAME, "2026-04") == 0
    poor = msgspec.structs.replace(plan.requirements, training_budget=Money(amount=1e-6, currency="USD"))
    refused = choose.plan(poor, catalogue.load(), PROBE)
    assert refused.breach == "block"
    assert "one training costs" in refused.reason
    assert refused.chosen is None


def test_a_training_may_go_on_until_its_budget_is_spent_and_one_that_failed_is_paid_as_well(
    system: System, loaded: Loaded
) -> None:
    plan = plan_of(loaded)
    dear = msgspec.structs.replace(plan, here=msgspec.structs.replace(plan.options[0], price_hour=3600 * PROBE.cores))
    assert dear.requirements.training_budget is not None  # 40 USD, of 1 USD a second of a core, and 2,000 a month
    at = datetime(2026, 5, 31, 12, tzinfo=UTC)
    with clock.frozen(at):
        with system.store.read() as tx:
            first = actuals.allowance(tx, NAME, dear)
        failed(system, dear, 990.0)
        with system.store.read() as tx:
            second = actuals.allowance(tx, NAME, dear)
            warns = msgspec.structs.replace(dear.requirements, on_breach="warn")
            assert actuals.allowance(tx, NAME, msgspec.structs.replace(dear, requirements=warns)) == sandbox.DAY
            assert actuals.experience(tx).learned == ()
    cores = actuals.of_failure(dear, 1.0).spent
    assert cores is not None
    assert first.seconds == pytest.approx(40 / cores)
    assert "that a training may cost" in first.why
    assert second.seconds == pytest.approx((2000 - 990 * cores) / cores)
    assert "left of the month's budget" in second.why


def test_the_account_puts_plan_actual_and_value_side_by_side(system: System, loaded: Loaded) -> None:
    plan = plan_of(loaded)
    trained(system, plan, 1000.0, "run1")
    actuals.close(system, [DAY], {(NAME, DAY): (86_400.0, 24.0)})
    value = {"per_unit": {"amount": 0.12, "currency": "USD"}, "of": "accepted_recommendation"}
    with system.store.read() as tx:
        seen = actuals.account(tx, NAME, plan, value, counts=True)
        hidden = actuals.account(tx, NAME, plan, value, counts=False)
    rows = {row.what: row for row in seen.rows}
    assert rows["p99"].when == "2026-05-31"
    assert rows["p99"].happened == "10.0 ms"
    assert rows["memory of a training"].happened == "3.22 GB"
    assert rows["cost of serving"].happened == "2.4000 USD"
    assert seen.budget == 2000
    assert seen.worth.startswith("Each accepted recommendation is worth 0.12 USD")
    assert {row.what for row in seen.rows} - {row.what for row in hidden.rows} == {"mean rate"}
