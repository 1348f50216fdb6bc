import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from bedplate.ids import canonical, digest_of
from bedplate.plan import catalogue, choose, explain, replicas
from bedplate.plan.types import Plan, Requirements
from bedplate.usecase.types import Money
from tests.laws import examples
from tests.plan.conftest import PROBE, changed

CATALOGUE = catalogue.load()


def test_it_compares_many_and_chooses_the_cheapest_that_meets_the_file(needs: Requirements) -> None:
    plan = choose.plan(needs, CATALOGUE, PROBE)
    assert len({(o.provider, o.instance) for o in plan.options}) >= 30
    assert {o.provider for o in plan.options} == {"aws", "azure", "gcp", "here"}
    assert {o.market for o in plan.options} == {"on-demand", "reserved", "owned"}
    assert plan.chosen is not None
    assert plan.chosen.cost is not None
    assert plan.chosen.lost == ""
    able = [o for o in plan.options if o.meets and o.cost]
    assert plan.chosen.cost.total.value == min(o.cost.total.value for o in able if o.cost)
    assert plan.runners_up == tuple(able[1:3])
    assert plan.binding is not None
    assert plan.binding.saved == max(c.saved for c in plan.constraints)


def test_every_option_that_lost_says_why(needs: Requirements) -> None:
    plan = choose.plan(needs, CATALOGUE, PROBE)
    for option in plan.options:
        assert bool(option.lost) != (option == plan.chosen)


def test_the_slow_end_of_the_interval_is_held_to_the_limit(needs: Requirements) -> None:
    for option in choose.plan(needs, CATALOGUE, PROBE).options:
        if option.meets:
            assert option.p99 is not None
            assert option.utilisation is not None
            assert option.p99.low <= option.p99.value <= option.p99.high <= needs.value("p99")
            assert option.utilisation.high <= replicas.MAX_UTILISATION


def test_a_crowded_measurement_is_planned_by_less_than_its_slow_end_with_a_warning(needs: Requirements) -> None:
    """Others made the machine look slower: the plan says so, and what to do, and is never worse for knowing it."""
    slow = msgspec.structs.replace(
        PROBE, score_gbps=PROBE.score_gbps / 2, select_ns=PROBE.select_ns * 2, onnx_tree_ns=20, request_us=10
    )
    plans = {share: choose.plan(needs, CATALOGUE, msgspec.structs.replace(slow, crowded=share)) for share in (0.0, 0.6)}
    able = {share: {o.name for o in plan.options if o.meets} for share, plan in plans.items()}
    assert able[0.0] < able[0.6]
    chosen = plans[0.6].chosen
    assert chosen is not None
    assert chosen.service is not None
    before = next(o for o in plans[0.0].options if o.name == chosen.name).service
    assert before is not None
    assert (chosen.service.value, chosen.service.high) == (before.value, before.high)
    assert chosen.service.low < before.low
    assert chosen.service.value + 0.0005 < needs.value("p99")
    words = {share: " ".join(explain.words(plan)) for share, plan in plans.items()}
    assert "took 60% of the processors" in words[0.6]
    assert "`bedplate probe`" in words[0.6]
    assert "of the processors" not in words[0.0]


def test_parts_of_the_cost_add_up(needs: Requirements) -> None:
    for option in choose.plan(needs, CATALOGUE, PROBE).options:
        if option.cost:
            c = option.cost
            parts = (c.compute, c.idle, c.storage, c.logging, c.egress, c.retraining)
            assert sum(p.value for p in parts) == pytest.approx(c.total.value)
            assert all(0 <= p.low <= p.value <= p.high for p in (*parts, c.total))


@examples(2, suppress=(HealthCheck.function_scoped_fixture,))
@given(peak=st.floats(0.1, 2000), p99=st.floats(0.002, 2), availability=st.floats(0.5, 0.9999))
def test_the_same_inputs_give_the_same_plan_and_it_survives_json(
    needs: Requirements, peak: float, p99: float, availability: float
) -> None:
    asked = changed(changed(changed(needs, "peak rate", peak), "p99", p99), "availability", availability)
    first, second = choose.plan(asked, CATALOGUE, PROBE), choose.plan(asked, CATALOGUE, PROBE)
    assert first == second
    assert digest_of(first) == digest_of(second)
    assert msgspec.json.decode(canonical(first), type=Plan) == first
    assert (first.chosen is None) == (first.breach == "block")


