"""Laws that hold for every plan, over generated files of every kind of workload and generated catalogues."""

from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.plan import catalogue, choose, requirements
from bedplate.plan.catalogue import Catalogue, Instance
from bedplate.plan.types import Option, Plan, Requirements, Running, TabularSize
from bedplate.usecase import load, quantities
from bedplate.usecase.types import Money
from tests.laws import examples
from tests.plan.conftest import FACTS, PROBE, changed
from tests.plan.test_kinds import KINDS, SERVES, needs_of
from tests.usecase.conftest import write

pytestmark = pytest.mark.slow

WHOLE = catalogue.load()
STARTER = ("recommender", "tabular")
SERVED = {"peak rate": (0.2, 300.0), "p99": (0.003, 20.0), "availability": (0.9, 0.9999)}
ENDED = {"time of a run": (3600.0, 90 * 86400.0)}
PROVIDERS = sorted({instance.provider for instance in WHOLE.instances})
LAWS = examples(6)


@cache
def stated(kind: str) -> Requirements:
    with TemporaryDirectory() as text:
        folder = Path(text)
        if kind not in STARTER:
            return needs_of(folder, kind, *KINDS[kind])
        write(folder)
        found = requirements.derive(load(folder), FACTS)
    size = found.size if kind == "recommender" else TabularSize(features=30, trees=200, depth=6)
    return msgspec.structs.replace(found, size=size)


@st.composite
def needs(draw: st.DrawFn) -> Requirements:
    """Requirements of a kind of workload, with other limits and another load, some of them out of reach."""
    found = stated(draw(st.sampled_from([*KINDS, *STARTER])))
    for name, (low, high) in (SERVED if any(i.name == "p99" for i in found.items) else ENDED).items():
        found = changed(found, name, draw(st.floats(low, high)))
    places = draw(st.sets(st.sampled_from(["eu", "us", "uk"]), min_size=1))
    return msgspec.structs.replace(found, residency=tuple(sorted(places)), replicas_max=draw(st.sampled_from([3, 99])))


@st.composite
def catalogues(draw: st.DrawFn, provider: str | None = None) -> Catalogue:
    """Some machine types in some regions, at other prices, and in as many zones as may be."""
    there = [i for i in WHOLE.instances if provider in (None, i.provider)]
    types = sorted({(i.provider, i.instance, i.accelerator or "") for i in there})
    plain, fast = [t for t in types if not t[2]], [t for t in types if t[2]]
    kept = set(draw(st.lists(st.sampled_from(plain or fast), min_size=1, max_size=5)))
    kept |= set(draw(st.lists(st.sampled_from(fast or plain), max_size=4)))
    random = draw(st.randoms(use_true_random=False))
    instances = tuple(_other(i, random.uniform(0.4, 2.5), random.randint(1, 3)) for i in there if _type(i) in kept)
    return msgspec.structs.replace(WHOLE, instances=instances)


def _type(instance: Instance) -> tuple[str, str, str]:
    return instance.provider, instance.instance, instance.accelerator or ""


def _other(instance: Instance, factor: float, zones: int) -> Instance:
    spot = instance.spot_hour * factor if instance.spot_hour else None
    return msgspec.structs.replace(instance, price_hour=instance.price_hour * factor, spot_hour=spot, zones=zones)


RUNS = st.none() | st.integers(0, 3)
"""Which of the cheapest that meet the file serves already."""


def running(asked: Requirements, sold: Catalogue, place: int | None) -> Running | None:
    able = [option for option in choose.plan(asked, sold, PROBE).options if option.meets] if place is not None else []
    return Running(name=able[place % len(able)].name, since=sold.today) if place is not None and able else None


def no_dearer(one: Plan, other: Plan) -> bool:
    """What runs may be kept though another is a little cheaper: then it is what is chosen, and the plan says so."""
    kept = one.running is not None and one.chosen is not None and one.chosen.name == one.running.name
    return total(one) <= total(other) + 1e-9 or (kept and one.about_running.startswith("kept"))


def total(plan: Plan) -> float:
    return plan.chosen.cost.total.value if plan.chosen and plan.chosen.cost else float("inf")


def same(a: Option | None, b: Option | None) -> bool:
    return (a is None and b is None) or (
        a is not None
        and b is not None
        and (a.name, a.machines, a.replicas, a.layout) == (b.name, b.machines, b.replicas, b.layout)
    )


@LAWS
@given(needs(), catalogues(), st.floats(0, 1e5), st.floats(1, 100), RUNS)
def test_more_budget_never_yields_a_worse_plan(
    asked: Requirements, sold: Catalogue, amount: float, more: float, place: int | None
) -> None:
    served = running(asked, sold, place)

    def within(budget: float, served: Running | None) -> Plan:
        money = Money(amount=budget, currency="USD")
        return choose.plan(
            msgspec.structs.replace(asked, budget=money, training_budget=money, on_breach="block"), sold, PROBE, served
        )

    assert total(within(amount * more, None)) <= total(within(amount, None))
    poor, rich = within(amount, served), within(amount * more, served)
    assert no_dearer(rich, poor)
    assert total(poor) <= amount or poor.chosen is None


