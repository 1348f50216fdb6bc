"""What runs is kept until something else is cheaper beyond doubt, by more than the change costs; the plan says so."""

import msgspec
import pytest

from bedplate.plan import catalogue, choose, compare, explain
from bedplate.plan.catalogue import Catalogue, Instance
from bedplate.plan.types import Market, Option, Plan, Requirements, Running, named
from bedplate.usecase.types import Money
from tests.plan.conftest import PROBE, changed

WHOLE = catalogue.load()
ONE = next(i for i in WHOLE.instances if (i.instance, i.residency) == ("c7a.large", "eu"))


def sold(*instances: Instance) -> Catalogue:
    """These machines, and this one so dear that nobody takes it."""
    here = {n: msgspec.structs.replace(f, value=f.value * 1e4) for n, f in WHOLE.services["here"].items()}
    return msgspec.structs.replace(WHOLE, instances=instances, services=WHOLE.services | {"here": here})


def like(price: float, region: str = ONE.region, name: str = "other.large", provider: str = "aws") -> Instance:
    """A machine as the first one, at another price."""
    return msgspec.structs.replace(
        ONE, price_hour=ONE.price_hour * price, region=region, instance=name, provider=provider
    )


def runs(instance: Instance, market: Market = "on-demand", since: str = "2020-01-01") -> Running:
    """It runs, for longer than a year unless said otherwise."""
    return Running(name=named(instance.provider, instance.region, instance.instance, market), since=since)


def chosen(plan: Plan) -> Option:
    assert plan.chosen is not None
    return plan.chosen


def test_what_is_near_does_not_take_the_place_of_what_runs(needs: Requirements) -> None:
    """Either of two that are 0.3 % apart is kept if it runs; figures that move a little change nothing."""
    other = like(1.003)
    for first, second in ((ONE, other), (other, ONE)):
        running = runs(second, "reserved")
        plan = choose.plan(needs, sold(first, second), PROBE, running)
        assert chosen(plan).name == running.name
        assert plan.running == running
        later = choose.plan(
            changed(needs, "peak rate", needs.value("peak rate") * 1.01), sold(first, second), PROBE, running
        )
        assert chosen(later).name == running.name
    kept = choose.plan(needs, sold(ONE, other), PROBE, runs(other, "reserved"))
    assert kept.about_running.startswith("kept, as it runs: aws c7a.large (reserved) would save 0.")
    assert "less than we can tell apart" in kept.about_running
    assert "what is chosen is aws other.large (reserved)" in kept.reason
    assert any("less than we can tell apart" in text for text in explain.words(kept))
    assert kept.runners_up[0].lost.endswith("USD a month cheaper")
    assert all(c.saved == 0 or c.saved > 0.01 for c in kept.constraints), "what a requirement costs is not what is kept"
    assert choose.plan(needs, sold(ONE, other), PROBE, runs(ONE, "reserved")).about_running == "it is what runs"
    assert choose.plan(needs, sold(ONE, other), PROBE).about_running == ""


def test_errors_that_both_have_do_not_hide_a_saving(needs: Requirements) -> None:
    """A list price that nobody verified says little of two providers, and nothing of one machine paid in two ways."""
    vague = msgspec.structs.replace(ONE, price_quality="unverified")
    plan = choose.plan(needs, sold(vague), PROBE, runs(vague))
    assert (chosen(plan).instance, chosen(plan).market) == (vague.instance, "reserved")
    assert "is worth leaving: this saves" in plan.about_running
    assert "the change costs 0.00 USD once" in plan.about_running
    far = msgspec.structs.replace(like(0.85, provider="gcp"), price_quality="unverified")
    held = choose.plan(needs, sold(vague, far), PROBE, runs(vague, "reserved"))
    assert chosen(held).instance == vague.instance
    assert chosen(choose.plan(needs, sold(vague, far), PROBE)).instance == far.instance


def test_a_saving_below_what_the_change_costs_is_not_taken(needs: Requirements) -> None:
    """A day of two machines is paid once; where prices are exact, that decides."""
    exact, cheaper = (msgspec.structs.replace(i, price_quality="exact") for i in (ONE, like(0.955)))
    held = sold(exact, cheaper)
    sure = {
        q: msgspec.structs.replace(f, low=f.value, high=f.value) if q == "reserved_year" else f
        for q, f in WHOLE.services["aws"].items()
    }
    held = msgspec.structs.replace(held, services=held.services | {"aws": sure}, today=ONE.price_date)
    plan = choose.plan(needs, held, PROBE, runs(exact, "reserved"))
    assert chosen(plan).name == runs(exact, "reserved").name
    assert "and the change costs" in plan.about_running
    assert "more than a month is sure to save" in plan.about_running


def test_a_year_that_was_committed_to_is_paid_to_its_end(needs: Requirements) -> None:
    both = sold(ONE, like(0.6))
    for since, kept in ((WHOLE.today, True), ("2020-01-01", False)):
        plan = choose.plan(needs, both, PROBE, runs(ONE, "reserved", since))
        assert (chosen(plan).instance == ONE.instance) is kept


def test_what_runs_is_left_where_it_does_not_do_any_more(needs: Requirements) -> None:
    dear = like(1.01)
    both = sold(ONE, dear)
    at = chosen(choose.plan(needs, both, PROBE)).cost
    assert at is not None
    tight = Money(amount=at.total.value * 1.001, currency="USD")
    poor = choose.plan(msgspec.structs.replace(needs, budget=tight), both, PROBE, runs(dear, "reserved"))
    assert chosen(poor).instance == ONE.instance
    assert "is left because it costs" in poor.about_running
    gone = choose.plan(needs, both, PROBE, runs(like(1, name="gone.large")))
    assert "/gone.large, cannot be had any more where the file allows it" in gone.about_running
    away = choose.plan(needs, both, PROBE, runs(like(1, region="us-east-1")))
    assert chosen(away).region == ONE.region
    little = msgspec.structs.replace(dear, memory_gib=0.5)
    small = choose.plan(needs, sold(ONE, little), PROBE, runs(little))
    assert "does not meet the file: a replica may need" in small.about_running


def test_a_dearer_place_is_kept_if_it_runs_there(needs: Requirements) -> None:
    """Of each machine only the cheapest place is looked at, and the one where it runs."""
    there = like(1.01, region="eu-west-9", name=ONE.instance)
    plan = choose.plan(needs, sold(ONE, there), PROBE, runs(there, "reserved"))
    assert chosen(plan).region == there.region


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_flip_of_what_is_kept_is_where_it_would_be_left(needs: Requirements, factor: float) -> None:
    """The price that the plan names as the one to change it does, and a little less does not."""
    dear, running = like(1.02), runs(like(1.02), "reserved")
    plan = choose.plan(needs, sold(ONE, dear), PROBE, running)
    flip = next(flip for flip in plan.flips if "price" in flip.name)
    assert flip.factor > 1
    for times, stays in ((1 + (flip.factor - 1) * factor, factor < 1),):
        moved = msgspec.structs.replace(dear, price_hour=dear.price_hour * times)
        again = choose.plan(needs, sold(ONE, moved), PROBE, running)
        assert (chosen(again).name == running.name) is stays


def test_a_comparison_says_that_what_runs_stays(needs: Requirements) -> None:
    before = choose.plan(needs, sold(ONE, like(1.003)), PROBE, runs(like(1.003), "reserved"))
    found = compare.compare(before, before, ())
    assert "The choice stays aws/" in " ".join(found.words)
