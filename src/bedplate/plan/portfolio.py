"""Several use cases on one budget: what each is worth against its cost, which may share machines, what comes first.

Value is what the file states: units a month, when the target is reached, times what one is worth. Machines are shared
by use cases that processors answer: each keeps its replicas, so what it promises still holds; a shared machine stands
where the residency of each allows it, and there are never fewer machines than any of them needs alone. Pure.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from bedplate.plan.types import Option, Plan, Requests
from bedplate.usecase.types import Money

EXACT = 8
"""Up to so many use cases every set and every way to share is looked at; beyond, the best by value for money."""
_MONTHS = 12.0
"""A run that ends is paid over so many months."""
_SYSTEM = 1.0
"""GiB of a machine that the system keeps."""

Pool = tuple[str, str, str, str]
"""Provider, region, instance and market."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One use case: its plan, and what it is worth a month; None where its file does not say."""

    plan: Plan
    worth: Money | None

    @property
    def name(self) -> str:
        """Of the use case."""
        return self.plan.use_case


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One use case in the portfolio. Money is a month; ``alone`` is what it costs without sharing.

    ``state``: funded, over the budget, not worth what it costs, without a stated value, or without a plan that works.
    """

    use_case: str
    state: Literal["funded", "over budget", "not worth it", "no value", "no plan"]
    order: int
    """What to fund first: from 1; 0 is not funded."""
    worth: float | None
    cost: float | None
    alone: float | None
    option: str
    why: str


class Portfolio(msgspec.Struct, frozen=True, kw_only=True):
    """What to fund of several use cases. ``gap``: no other choice is worth more than that beyond it; 0 is exact."""

    shares: tuple[Share, ...]
    budget: float | None
    currency: str
    cost: float
    worth: float
    saved: float
    """What sharing machines saves a month."""
    pool: str
    """Machines that are shared, and by whom; empty where none are."""
    gap: float


class _Way(NamedTuple):
    """How one use case could lie on the machines of a pool."""

    machines: int
    load: float
    hour: float
    beside: float
    """What it costs a month beside machines."""


class _Fund(NamedTuple):
    """A set of use cases with what it costs; ``shared`` are those on the machines of ``pool``."""

    members: tuple[int, ...]
    cost: float
    pool: Pool | None
    shared: tuple[int, ...]


class _Case(NamedTuple):
    """What is chosen from: use cases by number, what each costs alone and is worth, and the machines they may share."""

    able: Sequence[int]
    alone: dict[int, float]
    worth: dict[int, float]
    pools: dict[Pool, dict[int, _Way]]
    limit: float

    def net(self, fund: _Fund) -> float:
        """What a set is worth beyond its cost."""
        return sum(self.worth[i] for i in fund.members) - fund.cost

    def apart(self, members: Iterable[int]) -> float:
        """What use cases cost when none shares."""
        return sum(self.alone[i] for i in members)


def choose(entries: Sequence[Entry], budget: Money | None) -> Portfolio:
    """The set of use cases that is worth most beyond its cost, within a budget a month.

    Residency and promises are those of each plan: an option that does not meet its file is never used.
    """
    entries = sorted(entries, key=lambda entry: entry.name)
    alone = [_alone(entry.plan) for entry in entries]
    able = [i for i, entry in enumerate(entries) if alone[i] is not None and entry.worth is not None]
    case = _Case(
        able,
        {i: alone[i] or 0.0 for i in able},
        {i: money.amount for i in able if (money := entries[i].worth) is not None},
        _pools(entries, able),
        budget.amount if budget is not None else math.inf,
    )
    found, gap = _exact(case), 0.0
    if found is None:
        found = _greedy(case)
        gap = max(0.0, _bound(case) - case.net(found))
    return _told(entries, alone, found, budget, gap)


def _alone(plan: Plan) -> float | None:
    """What the cheapest option that meets the file costs a month."""
    option = next((option for option in plan.options if option.meets), None)
    if option is None or option.cost is None or plan.breach == "block":
        return None
    return option.cost.total.value / (_MONTHS if option.cost.period == "run" else 1.0)


def _pools(entries: Sequence[Entry], able: Sequence[int]) -> dict[Pool, dict[int, _Way]]:
    """Machines on which two use cases or more keep what they promise."""
    found: dict[Pool, dict[int, _Way]] = {}
    for i in able:
        plan = entries[i].plan
        if not isinstance(plan.requirements.size, Requests):
            continue
        memory = plan.requirements.item("memory of a replica")
        for option in plan.options:
            way = _way(option, (memory.high or memory.value) / 2**30)
            if way is not None:
                found.setdefault(_pool_of(option), {})[i] = way
    return {pool: ways for pool, ways in found.items() if len(ways) > 1}


def _way(option: Option, memory: float) -> _Way | None:
    if not option.meets or option.cost is None or not option.machines or not option.replicas:
        return None
    each = max(1 / option.vcpus, memory / (option.memory_gib - _SYSTEM))
    paid = option.cost.compute.value + option.cost.idle.value
    return _Way(option.machines, option.replicas * each, paid / option.machines, option.cost.total.value - paid)


def _shared(ways: dict[int, _Way], members: Sequence[int]) -> float:
    """What use cases cost a month on machines that they share: room for all replicas, no fewer than any needs alone."""
    some = [ways[i] for i in members]
    machines = max(*(way.machines for way in some), math.ceil(sum(way.load for way in some) - 1e-9))
    return machines * max(way.hour for way in some) + sum(way.beside for way in some)


def _cheapest(case: _Case, members: tuple[int, ...], least: int = 2) -> _Fund:
    """The cheapest way to run a set, with at most one pool; at least ``least`` of those that could be in it are."""
    best = _Fund(members, case.apart(members), None, ())
    for pool, ways in sorted(case.pools.items()):
        fits = [i for i in members if i in ways]
        for size in range(max(2, min(least, len(fits))), len(fits) + 1):
            for shared in itertools.combinations(fits, size):
                cost = _shared(ways, shared) + case.apart(i for i in members if i not in shared)
                if cost < best.cost - 1e-9:
                    best = _Fund(members, cost, pool, shared)
    return best


def _exact(case: _Case) -> _Fund | None:
    """The best of all sets and all ways to share; None where there are too many."""
    if len(case.able) > EXACT:
        return None
    best = _Fund((), 0.0, None, ())
    for size in range(1, len(case.able) + 1):
        for members in itertools.combinations(case.able, size):
            fund = _cheapest(case, members)
            if fund.cost <= case.limit and case.net(fund) > case.net(best) + 1e-9:
                best = fund
    return best


def _greedy(case: _Case) -> _Fund:
    """By value for money, as long as the budget holds; then whether all that could share machines should."""
    taken: list[int] = []
    for i in sorted(case.able, key=lambda i: (-case.worth[i] / max(case.alone[i], 1e-9), i)):
        if case.worth[i] > case.alone[i] and case.apart([*taken, i]) <= case.limit:
            taken.append(i)
    return _cheapest(case, tuple(sorted(taken)), least=len(taken))


def _bound(case: _Case) -> float:
    """No choice is worth more: each at the least it could cost in any pool, the last one in part."""
    ways = list(case.pools.values())
    least = {i: min([case.alone[i], *(w[i].load * w[i].hour + w[i].beside for w in ways if i in w)]) for i in case.able}
    net, left = 0.0, case.limit
    for i in sorted(case.able, key=lambda i: (-(case.worth[i] - least[i]) / max(least[i], 1e-9), i)):
        part = min(1.0, left / least[i]) if least[i] > 0 else 1.0
        net += max(0.0, case.worth[i] - least[i]) * part
        left -= least[i] * part
    return net


# ---------------------------------------------------------------------------------------------------------------- words


def _told(
    entries: Sequence[Entry], alone: Sequence[float | None], fund: _Fund, budget: Money | None, gap: float
) -> Portfolio:
    costs = _shares(alone, fund)
    ranked = sorted(fund.members, key=lambda i: (-_ratio(entries[i], costs[i]), entries[i].name))
    shares = [_share(entries[i], i, alone[i], fund, costs, ranked, budget) for i in range(len(entries))]
    shares.sort(key=lambda share: (share.order == 0, share.order, share.use_case))
    apart = sum(alone[i] or 0.0 for i in fund.members)
    names = " and ".join(entries[i].name for i in fund.shared)
    return Portfolio(
        shares=tuple(shares),
        budget=budget.amount if budget is not None else None,
        currency=budget.currency if budget is not None else "USD",
        cost=fund.cost,
        worth=sum(share.worth or 0.0 for share in shares if share.order),
        saved=max(0.0, apart - fund.cost),
        pool=f"{_machines(fund.pool)}, shared by {names}" if fund.pool is not None else "",
        gap=gap,
    )


def named(option: Option) -> str:
    """The machines of an option as a portfolio names them."""
    return _machines(_pool_of(option))


def _machines(pool: Pool) -> str:
    return f"{'/'.join(pool[:3])} ({pool[3]})"


def _pool_of(option: Option) -> Pool:
    return option.provider, option.region, option.instance, option.market


def _shares(alone: Sequence[float | None], fund: _Fund) -> dict[int, float]:
    """What each member bears: what is saved by sharing is split by what each would pay alone."""
    found = {i: alone[i] or 0.0 for i in fund.members}
    together = sum(found[i] for i in fund.shared)
    saved = sum(found.values()) - fund.cost
    return {i: cost - (saved * cost / together if i in fund.shared and together else 0.0) for i, cost in found.items()}


def _ratio(entry: Entry, cost: float) -> float:
    return (entry.worth.amount if entry.worth is not None else 0.0) / max(cost, 1e-9)


def _share(
    entry: Entry, i: int, alone: float | None, fund: _Fund, costs: dict[int, float], ranked: Sequence[int],
    limit: Money | None,
) -> Share:  # fmt: skip
    option = next((option for option in entry.plan.options if option.meets), None)
    name = named(option) if option is not None else ""
    worth = entry.worth.amount if entry.worth is not None else None
    state, why = _verdict(entry, i, alone, fund, costs, limit)
    if i in fund.shared and fund.pool is not None:
        name = _machines(fund.pool)
    order = ranked.index(i) + 1 if i in ranked else 0
    return Share(
        use_case=entry.name, state=state, order=order, worth=worth, cost=costs.get(i, alone), alone=alone, option=name,
        why=why,
    )  # fmt: skip


def _verdict(
    entry: Entry, i: int, alone: float | None, fund: _Fund, costs: dict[int, float], limit: Money | None
) -> tuple[Literal["funded", "over budget", "not worth it", "no value", "no plan"], str]:
    if alone is None:
        return "no plan", entry.plan.reason
    if entry.worth is None:
        return "no value", "no objective.value.monthly in its file: how many units a month it is to bring"
    if i in fund.members:
        ratio = _ratio(entry, costs[i])
        return "funded", f"each {entry.worth.currency} brings {ratio:,.1f}"
    if entry.worth.amount <= alone:
        return "not worth it", f"it costs {alone:,.0f} a month and is worth {entry.worth.amount:,.0f}"
    if limit is not None and alone > limit.amount:
        return "over budget", f"it costs {alone:,.0f} a month alone; the budget is {limit.amount:,.0f}"
    return "over budget", "others bring more for the same money"