@LAWS
@given(needs(), catalogues(), st.floats(0.1, 1), RUNS, st.data())
def test_a_tighter_limit_is_never_cheaper(
    asked: Requirements, sold: Catalogue, share: float, place: int | None, data: st.DataObject
) -> None:
    served = running(asked, sold, place)
    names = [i.name for i in asked.items if i.name in ("p99", "p50", "first token", "each further token")]
    name = data.draw(st.sampled_from(names or ["time of a run"]))
    tighter = changed(asked, name, asked.value(name) * share)
    assert total(choose.plan(tighter, sold, PROBE)) >= total(choose.plan(asked, sold, PROBE)) - 1e-9
    assert no_dearer(choose.plan(asked, sold, PROBE, served), choose.plan(tighter, sold, PROBE, served))


@LAWS
@given(needs(), st.sampled_from(PROVIDERS).flatmap(catalogues), RUNS)
def test_prices_twice_as_high_change_no_choice_of_a_single_provider(
    asked: Requirements, sold: Catalogue, place: int | None
) -> None:
    once, twice = dearer(sold, 1), dearer(sold, 2)
    served = running(asked, once, place)
    assert same(choose.plan(asked, once, PROBE, served).chosen, choose.plan(asked, twice, PROBE, served).chosen)


def dearer(sold: Catalogue, factor: float) -> Catalogue:
    """All that is charged for, multiplied; this machine costs so much that nobody takes it."""
    services = {
        provider: {
            name: msgspec.structs.replace(f, value=f.value * by, low=f.low * by, high=f.high * by)
            if "month" in name or name in ("object_storage", "egress")
            else f
            for name, f in facts.items()
        }
        for provider, facts in sold.services.items()
        for by in (factor * 1e4 if provider == "here" else factor,)
    }
    instances = tuple(
        msgspec.structs.replace(
            i, price_hour=i.price_hour * factor, spot_hour=i.spot_hour * factor if i.spot_hour else None
        )
        for i in sold.instances
    )
    return msgspec.structs.replace(sold, instances=instances, services=services)


@LAWS
@given(needs(), catalogues(), RUNS)
def test_a_residency_rule_is_never_broken_and_letting_it_go_is_never_dearer(
    asked: Requirements, sold: Catalogue, place: int | None
) -> None:
    anywhere = msgspec.structs.replace(asked, residency=())
    served = running(anywhere, sold, place)  # perhaps where it must not run
    plan = choose.plan(asked, sold, PROBE, served)
    lies = {(i.provider, i.region): i.residency for i in sold.instances}
    for option in (*plan.options, *plan.runners_up, *((plan.chosen,) if plan.chosen else ())):
        assert option.provider == "here" or lies[option.provider, option.region] in asked.residency
    assert total(choose.plan(anywhere, sold, PROBE)) <= total(choose.plan(asked, sold, PROBE))
    assert no_dearer(choose.plan(anywhere, sold, PROBE, served), plan)


@LAWS
@given(needs(), catalogues(), st.randoms(use_true_random=False))
def test_the_order_of_the_catalogue_changes_no_plan(asked: Requirements, sold: Catalogue, random: Random) -> None:
    shuffled = list(sold.instances)
    random.shuffle(shuffled)
    other = msgspec.structs.replace(sold, instances=tuple(shuffled))
    assert choose.plan(asked, other, PROBE) == choose.plan(asked, sold, PROBE)


@given(st.sampled_from(sorted(quantities.KINDS)), st.sampled_from(sorted(quantities.KINDS)), st.data())
def test_a_quantity_is_never_read_with_a_unit_of_another_kind(one: str, other: str, data: st.DataObject) -> None:
    units = sorted(quantities.KINDS[other].units.keys() - quantities.KINDS[one].units.keys())
    assume(units)
    with pytest.raises(quantities.QuantityError):
        quantities.parse(f"{data.draw(st.integers(0, 10**6))} {data.draw(st.sampled_from(units))}", one)


@pytest.mark.parametrize("currency", sorted({*quantities.CURRENCIES} - {catalogue.CURRENCY}))
def test_money_of_another_currency_is_never_held_against_prices(currency: str, tmp_path: Path) -> None:
    rest = SERVES.replace("residency:", f"budget: {{ monthly: 900 {currency} }}, residency:")
    with pytest.raises(InputError, match=f"in {currency} and prices are in USD"):
        needs_of(tmp_path, "image_inference", KINDS["image_inference"][0], rest)
