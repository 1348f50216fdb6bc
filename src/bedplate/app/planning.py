"""From a loaded file to a plan: what the planner needs from this machine and this data, and how its answer is shown."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from bedplate import clock, files, ids, store
from bedplate.app import access, described, inputs, policies, pricing
from bedplate.app.read_models import PlanOption, PlanReport, Requirement
from bedplate.app.stage import Context
from bedplate.app.system import System
from bedplate.data.parsing.template import TEMPLATE
from bedplate.errors import InputError
from bedplate.identity import Principal
from bedplate.ids import Digest
from bedplate.plan import bought, catalogue, choose, explain, portfolio, requirements
from bedplate.plan import compare as comparing
from bedplate.plan.compare import Comparison
from bedplate.plan.experience import Experience
from bedplate.plan.portfolio import Portfolio
from bedplate.plan.types import DataFacts, Option, Plan, Probe, Requests, Requirements, Running, TableFacts
from bedplate.policy import values as policy
from bedplate.records import Event
from bedplate.settings import Home, Settings
from bedplate.usecase import FILE_NAME, Loaded, load, quantities
from bedplate.usecase.files import is_local
from bedplate.usecase.types import Money

if TYPE_CHECKING:
    from bedplate.app.system import System


def catalogue_digest(settings: Settings) -> Digest:
    """The digest of the prices that plans are made from."""
    return prices(settings).digest


def probe(home: Home, *, keep: bool) -> Probe:
    """What a short measurement found on this machine; measured once and kept in the home if ``keep``."""
    from bedplate.compute import probe as probing  # NumPy and ONNX Runtime: only when there is something to measure

    kept = _kept(home)
    if kept is not None and kept.code == probing.code():
        return kept
    measured = _measured(home.root)
    if keep:
        files.write(home.probe, msgspec.json.encode(measured))
    return measured


@cache
def _measured(root: Path) -> Probe:
    """Once for each process: two measurements differ, and with them a plan and its page would."""
    from bedplate.compute import probe as probing

    return probing.measure(folder=root if root.is_dir() else None)


def measure_anew(home: Home, model: Path | None, shapes: Sequence[str], emit: Callable[[Event], None]) -> Probe:
    """Measure this machine again, and a model if one is named; nothing is kept.

    What earlier probes found of other models stays: an anchor holds as long as its machine.

    Raises:
        InputError: the model cannot be read, opened or fed.
    """
    from bedplate.compute import probe as probing
    from bedplate.compute.onnx_model import OnnxModel, parse_shapes

    given = parse_shapes(shapes)
    opened = OnnxModel(model, given) if model is not None else None
    if opened is None and given:
        raise InputError("a shape without a model", where="--shape", fix="name the model: --model FILE")

    def on_step(what: str, done: int, total: int) -> None:
        emit(Event(stage="probe", state="progress", message=what, done=float(done), total=float(total)))

    before = _kept(home)
    found = probing.measure(folder=home.root if home.root.is_dir() else None, model=opened, on_step=on_step)
    emit(Event(stage="probe", state="finished", message=found.cpu, seconds=found.seconds))
    if before is None or before.cpu != found.cpu:
        return found
    known = {item.digest for item in found.models}
    return msgspec.structs.replace(
        found, models=(*found.models, *(item for item in before.models if item.digest not in known))
    )


def keep(system: System, principal: Principal, measured: Probe) -> Probe:
    """Keep what was measured as the anchor of every plan from now on, and record it.

    Raises:
        DeniedError: policy does not let the principal administer the home.
    """
    access.demand(system, principal, "administer", policy.HOME)
    files.write(system.home.probe, msgspec.json.encode(measured))
    with system.store.transaction() as tx:
        system.ledger.record(
            tx, actor=principal.id, action="home.probe", resource="home", payload={"probe": probe_digest(measured)}
        )
    return measured


def _kept(home: Home) -> Probe | None:
    try:
        return msgspec.json.decode(home.probe.read_bytes(), type=Probe)
    except (OSError, msgspec.DecodeError):
        return None  # there is none, or one of an older version, which measured other things


def probe_digest(measured: Probe) -> Digest:
    """The digest of what a measurement found."""
    return ids.digest_of(measured)


def facts(loaded: Loaded, settings: Settings) -> DataFacts:
    """Rows and bytes of each source, from file sizes and Parquet footers; no row is read."""
    if any(data.source.kind == "parquet" and is_local(data.source) for data in loaded.use_case.data.values()):
        TEMPLATE.warm()  # while this process loads its half
    from bedplate.data import sources

    tables: dict[str, TableFacts] = {}
    for name, data in loaded.use_case.data.items():
        if not is_local(data.source):
            tables[name] = TableFacts()
            continue
        inputs.source_path(loaded.folder, name, data)  # says what to do where it is not there
        with sources.opened(data.source, loaded.folder, inputs.reach(settings, loaded.use_case), dataset=name) as found:
            rows = found.total() if data.source.kind == "parquet" else None
            tables[name] = TableFacts(rows=rows, size=sum(path.stat().st_size for path in found.paths))
    return DataFacts(tables=tables, model=described.model(loaded))


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What a home knows before it plans: what predictions got wrong, and what serves each use case."""

    experience: Experience = requirements.NOTHING_LEARNED
    running: dict[str, Running] = {}


