"""What runs is kept until something else is cheaper beyond doubt and by more than the change costs.

Two options that are near each other change places with every figure that is learned. Whether one is cheaper is judged
by their difference: what both err by alike (the list price of one machine, the growth of one table) cancels there.
"""

import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bedplate.plan import cost
from bedplate.plan.catalogue import Catalogue
from bedplate.plan.requirements import HOURS_PER_MONTH
from bedplate.plan.sites import Site
from bedplate.plan.types import Option, Requirements
from bedplate.records import Estimate

_BESIDE_HOURS = 24.0
"""For so long both are paid while requests go over from one to the other."""


class Priced(NamedTuple):
    """An option that has a cost, and where it is."""

    option: Option
    site: Site


class _Term(NamedTuple):
    """An amount of money, and the factors that it errs by, by the name of each error."""

    amount: float
    errs: Mapping[str, cost.Ends]


class Move(NamedTuple):
    """What leaving an option for another brings and takes."""

    saves: Estimate
    """Of a month, or run; below zero where the other is dearer. What both err by alike is not in its interval."""
    costs: float
    """Once."""

    @property
    def pays(self) -> bool:
        """Whether one month is sure to save more than the change costs."""
        return self.saves.low > self.costs


def move(running: Priced, other: Priced, since: str, requirements: Requirements, catalogue: Catalogue) -> Move:
    """From what runs ``since`` that day to another option."""
    terms = [*_terms(running, requirements, catalogue)]
    terms += [term._replace(amount=-term.amount) for term in _terms(other, requirements, catalogue)]
    return Move(_sum(terms), _change(running, other, requirements, catalogue) + _left(running, since, catalogue))


def _sum(terms: Sequence[_Term]) -> Estimate:
    """Each error moves all that has it together; errors are independent, so the distances add in squares."""
    value = math.fsum(term.amount for term in terms)
    below = above = 0.0
    for name in dict.fromkeys(name for term in terms for name in term.errs):
        having = [(term.amount, term.errs[name]) for term in terms if name in term.errs]
        ends = [math.fsum(amount * (errs[end] / errs[1] - 1) for amount, errs in having) for end in (0, 2)]
        below += min(0.0, *ends) ** 2
        above += max(0.0, *ends) ** 2
    return Estimate(value=value, low=value - math.sqrt(below), high=value + math.sqrt(above), method="difference")


def _change(running: Priced, other: Priced, requirements: Requirements, catalogue: Catalogue) -> float:
    """A day of both machines, and the tables' way out of a provider; nothing where one machine is paid otherwise."""
    if running.site.instance == other.site.instance:
        return 0.0
    assert other.option.cost is not None
    machines = other.option.cost.compute.value + other.option.cost.idle.value
    beside = machines * _BESIDE_HOURS / HOURS_PER_MONTH if requirements.hourly else 0.0
    left = running.site.instance.provider
    kept = next((item.value for item in requirements.items if item.name == "tables kept"), 0.0)
    out = 0.0 if left == other.site.instance.provider else catalogue.services[left]["egress"].value
    return beside + out * kept / 1e9


def _left(running: Priced, since: str, catalogue: Catalogue) -> float:
    """What is left to pay of a year that was committed to."""
    if running.site.market != "reserved" or not since:
        return 0.0
    assert running.option.cost is not None
    passed = (datetime.date.fromisoformat(catalogue.today) - datetime.date.fromisoformat(since)).days
    months = 12 * min(1.0, max(0.0, 1 - passed / 365))
    return months * (running.option.cost.compute.value + running.option.cost.idle.value)


def _terms(priced: Priced, requirements: Requirements, catalogue: Catalogue) -> Iterator[_Term]:
    """What an option costs, part by part, each with all that it errs by."""
    option, site = priced
    assert option.cost is not None
    rate = cost.rate_errors(site.instance, site.market, catalogue)
    items = {item.name: item for item in requirements.items}
    hours = {}
    if option.cost.period == "run":  # how long it takes is predicted; of what serves, machines are counted
        took = next(figure.estimate for figure in option.predicted if figure.name == "time of a run")
        hours = {f"time on {site.instance.instance}": (took.low, took.value, took.high)}
    yield _Term(option.cost.compute.value + option.cost.idle.value, rate | hours)
    for part, (item, fact) in cost.SERVICES.items():
        amount = getattr(option.cost, part).value
        if amount and item in items:
            price, needed = catalogue.services[site.instance.provider][fact], items[item]
            errs = {f"{fact} at {site.instance.provider}": (price.low, price.value, price.high)}
            yield _Term(amount, errs | {item: cost.ends(needed)})
    if option.cost.retraining.value:
        yield _Term(option.cost.retraining.value, rate | {"one training": cost.ends(items["one training"])})
