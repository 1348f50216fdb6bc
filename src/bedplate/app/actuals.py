"""Plans held to what happened: after each training, each release and each day of serving, one fact ``actual``.

It names what was predicted, what was measured, and the plan that it judges. A fact is known by what it says, so writing
it again after a restart changes nothing. The cases of all of them are the experience that the next plan is made with.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate import clock
from bedplate.app.plan_models import Account, AccountRow
from bedplate.compute.sandbox import DAY, Limit
from bedplate.errors import NotFoundError
from bedplate.plan import explain, intervals
from bedplate.plan.experience import Actual, Case, Experience, Figure, learn
from bedplate.plan.requirements import HOURS_PER_MONTH, SERVICE, TRAINING
from bedplate.plan.types import Plan
from bedplate.records import Estimate, LoadTest, ReplicaPrice
from bedplate.usecase.quantities import CURRENCIES

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.records import Fact
    from bedplate.store import Transaction
    from bedplate.store.endpoints import EndpointRow

KIND = "actual"
P99 = "p99"
BACK = 7
"""Days that an owner closes when it comes up, if nobody did."""
KEPT = 400
"""Actuals of a use case that are looked at, newest first: a year of days and what was trained in it."""


def of_training(plan: Plan, run: str, *, seconds: float, peak: int, at: str) -> Actual:
    """A training run against the plan it was made under: its time, its memory in bytes, and its cost here."""
    items = {item.name: item for item in plan.requirements.items}
    cores, hour = _hired(plan)
    work = items.get(TRAINING)
    took = None
    if work is not None:
        ends = (work.value / cores, (work.low or work.value) / cores, (work.high or work.value) / cores)
        took = Estimate(value=ends[0], low=ends[1], high=ends[2], level=0.9, method=work.rule)
    figures = [Figure(name="time of a training", unit="s", measured=seconds, predicted=took)]
    if peak:
        limit = items["training memory"].value if "training memory" in items else None
        figures.append(Figure(name="memory of a training", unit="bytes", measured=float(peak), limit=limit))
    if hour is not None:
        budget = plan.requirements.training_budget
        cost = None if took is None else intervals.scaled(took, hour / 3600)
        figures.append(
            Figure(name="cost of a training", unit=plan.currency, measured=seconds / 3600 * hour, predicted=cost,
                   limit=budget.amount if budget is not None else None)
        )  # fmt: skip
    cases = _case(plan, TRAINING, at, took, seconds)
    spent = None if hour is None else seconds / 3600 * hour
    return Actual(of="training", when=run, figures=tuple(figures), cases=cases, currency=plan.currency, spent=spent)


def of_failure(plan: Plan, seconds: float) -> Actual:
    """A training that came to nothing: what it cost was spent all the same."""
    _, hour = _hired(plan)
    spent = None if hour is None else seconds / 3600 * hour
    figure = Figure(name="time of a training that failed", unit="s", measured=seconds)
    return Actual(
        of="failure", when=clock.timestamp(), figures=(figure,), cases=(), currency=plan.currency, spent=spent
    )


def _hired(plan: Plan) -> tuple[float, float | None]:
    """Cores of this machine that a training gets, and what they cost an hour; None where that is not known."""
    asked = next((item.value for item in plan.requirements.items if item.name == "training cores"), 1.0)
    cores = max(1.0, min(asked, plan.probe.cores))
    return cores, plan.here.price_hour * cores / plan.probe.cores if plan.here is not None else None


def of_release(plan: Plan, bundle: str, load: LoadTest, *, memory: int, at: str) -> Actual:
    """The load run of a release against the plan: one caller after the other, so nobody waits in line."""
    items = {item.name: item for item in plan.requirements.items}
    service = plan.here.service if plan.here is not None else None
    figures = [
        Figure(name=SERVICE, unit="s", measured=load.p50_ms / 1e3, predicted=service),
        Figure(name="p99, one caller", unit="s", measured=load.p99.value / 1e3, limit=load.limit_p99_ms / 1e3),
    ]
    needed = items.get("memory of a replica")
    if needed is not None and memory:
        ends = (needed.value, needed.low or needed.value, needed.high or needed.value)
        guess = Estimate(value=ends[0], low=ends[1], high=ends[2], level=0.9, method=needed.rule)
        figures.append(Figure(name=needed.name, unit="bytes", measured=float(memory), predicted=guess))
    cases = _case(plan, SERVICE, at, service, load.p50_ms / 1e3)
    return Actual(of="release", when=bundle, figures=tuple(figures), cases=cases, currency=plan.currency)


def of_day(
    plan: Plan, day: date, latencies: list[float], *, price: ReplicaPrice | None, seconds: float, hours: float
) -> Actual:
    """A day of serving: ``latencies`` of its requests in milliseconds; replicas ran for ``seconds`` in ``hours``."""
    import numpy as np

    items = {item.name: item for item in plan.requirements.items}
    figures: list[Figure] = []
    cases: tuple[Case, ...] = ()
    chosen = plan.chosen
    if latencies:
        p50, p99 = (float(end) / 1e3 for end in np.quantile(latencies, (0.5, 0.99)))
        waited = chosen.p99 if chosen is not None else None
        figures.append(Figure(name="p50", unit="s", measured=p50))
        limit = items["p99"].value if "p99" in items else None
        figures.append(Figure(name=P99, unit="s", measured=p99, predicted=waited, limit=limit))
        cases = _case(plan, P99, f"{day.isoformat()}T23:59:59Z", waited, p99)
    if "mean rate" in items and "peak rate" in items:
        mean, peak = items["mean rate"], items["peak rate"]
        guess = Estimate(value=mean.value, low=0.0, high=peak.value, method=mean.rule)
        figures.append(Figure(name="mean rate", unit="requests/s", measured=len(latencies) / 86400, predicted=guess))
    spent = None
    if price is not None and hours > 0:
        spent = price.hour * seconds / 3600
        cost = None
        if chosen is not None and chosen.cost is not None and chosen.cost.period == "month":
            paid = intervals.total([chosen.cost.compute, chosen.cost.idle])
            cost = intervals.scaled(paid, hours / HOURS_PER_MONTH)
        figures.append(Figure(name="cost of serving", unit=price.currency, measured=spent, predicted=cost))
    return Actual(
        of="day", when=day.isoformat(), figures=tuple(figures), cases=cases, currency=plan.currency, spent=spent,
        hours=round(hours, 2), requests=len(latencies),
    )  # fmt: skip


def _case(plan: Plan, figure: str, at: str, predicted: Estimate | None, measured: float) -> tuple[Case, ...]:
    """What can be learned from: the prediction without what had been learned before."""
    if predicted is None or predicted.value <= 0 or measured <= 0:
        return ()
    known = plan.requirements.correction(figure)
    plain = predicted.value / (known.factor.value if known is not None else 1.0)
    kind = str(plan.requirements.size.__struct_config__.tag)
    return (Case(figure=figure, kind=kind, hardware=plan.probe.cpu, when=at, predicted=plain, measured=measured),)


# --------------------------------------------------------------------------------------------------------- what is kept


def experience(tx: "Transaction") -> Experience:
    """What all use cases of this home taught so far."""
    return learn(
        case for row in tx.use_cases.list() for _, actual in history(tx, row.name) for case in actual.cases
    )  # fmt: skip


def history(tx: "Transaction", use_case: str) -> "list[tuple[Fact, Actual]]":
    """What happened to a use case, newest first."""
    return [(fact, msgspec.convert(fact.body, Actual)) for fact in tx.facts.list(use_case, KIND, KEPT)]


def spent(tx: "Transaction", use_case: str, month: str) -> float:
    """What trainings and days of serving cost in a month, such as ``2026-11``."""
    return sum(
        actual.spent or 0.0
        for fact, actual in history(tx, use_case)
        if (actual.when if actual.of == "day" else fact.created).startswith(month)
    )  # fmt: skip


def overspent(tx: "Transaction", use_case: str, plan: Plan) -> str:
    """Why the next training must not begin: it would take the month over its budget; empty if it may."""
    budget, chosen = plan.requirements.budget, plan.chosen
    if budget is None or plan.requirements.on_breach != "block" or chosen is None or chosen.cost is None:
        return ""
    if chosen.cost.period != "month":
        return ""
    so_far = spent(tx, use_case, clock.timestamp()[:7])
    runs = next((item.value for item in plan.requirements.items if item.name == "retrainings a month"), 1.0)
    one = chosen.cost.retraining.value / max(runs, 1e-9)
    if so_far + one <= budget.amount:
        return ""
    return (
        f"{so_far:,.2f} {budget.currency} were spent this month and one training costs {one:,.2f}; "
        f"the budget of a month is {budget.amount:,.0f}, and its breach blocks"
    )


def allowance(tx: "Transaction", use_case: str, plan: Plan) -> Limit:
    """How long a training may go on: a day, or until it has spent what the file allows where a breach blocks."""
    needs, chosen, (_, hour) = plan.requirements, plan.chosen, _hired(plan)
    if needs.on_breach != "block" or not hour:
        return DAY
    limits = []
    if needs.training_budget is not None:
        whole = needs.training_budget.amount
        limits.append((whole, f"the {explain.quantity(whole, plan.currency)} that a training may cost"))
    if needs.budget is not None and chosen is not None and chosen.cost is not None and chosen.cost.period == "month":
        left = needs.budget.amount - spent(tx, use_case, clock.timestamp()[:7])
        limits.append((left, f"the {explain.quantity(left, plan.currency)} that are left of the month's budget"))
    return min([DAY, *(Limit(max(0.0, amount) / hour * 3600, f"it has spent {why}") for amount, why in limits)])


def account(tx: "Transaction", use_case: str, plan: Plan | None, value: dict[str, Any], *, counts: bool) -> Account:
    """Plan, actual and value of a use case side by side: the newest training (or a failure since), release and day.

    ``counts``: whether the reader may know how many requests there were.
    """
    newest: dict[str, Actual] = {}
    for _, actual in history(tx, use_case):
        if not (actual.of == "failure" and "training" in newest):  # a failure that was mended is no news
            newest.setdefault(actual.of, actual)
    rows = [
        _row(actual, figure)
        for actual in newest.values()
        for figure in actual.figures
        if counts or figure.name != "mean rate"
    ]
    chosen = plan.chosen if plan is not None else None
    total = chosen.cost.total if chosen is not None and chosen.cost is not None else None
    month = clock.timestamp()[:7]
    learned = plan.requirements.learned if plan is not None else ()
    return Account(
        rows=tuple(rows),
        month=month,
        spent=spent(tx, use_case, month),
        planned=total,
        budget=plan.requirements.budget.amount if plan is not None and plan.requirements.budget is not None else None,
        currency=plan.currency if plan is not None else "USD",
        moved=tuple(f"{item.figure}: {item.moved}" for item in learned if item.moved),
        worth=_worth(value, total),
    )


def _row(actual: Actual, figure: Figure) -> AccountRow:
    verdict = ""
    if figure.limit is not None and figure.measured > figure.limit:
        verdict = "above what the file allows"
    elif figure.inside is not None:
        verdict = "as planned" if figure.inside else f"{figure.off:.2g} times the plan"
    money = figure.unit in CURRENCIES
    return AccountRow(
        what=figure.name,
        when=actual.when if actual.of == "day" else actual.of,
        planned="" if figure.predicted is None else explain.interval(figure.predicted, figure.unit),
        happened=f"{figure.measured:,.4f} {figure.unit}" if money else explain.quantity(figure.measured, figure.unit),
        allowed="" if figure.limit is None else explain.quantity(figure.limit, figure.unit),
        verdict=verdict,
    )


def _worth(value: dict[str, Any], total: Estimate | None) -> str:
    """How many of the units that the objective counts pay for a month; what they bring needs random exposure."""
    if not value or total is None:
        return ""
    each, unit = value["per_unit"], str(value["of"]).replace("_", " ")
    needed = total.value / each["amount"] if each["amount"] else math.inf
    return (
        f"Each {unit} is worth {each['amount']:g} {each['currency']}: {needed:,.0f} of them pay for the plan. How "
        "many there are because of the model, only a rollout that exposes people at random can tell."
    )


# ---------------------------------------------------------------------------------------------------------------- days


class Days:
    """Which endpoints ran for how long on which day; kept by the owner, from one look to the next."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._ran: dict[tuple[str, date], tuple[float, float]] = {}
        self._looked: datetime | None = None
        self._closed: date | None = None

    def look(self, system: "System") -> None:
        """Count what ran since the last look, and close every day that is over, once."""
        now = clock.now().astimezone(UTC)
        hours = 0.0 if self._looked is None else (now - self._looked).total_seconds() / 3600
        for seen in system.supervisor.status():
            ran = seen.took.seconds - self._last.get(seen.name, seen.took.seconds)
            key = seen.name, now.date()
            seconds, covered = self._ran.get(key, (0.0, 0.0))
            self._ran[key] = seconds + max(0.0, ran), covered + hours
            self._last[seen.name] = seen.took.seconds
        self._looked = now
        if self._closed != now.date():
            over = [now.date() - timedelta(days=back) for back in range(BACK, 0, -1)]
            close(system, over, self._ran)
            self._ran = {key: ran for key, ran in self._ran.items() if key[1] == now.date()}
            self._closed = now.date()