NO_PAST = Past()


def derive(loaded: Loaded, measured: Probe, settings: Settings, before: Past = NO_PAST) -> tuple[Requirements, Plan]:
    """Requirements of the file, and the plan that meets them, corrected by what earlier plans got wrong here."""
    derived = requirements.derive(loaded, facts(loaded, settings), before.experience, measured.cpu)
    return derived, choose.plan(derived, prices(settings), measured, before.running.get(derived.use_case))


def past(opened: "store.Store") -> Past:
    """What the use cases of a home taught about predictions, and the machines that each is served with."""
    from bedplate.app import actuals

    with opened.read() as tx:
        served = {row.use_case: _served_with(tx, row.use_case) for row in tx.endpoints.list() if row.state == "running"}
        running = {name: found for name, found in served.items() if found is not None}
        return Past(experience=actuals.experience(tx), running=running)


def _served_with(tx: "store.Transaction", use_case: str) -> Running | None:
    """What the plan chose that the newest release was served by, and since when releases were served by it."""
    found: Running | None = None
    for endpoint in tx.facts.list(use_case, "endpoint"):  # newest first
        plan = next((fact for fact in map(tx.facts.get, endpoint.parents) if fact.kind == "plan"), None)
        if plan is None:
            continue  # one that took its steps beside another
        chosen = msgspec.convert(plan.body, Plan).chosen
        if chosen is None or (found is not None and found.name != chosen.name):
            break
        found = Running(name=chosen.name, since=endpoint.created[:10])
    return found


def known(settings: Settings) -> Past:
    """:func:`past` of the home that settings name; nothing where there is none yet."""
    database = settings.database or Home(settings.home).database
    if not settings.database and not Home(settings.home).database.is_file():
        return NO_PAST
    opened = store.open(database, read_only=True)
    try:
        return past(opened)
    finally:
        opened.close()


def prices(settings: Settings) -> catalogue.Catalogue:
    """The catalogue with what was imported into the home, and the age of its prices counted to today."""
    found = bought.load(pricing.kept(Home(settings.home)))
    return msgspec.structs.replace(found, today=clock.timestamp()[:10])


def sentence(plan: Plan) -> str:
    """The plan in one line."""
    if plan.chosen is None or plan.chosen.cost is None:
        return plan.reason
    cost = plan.chosen.cost.total
    priced = sum(option.cost is not None for option in plan.options)
    return (
        f"{plan.chosen.provider} {plan.chosen.instance} in {plan.chosen.region}, {cost.value:,.0f} {plan.currency} "
        f"a {plan.chosen.cost.period} [{cost.low:,.0f}, {cost.high:,.0f}], chosen of {priced} options"
    )


def report(requirements_: Requirements, plan: Plan) -> PlanReport:
    """The plan as CLI and pages show it."""
    chosen = plan.chosen
    total = chosen.cost.total.value if chosen is not None and chosen.cost is not None else None
    period = chosen.cost.period if chosen is not None and chosen.cost is not None else "month"
    budget = requirements_.allowed(period)
    training = None
    if chosen is not None and chosen.cost is not None and isinstance(requirements_.size, Requests):
        training = chosen.cost.retraining.value
    return PlanReport(
        use_case=plan.use_case,
        requirements=tuple(
            Requirement(
                name=item.name, value=explain.quantity(item.value, item.unit), because=item.rule, line=item.line
            )
            for item in requirements_.items
        ),
        options=tuple(_option(option) for option in plan.options),
        chosen=chosen.name if chosen is not None else "none",
        runner_up=plan.runners_up[0].name if plan.runners_up else None,
        binding_constraint=_binding(plan),
        currency=plan.currency,
        price_source=chosen.price_source if chosen is not None else "",
        price_date=chosen.price_date if chosen is not None else "",
        monthly_cost=total,
        training_cost=training,
        budget=budget.amount if budget is not None else None,
        within_budget=plan.breach == "none",
        reasons=explain.words(plan),
        period=period,
    )


def _binding(plan: Plan) -> str:
    if plan.chosen is None:
        return "none: nothing was chosen"
    if plan.binding is None:
        return "none: letting go of any one requirement would not make it cheaper"
    return explain.binding(plan.binding, plan.currency)


