"""From requirements to a choice: every kind of workload is sized on every machine, and the cheapest that keeps the file
is chosen. What each requirement costs, and which input would change the choice, is found by choosing again without it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from bedplate.plan import devices, jobs, replicas, sites, workloads
from bedplate.plan.catalogue import Catalogue
from bedplate.plan.sites import Sizer
from bedplate.plan.types import (
    ChatSize,
    Constraint,
    EmbeddingSize,
    Flip,
    ImageSize,
    ImageTrainingSize,
    LanguageTrainingSize,
    Market,
    Option,
    PipelineSize,
    Plan,
    Probe,
    RecommenderSize,
    Requests,
    Requirements,
    ScoringSize,
    Size,
    TabularSize,
)
from bedplate.usecase.types import Money

_FAR = 3.0
"""A price that would have to change by more than this factor is not worth a line."""
_SERVING: tuple[Market, ...] = ("on-demand", "reserved")
_RUNNING: tuple[Market, ...] = ("on-demand", "spot")
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


def plan(requirements: Requirements, catalogue: Catalogue, probe: Probe) -> Plan:
    """Compare every machine type where it is allowed, and this machine, and choose the cheapest that meets the file.

    Pure: the same arguments give the same plan.
    """
    ranked = sorted(_options(requirements, catalogue, probe), key=_rank)
    chosen = _best(ranked)
    breach, reason = _judge(requirements, chosen)
    constraints = _constraints(requirements, catalogue, probe, chosen) if chosen else ()
    flips = _flips(requirements, catalogue, probe, chosen, ranked) if chosen else ()
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
        stages=workloads.stages(size, probe) if isinstance(size, Requests) else (),
        options=final,
        chosen=next((option for option in final if chosen and _same(option, chosen)), None),
        runners_up=tuple(others[:2]),
        here=next((option for option in final if option.provider == "here"), None),
        flips=flips,
        binding=constraints[0] if constraints and constraints[0].saved > 0 else None,
        constraints=constraints,
        breach=breach,
        reason=reason,
        currency=requirements.budget.currency if requirements.budget else "USD",
    )


def _options(requirements: Requirements, catalogue: Catalogue, probe: Probe) -> Iterator[Option]:
    sizer, markets = KINDS[type(requirements.size)]
    yield from sizer(sites.here(catalogue, probe), requirements, catalogue, probe)
    for site in sites.rented(requirements, catalogue, markets):
        yield from sizer(site, requirements, catalogue, probe)


def _best(options: Iterable[Option]) -> Option | None:
    return min((option for option in options if option.meets), key=_rank, default=None)


def _rank(option: Option) -> tuple[bool, float, str, str, str]:
    total = option.cost.total.value if option.cost else math.inf
    return not option.meets, total, option.provider, option.instance, option.market


def _same(a: Option, b: Option) -> bool:
    return (a.provider, a.region, a.instance, a.market) == (b.provider, b.region, b.instance, b.market)


def _judge(requirements: Requirements, chosen: Option | None) -> tuple[Literal["none", "warn", "block"], str]:
    """Whether the cheapest option that meets the file stays in the budget, in words."""
    if chosen is None or chosen.cost is None:
        return "block", "no machine type can be shown to meet the file; the table says why each lost"
    budget, total = _budget(requirements, chosen), chosen.cost.total
    named = "this machine" if chosen.provider == "here" else f"{chosen.provider} {chosen.instance}"
    named += f" ({chosen.market})" if chosen.market in ("spot", "reserved") else ""
    if budget is None:
        return "none", f"the cheapest of those that meet the file is {named}; the file sets no budget"
    if total.value > budget.amount:
        text = f"the cheapest that meets the file, {named}, costs {total.value:,.0f} {budget.currency} a "
        return requirements.on_breach, f"{text}{chosen.cost.period}; the budget is {budget.amount:,.0f}"
    sure = "with the whole interval" if total.high <= budget.amount else "but the upper end of the interval does not"
    return "none", f"the cheapest of those that meet the file is {named}; it stays in the budget, {sure}"


def _budget(requirements: Requirements, option: Option) -> Money | None:
    run = option.cost is not None and option.cost.period == "run"
    return requirements.training_budget if run else requirements.budget


def _with_reason(option: Option, chosen: Option | None, requirements: Requirements) -> Option:
    if not option.meets or option.cost is None or (chosen and _same(option, chosen)):
        return option
    budget, total = _budget(requirements, option), option.cost.total.value
    if chosen is None or chosen.cost is None:
        return msgspec.structs.replace(option, lost="over the budget, which blocks")
    more = total - chosen.cost.total.value
    text = f"{more:,.0f} {option.cost.currency} a {option.cost.period} dearer" if more >= 0.5 else "no cheaper"
    return msgspec.structs.replace(
        option, lost=text + (", and over the budget" if budget and total > budget.amount else "")
    )


def _constraints(
    requirements: Requirements, catalogue: Catalogue, probe: Probe, chosen: Option
) -> tuple[Constraint, ...]:
    """What each requirement costs: choose again without it. The largest saving binds."""
    now = _total(chosen)
    found = []
    for name, line, relaxed in _relaxed(requirements):
        saved = max(0.0, now - _total(_best(_options(relaxed, catalogue, probe)) or chosen))
        found.append(Constraint(name=name, line=line, saved=saved, share=saved / now if now else 0.0))
    return tuple(sorted(found, key=lambda c: (-c.saved, c.name)))


def _relaxed(requirements: Requirements) -> Iterator[tuple[str, int, Requirements]]:
    """The requirements without each of them in turn, with the line that asks for it."""
    names = {item.name: item for item in requirements.items}
    if "p99" in names:
        waits = [name for name in ("p99", "first token", "each further token") if name in names]
        for name in waits:
            yield f"latency: ten times the {name}", names[name].line, _scaled(requirements, {name}, 10)
        least = min(names["availability"].value, 0.99)
        share = least / names["availability"].value
        yield "availability: 99 %", names["availability"].line, _scaled(requirements, {"availability"}, share)
        yield "throughput: half the peak", names["peak rate"].line, _scaled(requirements, _traffic(requirements), 0.5)
        yield (
            "replicas: no upper limit",
            requirements.replicas_line,
            msgspec.structs.replace(requirements, replicas_max=10**6),
        )
    else:
        limit = names["time of a run"]
        yield "time: ten times as long", limit.line, _scaled(requirements, {limit.name}, 10)
    if requirements.residency:
        yield "residency: anywhere", requirements.residency_line, msgspec.structs.replace(requirements, residency=())


def _traffic(requirements: Requirements) -> set[str]:
    return {item.name for item in requirements.items if item.unit in ("requests/s", "requests")}


def _scaled(requirements: Requirements, names: set[str], factor: float) -> Requirements:
    items = tuple(
        msgspec.structs.replace(i, value=i.value * factor) if i.name in names else i for i in requirements.items
    )
    return msgspec.structs.replace(requirements, items=items)


def _flips(
    requirements: Requirements, catalogue: Catalogue, probe: Probe, chosen: Option, ranked: list[Option]
) -> tuple[Flip, ...]:
    """The inputs that would change the choice, the nearest first: prices, traffic, and what may be waited."""
    found = []
    second = next((option for option in ranked if option.meets and not _same(option, chosen)), None)
    if second is not None and chosen.cost is not None:
        machine = chosen.cost.compute.value + chosen.cost.idle.value
        factor = 1 + (_total(second) - _total(chosen)) / machine if machine else math.inf
        if factor <= _FAR:
            found.append(
                Flip(name=f"the price of {chosen.instance} ({chosen.market})", factor=factor, to=_named(second))
            )
    serves = any(item.name == "peak rate" for item in requirements.items)
    inputs = {"the peak": _traffic(requirements), "the p99": {"p99"}} if serves else {"the time": {"time of a run"}}
    for name, items in inputs.items():
        for factors in ((1.25, 1.5, 2.0), (0.8, 0.67, 0.5)):
            for factor in factors:
                other = _best(_options(_scaled(requirements, items, factor), catalogue, probe))
                if other is None or not _same(other, chosen):
                    found.append(Flip(name=name, factor=factor, to=_named(other) if other else "nothing"))
                    break
    return tuple(sorted(found, key=lambda flip: (abs(math.log(flip.factor)), flip.name)))


def _named(option: Option) -> str:
    return f"{option.provider} {option.instance} ({option.market})"


def _total(option: Option) -> float:
    return option.cost.total.value if option.cost else 0.0