def close(system: "System", days: Sequence[date], ran: Mapping[tuple[str, date], tuple[float, float]]) -> None:
    """Write down the days of every endpoint on which it was asked something or ran, each once.

    ``ran`` are the seconds of replicas by endpoint and day, and the hours in which they were counted.
    """
    with system.store.read() as tx:
        rows = [(row, _written(tx, row.use_case)) for row in tx.endpoints.list()]
    for row, written in rows:
        for day in days:
            if day.isoformat() in written:
                continue
            seconds, hours = ran.get((row.name, day), (0.0, 0.0))
            latencies = list(_latencies(system, row, day))
            if latencies or seconds:
                _write(system, row, day, latencies, seconds, hours)


def _write(
    system: "System", row: "EndpointRow", day: date, latencies: list[float], seconds: float, hours: float
) -> None:
    with system.store.transaction() as tx:
        planned = tx.facts.latest(row.use_case, "plan")
        if planned is None or day.isoformat() in _written(tx, row.use_case):
            return
        try:
            plan = msgspec.convert(planned.body, Plan)
        except msgspec.ValidationError:
            return  # a plan of an older version, which says other things: the next run makes one to hold days against
        price = msgspec.convert(row.spec.get("price"), ReplicaPrice | None)
        actual = of_day(plan, day, latencies, price=price, seconds=seconds, hours=hours)
        fact = tx.facts.put(KIND, row.use_case, actual, (planned.digest,))
        system.ledger.record(
            tx, actor="bedplate", action="plan.compare", resource=f"use_case/{row.use_case}",
            payload={"day": day.isoformat(), "actual": fact.digest},
        )  # fmt: skip


def _written(tx: "Transaction", use_case: str) -> set[str]:
    """The days of a use case that are written down."""
    return {actual.when for _, actual in history(tx, use_case) if actual.of == "day"}


def _latencies(system: "System", row: "EndpointRow", day: date) -> Iterator[float]:
    """Milliseconds of each real request of a day, as the replica measured it; replayed history is none."""
    import pyarrow.compute as pc

    from bedplate.app import access

    try:
        version = system.tables.current(access.predictions_table(row.use_case))
    except NotFoundError:
        return  # nothing was ever shipped
    begin = datetime.combine(day, time(), UTC)
    when: Any = pc.field("time")
    inside = (when >= begin) & (when < begin + timedelta(days=1)) & ~pc.field("replayed")
    for batch in system.tables.scan(version, ["latency_ms"], filter=inside & (pc.field("endpoint") == row.name)):
        yield from batch.column(0).to_pylist()
