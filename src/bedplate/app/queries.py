"""Read models from the store: what the command line, the API and the pages show. Nothing here changes anything."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from bedplate import store as stores
from bedplate import usecase
from bedplate.app import access
from bedplate.app.plan_models import Account
from bedplate.app.read_models import (
    STAGES,
    AuditPage,
    EndpointStatus,
    Evidence,
    LedgerEntry,
    PlanReport,
    Release,
    StageState,
    Stamped,
    Standing,
    Status,
    UseCasePage,
    UseCaseStatus,
)
from bedplate.errors import DeniedError, NotFoundError
from bedplate.identity import Principal
from bedplate.ids import Digest
from bedplate.ledger import Entry
from bedplate.plan.portfolio import Portfolio
from bedplate.plan.types import Plan, Requirements
from bedplate.records import (
    Approval,
    Bundle,
    Endpoint,
    Fact,
    FeatureSet,
    GateReport,
    IngestResult,
    Objective,
    Observation,
    RetrainDecision,
    TrainResult,
)
from bedplate.settings import Home, Settings
from bedplate.store import Store, Transaction
from bedplate.store.endpoints import EndpointRow
from bedplate.store.executions import ExecutionRow
from bedplate.store.ledger import EntryRow
from bedplate.store.use_cases import UseCaseRow
from bedplate.usecase import Loaded
from bedplate.workflow import owner

T = TypeVar("T")
Live = Mapping[str, EndpointStatus]
"""What the supervisor says about running endpoints, by name; only the owner of a home knows it."""

HISTORY = 20
"""How many training runs, releases and observations a page lists."""
_TRAININGS = 200
"""Trainings of a use case among which one run is looked for, newest first."""
LEDGER = 15
"""How many ledger entries the page of a use case shows."""


@contextmanager
def reading(settings: Settings) -> Iterator[Transaction]:
    """The state of a home as of one moment. Needs no owner.

    Raises:
        NotFoundError: there is no home.
    """
    home = Home(settings.home)
    if not settings.database and not home.database.is_file():
        raise NotFoundError("there is no home here", where=str(home.root), fix="run a use case first, or give --home")
    opened = stores.open(settings.database or home.database, read_only=True)
    try:
        with opened.read() as tx:
            yield tx
    finally:
        opened.close()


def status(settings: Settings, live: Live | None = None) -> Status:
    """What the home is doing now. Needs no owner; without one, no endpoint is up."""
    home = Home(settings.home)
    holder = owner.current(home)
    database = settings.database or home.database
    if not settings.database and not home.database.is_file():
        return Status(home=str(home.root), owner=None, since=None, address=None, use_cases=(), endpoints=())
    opened = stores.open(database, read_only=True)
    try:
        with opened.read() as tx:
            rows = [use_case_status(tx, row) for row in tx.use_cases.list()]
            endpoints = tuple(_endpoint(row, live or {}) for row in tx.endpoints.list())
            running = tx.executions.running() if holder else []
    finally:
        opened.close()
    return Status(
        home=str(home.root),
        owner=holder.pid if holder else None,
        since=holder.since if holder else None,
        address=_address(home) if holder else None,
        use_cases=tuple(rows),
        endpoints=endpoints,
        running=f"{running[0].use_case}: {running[0].stage}" if running else None,
    )


def _address(home: Home) -> str | None:
    """Where API and pages answer; the owner writes it down when they do."""
    try:
        return (home.run / "address").read_text("ascii").strip() or None
    except OSError:
        return None


def use_cases(opened: Store) -> tuple[UseCaseStatus, ...]:
    """All use cases, the one changed last first."""
    with opened.read() as tx:
        rows = [use_case_status(tx, row) for row in tx.use_cases.list()]
    return tuple(sorted(rows, key=lambda row: row.updated, reverse=True))


def use_case_page(opened: Store, name: str, principal: Principal, live: Live | None = None) -> UseCasePage:
    """Everything the page of one use case shows to somebody.

    Raises:
        NotFoundError: there is no such use case.
    """
    with opened.read() as tx:
        row = tx.use_cases.get(name)
        endpoint = next((e for e in tx.endpoints.list() if e.use_case == name), None)
        execution = tx.executions.latest(name)
        return UseCasePage(
            status=use_case_status(tx, row),
            stages=_stages(tx, name, execution),
            evidence=evidence(tx, name, access.kept_in(tx, name, principal)),
            trainings=_history(tx, name, "training", TrainResult),
            releases=_releases(tx, name),
            observations=_history(tx, name, "observation", Observation),
            endpoint=_endpoint(endpoint, live or {}) if endpoint else None,
            ledger=tuple(_entry(entry) for entry in tx.ledger.recent(LEDGER, resource=f"use_case/{name}")),
            sample_predictions=_traced(tx, name),
            account=_account(tx, row, principal),
        )


def evidence(tx: Transaction, name: str, kept_in: tuple[str, ...] = ()) -> Evidence:
    """The latest fact of each kind, without those of the data sets ``kept_in``."""
    datasets: dict[str, Stamped[IngestResult]] = {}
    for item in _history(tx, name, "dataset", IngestResult, 200):
        datasets.setdefault(item.body.dataset, item)
    return Evidence(
        objective=_latest(tx, name, "objective", Objective),
        plan=_plan(tx, name),
        datasets=tuple(
            sorted((d for name, d in datasets.items() if name not in kept_in), key=lambda item: -item.body.read)
        ),
        kept_in=tuple(name for name in datasets if name in kept_in),
        features=_latest(tx, name, "features", FeatureSet),
        training=_latest(tx, name, "training", TrainResult),
        gates=_latest(tx, name, "gates", GateReport),
        bundle=_latest(tx, name, "bundle", Bundle),
        approval=_latest(tx, name, "approval", Approval),
        endpoint=_latest(tx, name, "endpoint", Endpoint),
        observation=_latest(tx, name, "observation", Observation),
        retrain=_latest(tx, name, "retrain", RetrainDecision),
    )


def fact(opened: Store, digest: Digest) -> Fact:
    """One piece of evidence.

    Raises:
        NotFoundError: there is none of this digest.
    """
    with opened.read() as tx:
        return tx.facts.get(digest)


def counted(opened: Store, fact: Fact, principal: Principal) -> None:
    """Keep a fact from somebody that counts rows which row policies keep in from them.

    Raises:
        DeniedError: it does.
    """
    if fact.kind not in ("dataset", "actual"):
        return
    with opened.read() as tx:
        kept_in = access.kept_in(tx, fact.use_case, principal)
        if kept_in and fact.body.get("requests") is not None:
            raise DeniedError(
                "row policies keep rows in from you, so it is not told how many requests there were",
                where=fact.digest,
                fix="ask for the right to see every row",
            )
        if fact.body.get("dataset") in kept_in:
            raise DeniedError(
                f"row policies keep rows of {fact.body['dataset']} in from you, so it is not told how many there are",
                where=fact.digest,
                fix="ask for the right to see every row",
            )


def loaded(opened: Store, name: str) -> Loaded:
    """A use case as its file stands in its folder now.

    Raises:
        NotFoundError: there is no such use case.
        UseCaseError: the file cannot be used.
    """
    with opened.read() as tx:
        row = tx.use_cases.get(name)
    return usecase.load(Path(row.folder) / row.file, check_files=False)


def plan(opened: Store, name: str) -> PlanReport:
    """The latest plan of a use case.

    Raises:
        NotFoundError: it has none.
    """
    with opened.read() as tx:
        found = _plan(tx, tx.use_cases.get(name).name)
    if found is None:
        raise NotFoundError(f"{name} has no plan yet", fix="run `bedplate plan` on its folder")
    return found.body


def plots(opened: Store, name: str) -> str:
    """The options of the latest plan of a use case by cost, time and carbon, as HTML; empty before there is a plan."""
    from bedplate.app import plan_page

    with opened.read() as tx:
        found = tx.facts.latest(name, "plan")
    return "" if found is None else "".join(plan_page.plots(msgspec.convert(found.body, Plan), heading="h3"))


def portfolio(opened: Store, names: Sequence[str], budget: str) -> Portfolio:
    """What to fund of these use cases, by the latest plan of each.

    Raises:
        InputError: the budget is no amount, or amounts are in several currencies.
    """
    from bedplate.app import planning
    from bedplate.plan.portfolio import Entry

    made = []
    with opened.read() as tx:
        for name in names:
            found = tx.facts.latest(name, "plan")
            if found is not None:
                value = msgspec.convert(tx.facts.get(tx.use_cases.get(name).objective).body, Objective).value
                made.append(Entry(plan=msgspec.convert(found.body, Plan), worth=planning.worth(value)))
    return planning.fund(made, budget)


def audit(opened: Store, before: int | None = None, limit: int = 50) -> AuditPage:
    """A page of the ledger: ``limit`` entries that came before entry ``before``, newest first."""
    with opened.read() as tx:
        size, _ = tx.ledger.head()
        end = size if before is None else max(0, min(before, size))
        rows = list(tx.ledger.entries(max(0, end - limit), end))
        signed = tx.ledger.checkpoint()
    note = signed[1] if signed else ""
    lines = note.splitlines()
    return AuditPage(
        size=size,
        root=lines[2] if len(lines) > 2 else "",
        checkpoint=note,
        entries=tuple(_entry(row) for row in reversed(rows)),
    )


def use_case_status(tx: Transaction, row: UseCaseRow) -> UseCaseStatus:
    """One use case in a line: where it stands, and what it waits for."""
    objective = msgspec.convert(tx.facts.get(row.objective).body, Objective)
    execution = tx.executions.latest(row.name)
    gates = _latest(tx, row.name, "gates", GateReport)
    releases = _releases(tx, row.name)
    endpoint = next((e for e in tx.endpoints.list() if e.use_case == row.name), None)
    version = releases[0].bundle.body.version if releases else None
    waiting = (releases[0].waiting_in or "") if releases else ""
    live, serving = _serving(tx, endpoint, releases)
    state, sentence = _standing(execution, gates, version, waiting, serving)
    if state == "new" and _latest(tx, row.name, "training", TrainResult) is not None:
        state, sentence = "trained", "A model is trained; its gates have not been asked yet."
    team = objective.owner.get("team", "")
    return UseCaseStatus(
        name=row.name,
        statement=objective.statement,
        owner=f"{objective.owner.get('accountable', '')} ({team})" if team else objective.owner.get("accountable", ""),
        risk=objective.risk or "not stated",
        state=state,
        sentence=sentence,
        updated=execution.ended or execution.started if execution else row.updated,
        kpi=objective.kpi,
        version=live if state == "served" else version,
        waiting_for=waiting,
    )


def _serving(tx: Transaction, endpoint: EndpointRow | None, releases: tuple[Release, ...]) -> tuple[int | None, str]:
    """The version that answers, and in words with what is on its way in; no words where nothing is served."""
    if endpoint is None or endpoint.state != "running":
        return None, ""
    versions = {release.bundle.body.digest: release.bundle.body.version for release in releases}
    live = versions.get(endpoint.bundle)
    says = f"Version {live} is serving" if live is not None else "Serving"
    rollout = tx.rollouts.latest(endpoint.name)
    if rollout is not None and rollout.state in ("running", "frozen"):
        coming = versions.get(rollout.bundle)
        says += f"; {f'version {coming}' if coming is not None else 'another release'} is on its way in"
        says += ", frozen" if rollout.state == "frozen" else ""
    return live, f"{says}."


def _standing(
    execution: ExecutionRow | None, gates: Stamped[GateReport] | None, version: int | None, waiting: str, serving: str
) -> tuple[Standing, str]:
    if execution is not None and execution.state == "running":
        return "running", f"Running: {execution.stage or 'starting'}."
    if execution is not None and execution.state == "failed":
        return "failed", f"Stopped in {execution.stage}: {execution.message}"
    if gates is not None and not gates.body.passed:
        return "refused", f"A gate refused the newest model: {gates.body.summary}"
    if waiting:
        return "waiting", f"Version {version} waits for approval in {waiting}."
    if serving:
        return "served", serving
    if version is not None:
        return "trained", f"Version {version} is ready and not served."
    return "new", "Checked; no model has been trained yet."


def _stages(tx: Transaction, name: str, execution: ExecutionRow | None) -> tuple[StageState, ...]:
    rows = tx.stages.all_latest(name)
    states = []
    for stage in STAGES:
        row = rows.get(stage)
        at_work = execution is not None and execution.stage == stage
        if at_work and execution is not None and execution.state in ("running", "failed"):
            message = execution.message
            states.append(StageState(stage=stage, state=execution.state, summary=message))
        elif row is None:
            states.append(StageState(stage=stage, state="pending", summary="not done yet"))
        else:
            states.append(
                StageState(
                    stage=stage,
                    state="finished",
                    summary=f"finished in {row.seconds:.1f} s",
                    seconds=row.seconds,
                    finished=row.finished,
                    output=row.output,
                )
            )
    return tuple(states)


def _releases(tx: Transaction, name: str) -> tuple[Release, ...]:
    approvals = _history(tx, name, "approval", Approval, 200)
    releases = []
    for bundle in _history(tx, name, "bundle", Bundle):
        about: dict[str, Stamped[Approval]] = {}
        for item in approvals:  # newest first: the last word about an environment counts
            if item.body.bundle in (bundle.body.digest, bundle.digest):
                about.setdefault(item.body.environment, item)
        waiting = next((e for e, item in about.items() if item.body.state == "waiting"), None)
        gates = _gates_of(tx, bundle.digest)
        releases.append(Release(bundle=bundle, gates=gates, approvals=tuple(about.values()), waiting_in=waiting))
    return tuple(releases)


def _gates_of(tx: Transaction, bundle: Digest) -> Stamped[GateReport] | None:
    gates = [item for item in tx.facts.ancestors(bundle) if item.kind == "gates"]
    return _stamp(gates[-1], GateReport) if gates else None


def _plan(tx: Transaction, name: str) -> Stamped[PlanReport] | None:
    found = tx.facts.latest(name, "plan")
    if found is None:
        return None
    beside = [tx.facts.get(parent) for parent in found.parents]
    requirements = next((item for item in beside if item.kind == "requirements"), None)
    if requirements is None:
        return None
    from bedplate.app import planning  # it reads files and measures: most pages have no plan to convert

    report = planning.report(msgspec.convert(requirements.body, Requirements), msgspec.convert(found.body, Plan))
    return Stamped(digest=found.digest, created=found.created, body=report)


def _account(tx: Transaction, row: UseCaseRow, principal: Principal) -> Account:
    from bedplate.app import actuals

    planned = tx.facts.latest(row.name, "plan")
    plan = msgspec.convert(planned.body, Plan) if planned is not None else None
    value = msgspec.convert(tx.facts.get(row.objective).body, Objective).value
    return actuals.account(tx, row.name, plan, value, counts=not access.kept_in(tx, row.name, principal))


def _traced(tx: Transaction, name: str) -> tuple[str, ...]:
    found = tx.facts.latest(name, "trace")
    known = found.body.get("prediction_id") if found is not None else None
    return (str(known),) if known else ()


def _endpoint(row: EndpointRow, live: Live) -> EndpointStatus:
    known = live.get(row.name)
    if known is not None:
        return known
    return EndpointStatus(
        name=row.name,
        use_case=row.use_case,
        url=str(row.spec.get("url", "")),
        state="stopped",
        bundle=row.bundle,
        revision=row.revision,
    )


def _entry(row: EntryRow) -> LedgerEntry:
    entry = msgspec.json.decode(row.entry, type=Entry)
    return LedgerEntry(
        index=entry.index,
        time=entry.time,
        actor=entry.actor,
        action=entry.action,
        resource=entry.resource,
        decision=entry.decision,
        policies=entry.policies,
        purpose=entry.purpose,
        hash=row.leaf.hex(),
    )


def training_of(tx: Transaction, use_case: str, run: str) -> Fact | None:
    """The training that a run was, among the newest of its use case."""
    found = tx.facts.list(use_case, "training", _TRAININGS)
    return next((fact for fact in found if fact.body.get("run_id") == run), None)


def _latest(tx: Transaction, name: str, kind: str, body: type[T]) -> Stamped[T] | None:
    found = tx.facts.latest(name, kind)
    return None if found is None else _stamp(found, body)


def _history(tx: Transaction, name: str, kind: str, body: type[T], limit: int = HISTORY) -> tuple[Stamped[T], ...]:
    return tuple(_stamp(item, body) for item in tx.facts.list(name, kind, limit))


def _stamp(found: Fact, body: type[T]) -> Stamped[T]:
    return Stamped(digest=found.digest, created=found.created, body=msgspec.convert(found.body, body))