def test_residency_is_kept(needs: Requirements) -> None:
    regions = {i.region for i in CATALOGUE.instances if i.residency == "eu"} | {"here"}
    assert {o.region for o in choose.plan(needs, CATALOGUE, PROBE).options} <= regions


def test_an_unknown_processor_gets_no_number(needs: Requirements) -> None:
    plan = choose.plan(needs, CATALOGUE, PROBE)
    mixed = [o for o in plan.options if o.instance.startswith("e2-")]
    assert mixed
    for option in mixed:
        assert option.p99 is None
        assert option.cost is None
        assert "no calibrated estimate" in option.lost


def test_a_machine_of_unknown_clock_scales_to_nothing_else(needs: Requirements) -> None:
    plan = choose.plan(needs, CATALOGUE, msgspec.structs.replace(PROBE, clock_ghz=None))
    assert all(o.cost is None for o in plan.options if o.provider != "here")


def test_this_machine_is_one_and_promises_little(needs: Requirements) -> None:
    here = choose.plan(needs, CATALOGUE, PROBE).here
    assert here is not None
    assert not here.meets
    assert here.machines in (None, 1)
    small = changed(changed(needs, "peak rate", 5), "availability", 0.99)
    alone = choose.plan(small, CATALOGUE, PROBE).here
    assert alone is not None
    assert alone.meets


def test_a_breached_budget_blocks_or_warns(needs: Requirements) -> None:
    poor = msgspec.structs.replace(needs, budget=Money(amount=10, currency="USD"))
    blocked = choose.plan(poor, CATALOGUE, PROBE)
    assert blocked.breach == "block"
    assert blocked.chosen is None
    assert "the budget is 10" in blocked.reason
    warned = choose.plan(msgspec.structs.replace(poor, on_breach="warn"), CATALOGUE, PROBE)
    assert warned.breach == "warn"
    assert warned.chosen is not None


def test_an_impossible_latency_is_refused_with_the_line(needs: Requirements) -> None:
    plan = choose.plan(changed(needs, "p99", 0.0006), CATALOGUE, PROBE)
    assert plan.chosen is None
    assert any(f"line {needs.item('p99').line}" in o.lost for o in plan.options)


def test_a_lower_limit_of_replicas_costs_more_at_night(needs: Requirements) -> None:
    def total(least: int) -> float:
        plan = choose.plan(msgspec.structs.replace(needs, replicas_min=least), CATALOGUE, PROBE)
        option = next(o for o in plan.options if o.instance == "c7a.large")
        assert option.cost is not None
        return option.cost.total.value

    assert total(0) <= total(8)


def test_the_table_and_the_words_say_the_choice(needs: Requirements) -> None:
    plan = choose.plan(needs, CATALOGUE, PROBE)
    assert plan.chosen is not None
    rows = explain.rows(plan)
    assert len(rows) == len(plan.options)
    assert rows[0].verdict == "chosen"
    text = explain.table(plan, limit=5)
    assert plan.chosen.instance in text
    assert f"... and {len(rows) - 5} more" in text
    words = " ".join(explain.words(plan))
    for part in (plan.chosen.instance, "a month", "asks for 20.0 ms", "This machine does not meet the file"):
        assert part in words
    nothing = choose.plan(changed(needs, "p99", 0.002), CATALOGUE, PROBE)
    told = " ".join(explain.words(nothing))
    assert "None was chosen" in told
    assert [need.path for need in nothing.in_the_way] == ["requirements.latency.p99"]
    assert f"In the way is latency (line {nothing.in_the_way[0].line}): with ten times the p99" in told
    assert f"of {len(nothing.options)} lost: " in told


def test_age_of_prices_is_warned_of_where_it_could_change_the_choice(needs: Requirements) -> None:
    """Two machines that are near each other; sizes of one family age together."""
    one = next(i for i in CATALOGUE.instances if (i.instance, i.residency) == ("c7a.large", "eu"))
    for family, warned in (("another", True), (one.family, False)):
        other = msgspec.structs.replace(one, instance="other.large", family=family, price_hour=one.price_hour * 1.02)
        held = msgspec.structs.replace(CATALOGUE, instances=(one, other), today="2028-01-01")
        cautions = choose.plan(changed(needs, "p99", 0.03), held, PROBE).cautions
        assert any("may be the cheaper one" in text for text in cautions) is warned