def _option(option: Option) -> PlanOption:
    p99 = option.p99
    return PlanOption(
        name=option.name,
        provider=option.provider,
        region=option.region,
        cpus=option.vcpus,
        memory_gib=option.memory_gib,
        replicas=option.replicas or 0,
        monthly=option.cost.total.value if option.cost is not None else 0.0,
        p99_ms=None
        if p99 is None
        else msgspec.structs.replace(p99, value=p99.value * 1e3, low=p99.low * 1e3, high=p99.high * 1e3),
        machines=option.machines or 0,
        run_seconds=next((figure.estimate for figure in option.predicted if figure.name == "time of a run"), None),
        feasible=option.meets,
        reason=option.lost or "chosen",
    )


def preview(settings: Settings, loaded: Loaded) -> PlanReport:
    """The plan of a file and what a run would do. Changes nothing, also where there is no home yet."""
    from bedplate.app import flow  # flow needs this module

    home = Home(settings.home)
    measured = probe(home, keep=False)
    derived, plan = derive(loaded, measured, settings, known(settings))
    shown = report(derived, plan)
    if not loaded.use_case.data:
        return shown  # a plan is all that can be made before there is data
    if not (settings.database or home.database.is_file()):
        return msgspec.structs.replace(shown, stages=flow.first_run())
    opened = store.open(settings.database or home.database, read_only=True)
    try:
        context = Context(cast("System", Preview(settings, home, opened)), loaded, None, lambda event: None)
        return msgspec.structs.replace(shown, stages=flow.explain(context))
    finally:
        opened.close()


def compare(settings: Settings, loaded: Loaded, asked: Sequence[str]) -> Comparison:
    """The plan of a file beside what it would be with other values in it. Changes nothing.

    Raises:
        InputError: a path does not exist, or a value is not allowed there.
    """
    from bedplate.app import what_if

    measured = probe(Home(settings.home), keep=False)
    other, rows = what_if.changed(loaded, asked)
    before = known(settings)
    return comparing.compare(
        derive(loaded, measured, settings, before)[1], derive(other, measured, settings, before)[1], rows
    )


def together(settings: Settings, folder: Path, budget: str) -> Portfolio:
    """The use cases of a folder's folders on one budget, ``20000 USD`` a month, or on the sum of their own.

    Raises:
        InputError: there is none, the budget is no amount, or amounts are in several currencies.
    """
    paths = sorted(path.parent for path in folder.glob(f"*/{FILE_NAME}"))
    if not paths:
        raise InputError("no use case here", where=str(folder), fix="name a folder whose folders are use cases")
    measured, before = probe(Home(settings.home), keep=False), known(settings)
    made = []
    for path in paths:
        loaded = load(path)
        plan = derive(loaded, measured, settings, before)[1]
        made.append(portfolio.Entry(plan=plan, worth=worth(msgspec.to_builtins(loaded.use_case.objective.value))))
    return fund(made, budget)


def worth(value: Mapping[str, Any] | None) -> Money | None:
    """What a use case is worth a month by ``objective.value``; None where it does not say how many units."""
    if not value or not value.get("monthly"):
        return None
    each = value["per_unit"]
    return Money(amount=each["amount"] * value["monthly"], currency=each["currency"])


def fund(made: Sequence[portfolio.Entry], budget: str) -> Portfolio:
    """What to fund of several use cases with a budget a month, or with the sum of their own.

    Raises:
        InputError: the budget is no amount, or amounts are in several currencies.
    """
    own = [entry.plan.requirements.budget for entry in made if entry.plan.requirements.budget is not None]
    given = _amount(budget) if budget else None
    named = {money.currency for money in (*own, *(entry.worth for entry in made), given) if money is not None}
    if len(named | {catalogue.CURRENCY}) > 1:
        raise InputError(
            f"amounts are in {', '.join(sorted(named | {catalogue.CURRENCY}))}",
            where="budget",
            fix=f"prices are in {catalogue.CURRENCY}: state all so",
        )
    total = Money(amount=sum(money.amount for money in own), currency=catalogue.CURRENCY) if own else None
    return portfolio.choose(made, given or total)


def _amount(text: str) -> Money:
    try:
        amount, currency = quantities.parse_money(text)
    except quantities.QuantityError as error:
        raise InputError(str(error), where="--budget", fix=f"allowed: {error.allowed}") from None
    return Money(amount=amount, currency=currency)


class Preview:
    """As much of a system as explaining a run needs: it reads, owns nothing and writes nothing."""

    def __init__(self, settings: Settings, home: Home, opened: store.Store) -> None:
        self.settings = settings
        self.home = home
        self.store = opened
        self.policies = policies.load(opened)
        self.described: dict[str, object] = {}
