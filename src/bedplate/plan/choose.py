"""From requirements to a choice: every kind of workload is sized on every machine, and the cheapest that keeps the file
is chosen, unless what runs is as cheap as far as can be told. What each requirement costs, and which input would change
the choice, is found by choosing again without it.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from bedplate.plan import cautions, devices, jobs, keeping, replicas, sites, workloads
from bedplate.plan.catalogue import CURRENCY, Catalogue
from bedplate.plan.requirements import HOURS_PER_MONTH
from bedplate.plan.sites import Site, Sizer
from bedplate.plan.types import (
    ChatSize,
    Constraint,
    EmbeddingSize,
    Flip,
    ImageSize,
    ImageTrainingSize,
    Job,
    LanguageTrainingSize,
    Market,
    Option,
    PipelineSize,
    Plan,
    Probe,
    RecommenderSize,
    Requirements,
    Running,
    ScoringSize,
    Size,
    TabularSize,
)

_FAR = 3.0
"""A price that would have to change by more than this factor is not worth a line."""
_SERVING: tuple[Market, ...] = ("on-demand", "reserved")
_RUNNING: tuple[Market, ...] = ("on-demand", "spot")
_LIMITS = {
    "p99": "the p99",
    "first token": "the wait for the first token",
    "each further token": "the wait for each further token",
    "time of a run": "the time allowed",
}
"""What may be waited, as the plan speaks of it."""
KINDS: Mapping[type[Size], tuple[Sizer, tuple[Market, ...]]] = {
    RecommenderSize: (replicas.options, _SERVING),
    TabularSize: (replicas.options, _SERVING),
    ImageSize: (devices.options, _SERVING),
    EmbeddingSize: (devices.options, _SERVING),
    ChatSize: (devices.options, _SERVING),
    ImageTrainingSize: (jobs.options, _RUNNING),
    LanguageTrainingSize: (jobs.options, _RUNNING),
    ScoringSize: (jobs.options, _RUNNING),
    PipelineSize: (jobs.options, _RUNNING),
}
"""The model of each kind of workload, and how the machines for it can be paid."""


def plan(requirements: Requirements, catalogue: Catalogue, probe: Probe, running: Running | None = None) -> Plan:
    """Compare every machine type where it is allowed, and this machine, and choose the cheapest that meets the file.

    ``running`` stays until another is cheaper beyond doubt, by more than the change costs. Pure: the same arguments
    give the same plan.
    """
    search = _Search(requirements, catalogue, probe, running)
    ranked = sorted(search.every(requirements), key=_rank)
    cheapest, chosen = next((option for option in ranked if option.meets), None), search.choice(requirements)
    breach, reason = _judge(requirements, cheapest, chosen)
    about_running = _about_running(requirements, search, ranked, chosen) if running and chosen else ""
    warned = cautions.of(requirements, catalogue, KINDS[type(requirements.size)][1], chosen, ranked, probe)
    constraints = _constraints(requirements, search, cheapest) if cheapest else ()
    in_the_way = () if chosen else _in_the_way(requirements, search)
    flips = _flips(requirements, search, chosen, ranked) if chosen else ()
    if breach == "block":
        chosen = None
    final = tuple(_with_reason(option, chosen, requirements) for option in ranked)
    others = [option for option in final if option.meets and not (chosen and _same(option, chosen))]
    size = requirements.size
    return Plan(
        use_case=requirements.use_case,
        requirements=requirements,
        catalogue_digest=catalogue.digest,
        probe=probe,
        stages=() if isinstance(size, Job) else workloads.stages(size, probe),
        options=final,
        chosen=next((option for option in final if chosen and _same(option, chosen)), None),
        runners_up=tuple(others[:2]),
        here=next((option for option in final if option.provider == "here"), None),
        flips=flips,
        binding=constraints[0] if constraints and constraints[0].saved > 0 else None,
        constraints=constraints,
        in_the_way=in_the_way,
        breach=breach,
        reason=reason,
        running=running,
        about_running=about_running,
        cautions=warned,
        currency=CURRENCY,
    )


class _Search:
    """All sites of a catalogue for one kind of workload, looked up once for each residency, cheapest hour first."""

    def __init__(self, requirements: Requirements, catalogue: Catalogue, probe: Probe, running: Running | None) -> None:
        self._sizer, self._markets = KINDS[type(requirements.size)]
        self._catalogue, self._probe, self.running = catalogue, probe, running
        self._name = running.name if running is not None else ""
        self._sites: dict[tuple[str, ...], list[Site]] = {}
        self._where: dict[str, Site] = {}

    def every(self, requirements: Requirements) -> Iterator[Option]:
        """All ways to run it, also those that do not meet the file."""
        for site in self._places(requirements):
            yield from self._sized(site, requirements)

    def best(self, requirements: Requirements, than: Option | None = None) -> Option | None:
        """The cheapest that meets the file, of those that are worth leaving ``than`` for where there is one.

        What could not be cheaper if one machine were enough is not sized.
        """
        found: Option | None = None
        hours = HOURS_PER_MONTH if requirements.hourly else 0.0  # what ends may need less than an hour
        for site in self._places(requirements):
            dearest = found or than
            if dearest is not None and site.rate.value * hours > _total(dearest):
                break
            for option in self._sized(site, requirements):
                better = option.meets and (found is None or _rank(option) < _rank(found))
                if better and (than is None or self._pays(requirements, than, option)):
                    found = option
        return found

    def choice(self, requirements: Requirements) -> Option | None:
        """The cheapest that meets the file, or what runs, if nothing is worth leaving it for and it keeps a budget that
        the cheapest keeps.
        """
        runs = self._runs(requirements)
        if runs is None:
            return self.best(requirements)
        found = self.best(requirements, than=runs) or runs
        if _exceeded(requirements, found):
            cheapest = self.best(requirements)
            found = cheapest if cheapest is not None and not _exceeded(requirements, cheapest) else found
        return found

    def move(self, requirements: Requirements, one: Option, other: Option) -> keeping.Move:
        """What it brings and costs to run it the other way."""
        runs, instead = (keeping.Priced(option, self._where[option.name]) for option in (one, other))
        since = self.running.since if self.running is not None and self.running.name == one.name else ""
        return keeping.move(runs, instead, since, requirements, self._catalogue)

    def _pays(self, requirements: Requirements, one: Option, other: Option) -> bool:
        return _total(other) < _total(one) and self.move(requirements, one, other).pays

    def _runs(self, requirements: Requirements) -> Option | None:
        """What runs, sized for these requirements; None where it does not meet them, may not be used or is not sold."""
        there = [site for site in self._places(requirements) if self._where.get(self._name) is site]
        sized = (option for site in there for option in self._sized(site, requirements) if option.meets)
        return min(sized, key=_rank, default=None)

    def _sized(self, site: Site, requirements: Requirements) -> Iterator[Option]:
        there = site.instance.machines
        for option in self._sizer(site, requirements, self._catalogue, self._probe):
            if there is not None and option.meets and (option.machines or 0) > there:
                lost = f"needs {option.machines} machines; there are {there}"
                yield msgspec.structs.replace(option, meets=False, lost=lost)
            else:
                yield option

    def _places(self, requirements: Requirements) -> list[Site]:
        if requirements.residency not in self._sites:
            rented = sites.rented(requirements, self._catalogue, self._markets, self._name)
            found = [sites.here(self._catalogue, self._probe), *rented]
            self._sites[requirements.residency] = sorted(found, key=lambda site: site.rate.value)
            self._where |= {sites.described(site).name: site for site in found}
        return self._sites[requirements.residency]


def _rank(option: Option) -> tuple[bool, float, str, str, str]:
    total = option.cost.total.value if option.cost else math.inf
    return not option.meets, total, option.provider, option.instance, option.market


def _same(a: Option, b: Option) -> bool:
    return a.name == b.name


def _judge(
    requirements: Requirements, cheapest: Option | None, chosen: Option | None
) -> tuple[Literal["none", "warn", "block"], str]:
    """Whether what is chosen stays in the budget, in words."""
    if cheapest is None or chosen is None or chosen.cost is None:
        return "block", "nothing can be shown to meet the file"
    which = "the cheapest of those that meet the file" if _same(cheapest, chosen) else "what is chosen"
    exceeded = _exceeded(requirements, chosen)
    if exceeded:
        return requirements.on_breach, f"{which} is {_called(chosen)}; {exceeded}"
    budget, total = requirements.allowed(chosen.cost.period), chosen.cost.total
    if budget is None:
        return "none", f"{which} is {_called(chosen)}; the file sets no budget"
    sure = "with the whole interval" if total.high <= budget.amount else "but the upper end of the interval does not"
    return "none", f"{which} is {_called(chosen)}; it stays in the budget, {sure}"


def _exceeded(requirements: Requirements, option: Option) -> str:
    """Which budget the option exceeds, in words; empty: none."""
    assert option.cost is not None
    budget, total = requirements.allowed(option.cost.period), option.cost.total
    if budget is not None and total.value > budget.amount:
        return (
            f"it costs {total.value:,.0f} {budget.currency} a {option.cost.period}; the budget is {budget.amount:,.0f}"
        )
    one, allowed = _one_training(requirements, option), requirements.training_budget
    if one is not None and allowed is not None and one > allowed.amount:
        return f"one training costs {one:,.2f} {allowed.currency} there; the budget of a run is {allowed.amount:,.0f}"
    return ""


def _about_running(requirements: Requirements, search: _Search, ranked: list[Option], chosen: Option) -> str:
    """Why what runs is kept, or is not any more."""
    assert search.running is not None
    runs = next((option for option in ranked if option.name == search.running.name), None)
    if runs is None:
        return f"what runs, {search.running.name}, cannot be had any more where the file allows it"
    if not runs.meets:
        return f"what runs, {_called(runs)}, does not meet the file: {runs.lost}"
    nearest = next(option for option in ranked if option.meets)
    kept = _same(chosen, runs)
    if kept and _same(nearest, runs):
        return "it is what runs"
    other = nearest if kept else chosen
    move = search.move(requirements, runs, other)
    share = abs(move.saves.value) / _total(runs) if _total(runs) else 0.0
    amounts = f"{move.saves.value:,.2f} {CURRENCY} [{move.saves.low:,.2f}, {move.saves.high:,.2f}]"
    once = f"the change costs {move.costs:,.2f} {CURRENCY} once"
    if kept:
        why = "less than we can tell apart" if move.saves.low <= 0 else f"and {once}, more than a month is sure to save"
        return f"kept, as it runs: {_called(other)} would save {share:.1%} ({amounts}), {why}"
    if not move.pays:
        return f"what runs, {_called(runs)}, is left because {_exceeded(requirements, runs)}"
    return f"what runs, {_called(runs)}, is worth leaving: this saves {share:.1%} ({amounts}), and {once}"


def _called(option: Option) -> str:
    if option.provider == "here":
        return "this machine"
    paid = f" ({option.market})" if option.market in ("spot", "reserved") else ""
    return f"{option.provider} {option.instance}{paid}"


def _one_training(requirements: Requirements, option: Option) -> float | None:
    """What one training of something that serves costs; None where nothing is trained."""
    runs = next((item.value for item in requirements.items if item.name == "retrainings a month"), 0.0)
    return option.cost.retraining.value / runs if option.cost is not None and runs else None


def _with_reason(option: Option, chosen: Option | None, requirements: Requirements) -> Option:
    if not option.meets or option.cost is None or (chosen and _same(option, chosen)):
        return option
    budget, total = requirements.allowed(option.cost.period), option.cost.total.value
    if chosen is None or chosen.cost is None:
        return msgspec.structs.replace(option, lost="over the budget, which blocks")
    more = total - chosen.cost.total.value
    amount = f"{abs(more):,.0f}" if abs(more) >= 10 else f"{abs(more):,.2f}"
    text = "as dear"
    if abs(more) >= 0.005:
        text = f"{amount} {option.cost.currency} a {option.cost.period} {'dearer' if more > 0 else 'cheaper'}"
    return msgspec.structs.replace(
        option, lost=text + (", and over the budget" if budget and total > budget.amount else "")
    )


def _constraints(requirements: Requirements, search: _Search, cheapest: Option) -> tuple[Constraint, ...]:
    """What each requirement costs: look for the cheapest again without it. The largest saving binds."""
    now = _total(cheapest)
    found = []
    for path, name, line, relaxed in _relaxed(requirements):
        saved = max(0.0, now - _total(search.best(relaxed) or cheapest))
        found.append(Constraint(name=name, line=line, path=path, saved=saved, share=saved / now if now else 0.0))
    return tuple(sorted(found, key=lambda c: (-c.saved, c.name)))


def _in_the_way(requirements: Requirements, search: _Search) -> tuple[Constraint, ...]:
    """Where nothing meets the file: each requirement without which, alone, something would."""
    return tuple(
        Constraint(name=name, line=line, path=path, saved=0.0, share=0.0)
        for path, name, line, relaxed in _relaxed(requirements)
        if search.best(relaxed) is not None
    )


def _relaxed(requirements: Requirements) -> Iterator[tuple[str, str, int, Requirements]]:
    """The requirements without each of them in turn, with its path in the file, its name and its line."""
    names = {item.name: item for item in requirements.items}
    if "p99" in names:
        waits = {"p99": "p99", "first token": "first_token", "each further token": "per_token"}
        for name in (name for name in waits if name in names):
            path = f"requirements.latency.{waits[name]}"
            yield path, f"latency: ten times {_LIMITS[name]}", names[name].line, _scaled(requirements, {name}, 10)
        least, up = min(names["availability"].value, 0.99), names["availability"]
        relaxed = _scaled(requirements, {"availability"}, least / up.value)
        yield "requirements.availability", "availability: 99 %", up.line, relaxed
        half = _scaled(requirements, _traffic(requirements), 0.5)
        yield "requirements.throughput.peak", "throughput: half the peak", names["peak rate"].line, half
        many = msgspec.structs.replace(requirements, replicas_max=10**6)
        yield "serve.replicas.max", "replicas: no upper limit", requirements.replicas_line, many
    else:
        limit = names["time of a run"]
        long = _scaled(requirements, {limit.name}, 10)
        yield "requirements.time", "time: ten times as long", limit.line, long
    if requirements.residency:
        anywhere = msgspec.structs.replace(requirements, residency=())
        yield "requirements.residency", "residency: anywhere", requirements.residency_line, anywhere


def _traffic(requirements: Requirements) -> set[str]:
    return {item.name for item in requirements.items if item.unit in ("requests/s", "requests")}


def _scaled(requirements: Requirements, names: set[str], factor: float) -> Requirements:
    items = tuple(
        msgspec.structs.replace(i, value=i.value * factor) if i.name in names else i for i in requirements.items
    )
    return msgspec.structs.replace(requirements, items=items)


def _flips(requirements: Requirements, search: _Search, chosen: Option, ranked: list[Option]) -> tuple[Flip, ...]:
    """The inputs that would change the choice, the nearest first: prices, traffic, and what may be waited."""
    found = []
    second = next((option for option in ranked if option.meets and not _same(option, chosen)), None)
    if second is not None and chosen.cost is not None:
        machine = chosen.cost.compute.value + chosen.cost.idle.value
        less = _total(second) - _total(chosen)
        if search.running is not None and search.running.name == chosen.name:  # it is kept until leaving it pays
            move = search.move(requirements, chosen, second)
            less = move.costs - move.saves.low
        factor = 1 + less / machine if machine else math.inf
        if factor <= _FAR:
            found.append(
                Flip(name=f"the price of {chosen.instance} ({chosen.market})", factor=factor, to=_named(second))
            )
    named = {item.name for item in requirements.items}
    inputs = {said: {name} for name, said in _LIMITS.items() if name in named}
    if "peak rate" in named:
        inputs["the peak"] = _traffic(requirements)
    for name, items in inputs.items():
        for factors in ((1.25, 1.5, 2.0), (0.8, 0.67, 0.5)):
            for factor in factors:
                other = search.choice(_scaled(requirements, items, factor))
                if other is None or not _same(other, chosen):
                    found.append(Flip(name=name, factor=factor, to=_named(other) if other else "nothing"))
                    break
    return tuple(sorted(found, key=lambda flip: (abs(math.log(flip.factor)), flip.name)))


def _named(option: Option) -> str:
    return f"{option.provider} {option.instance} ({option.market})"


def _total(option: Option) -> float:
    return option.cost.total.value if option.cost else 0.0
