"""Serve what was approved; replay held-out weeks as traffic and look at what came of it; decide about retraining."""

import math
import os
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from bedplate import bundle as bundles
from bedplate import clock, ids
from bedplate.app import access, actuals, deidentified, endpoints, load, measure, planning, rollouts
from bedplate.app.inputs import section
from bedplate.app.stage import Context, Evidence, Halt, Outcome, Stage
from bedplate.app.stages import data
from bedplate.errors import UnavailableError
from bedplate.observe.replay import ReplayPlan, ReplayWindow, http_sender, replay
from bedplate.observe.ship import answered, ship
from bedplate.plan.types import Plan
from bedplate.records import (
    Bundle,
    Endpoint,
    Estimate,
    FeatureSet,
    LoadTest,
    Observation,
    Quota,
    ReplicaPrice,
    RetrainDecision,
    TableVersion,
    TrainResult,
)
from bedplate.release import line, rollout
from bedplate.retrain.decide import Signals
from bedplate.retrain.decide import decide as weigh
from bedplate.serve.scaling import Scale
from bedplate.serve.spec import ReplicaSpec
from bedplate.serve.state import columns_of
from bedplate.store.endpoints import EndpointRow
from bedplate.store.rollouts import RolloutRow

if TYPE_CHECKING:
    import pyarrow as pa

    from bedplate.app.system import System
    from bedplate.observe.drift import Reference

LOAD_SECONDS = 4.0
LOAD_CONNECTIONS = 1
"""One caller after the other: the latency of the model, not of a queue on a machine that the plan did not choose."""
REPLAY_ENTITIES = 300
"""Households (or rows) replayed in each part of the held-out time, unless ``monitor.replay`` says otherwise."""
REPLAY_PARTS = 4
"""Parts that the held-out time is replayed in; online features are brought up to date before each."""
PROTOCOL = "Open Inference Protocol V2, REST"
_SEAL_WITHIN = 30.0


# --------------------------------------------------------------------------------------------------------------- serve


def _serve_inputs(context: Context) -> dict[str, str]:
    let_in, logged = _rollout(context), deidentified.log_rules(context.system, context.loaded)
    return {
        **({} if logged is None else {"prediction log": ids.digest_of(logged.columns)}),
        "rollout": f"{let_in.id}: {let_in.state}" if let_in is not None else "",
        "approval": context.output("approve").digest,
        "serve": section(context, "serve"),
        "latency": ids.digest_of(context.use_case.requirements.latency),
        "features": context.output("features").digest,
        "price": ids.digest_of(_price(_plan(context))),
    }


def _plan(context: Context) -> Plan:
    """The plan, or the one that will be made where a run is only explained: it is derived the same way."""
    if "plan" in context.outputs:
        return context.body("plan", Plan)
    system, measured = context.system, planning.probe(context.system.home, keep=True)
    return planning.derive(context.loaded, measured, system.settings, planning.past(system.store))[1]


def _price(plan: Plan) -> ReplicaPrice | None:
    """What a replica costs an hour on the machines that the plan chose, each shared by as many as it put there."""
    chosen = plan.chosen
    if chosen is None or not chosen.machines or not chosen.replicas:
        return None
    machine = (
        chosen.instance if chosen.provider == "here" else f"{chosen.instance} of {chosen.provider}, {chosen.region},"
    )
    each = math.ceil(chosen.replicas / chosen.machines)
    return ReplicaPrice(
        hour=chosen.price_hour / each,
        currency=plan.currency,
        basis=f"{machine} at {chosen.price_hour:.4g} {plan.currency} an hour ({chosen.price_quality} price of "
        f"{chosen.price_date}), shared by {each} of the replicas planned",
    )


def _spec(context: Context) -> ReplicaSpec:
    system, use_case = context.system, context.use_case
    made = context.body("bundle", Bundle)
    return ReplicaSpec(
        name=use_case.name,
        use_case=use_case.name,
        bundle=bundles.path_of(system.home.bundles, made.digest),
        digest=made.digest,
        evidence=context.output("approve").digest,
        public_key=system.opened.signing_public,
        snapshot=system.home.run / "access.json",
        snapshot_key=system.home.keys / "access.pub",
        journal=endpoints.journal_of(system, use_case.name),
        online=system.online_location,
        mode="durable" if use_case.risk.level == "high" else use_case.serve.log,
        host=system.settings.host,
        port=use_case.serve.port or 0,
        threads=max(1, len(os.sched_getaffinity(0)) // max(use_case.serve.replicas.max, 1)),
        grpc=(use_case.serve.grpc_port or 0) if "grpc" in use_case.serve.protocol else None,
        budget=use_case.requirements.p99,
        price=_price(context.body("plan", Plan)),
        quota=msgspec.convert(msgspec.to_builtins(use_case.serve.quota), Quota),
        unit=use_case.serve.quota.count,
        scale=msgspec.convert(msgspec.to_builtins(use_case.serve.replicas), Scale),
        log=deidentified.log_rules(system, context.loaded),
    )


def _rollout(context: Context) -> RolloutRow | None:
    """The rollout of this very release, if it goes, or went, through one."""
    with context.system.store.read() as tx:
        row = tx.rollouts.latest(context.use_case.name)
    return row if row is not None and row.bundle == context.body("bundle", Bundle).digest else None


def _takes_steps(context: Context) -> EndpointRow | None:
    """What is served now, if this release takes its place step by step: only where somebody is being served."""
    if not context.system.serving or not rollout.plan_of(context.use_case).steps:
        return None
    with context.system.store.read() as tx:
        served = next((row for row in tx.endpoints.list() if row.name == context.use_case.name), None)
    made = context.body("bundle", Bundle)
    return served if served is not None and served.state == "running" and served.bundle != made.digest else None


def _let_in(context: Context, served: EndpointRow) -> Outcome:
    """Have the release begin its steps beside what is served, unless it has begun them."""
    system = context.system
    assert context.principal is not None, "a stage is run by somebody"
    if _rollout(context) is None:
        rollouts.begin(system, context.principal, served.name, _spec(context), rollout.plan_of(context.use_case))
    url = next(status.url for status in system.supervisor.status() if status.name == served.name)
    body = Endpoint(
        name=served.name, url=url, bundle=served.bundle, revision=served.revision, protocol=PROTOCOL, load=None
    )
    evidence = Evidence(kind="endpoint", body=body, parents=(context.output("approve").digest,))
    return Outcome(evidence=(evidence,), summary="it is being rolled out beside what is served")


def _under_way(context: Context) -> Halt | None:
    """A release that takes its steps, or that was rolled back, is not what answers: nothing is measured on it."""
    row = _rollout(context)
    if row is None or row.state == "completed":
        return None
    if row.state == "rolled_back":
        return Halt(state="refused", reason=f"rolled back: {row.reason}")
    return Halt(state="waiting", reason=f"it takes its steps: bedplate rollout status {row.endpoint}")


def _serve(context: Context) -> Outcome:
    system, use_case = context.system, context.use_case
    served = _takes_steps(context)
    if served is not None:
        return _let_in(context, served)
    training = context.body("train", TrainResult)
    moment = data.cut(context)
    if moment is not None:
        context.progress(f"online features as of {moment:%Y-%m-%d}")
        measure.fill(context, system.online_of(use_case.name), moment)
    spec = _spec(context)
    url = endpoints.start(system, spec)
    context.progress(f"load run on {url}")
    requests = [_body(training, given) for given in measure.sample(context, training, 400)]
    report = load.run(
        url,
        use_case.name,
        requests,
        seconds=LOAD_SECONDS,
        connections=LOAD_CONNECTIONS,
        key=system.token,
        limit_p99_ms=use_case.requirements.p99 * 1e3,
        least=load.ENOUGH,
    )
    assert context.principal is not None, "a stage is run by somebody"
    with system.store.transaction() as tx:
        line.serve(system.ledger, tx, context.principal, use_case.name, spec.digest, system.settings.environment)
        row = tx.endpoints.put(use_case.name, use_case=use_case.name, bundle=spec.digest, spec=endpoints.as_row(spec))
    body = Endpoint(
        name=use_case.name,
        url=url,
        bundle=spec.digest,
        revision=row.revision,
        protocol=PROTOCOL,
        load=msgspec.structs.replace(report, p99=_bounded(report), intervals=tuple(_closed(report))),
    )
    parents = (context.output("approve").digest, context.output("plan").digest, context.output("features").digest)
    held = actuals.of_release(
        context.body("plan", Plan), spec.digest, report, memory=_memory(system, use_case.name), at=clock.timestamp()
    )
    evidence = (
        Evidence(kind=actuals.KIND, body=held, parents=(context.output("plan").digest,)),
        Evidence(kind="endpoint", body=body, parents=parents),
    )
    return Outcome(evidence=evidence, summary=_served_as(body))


def _memory(system: "System", name: str) -> int:
    """Bytes that one replica of an endpoint takes; 0 where it is not known."""
    seen = next((status for status in system.supervisor.status() if status.name == name), None)
    return seen.memory // seen.ready if seen is not None and seen.ready else 0


def _bounded(report: LoadTest) -> Estimate:
    """The interval of the 99th percentile; one without an upper end ends at the slowest answer, and says so."""
    if math.isfinite(report.p99.high):
        return report.p99
    slowest = dict(report.percentiles)[1.0]
    return msgspec.structs.replace(report.p99, high=slowest, method="order statistics (open)")


def _closed(report: LoadTest) -> Iterator[tuple[float, Estimate]]:
    """The intervals that have an upper end: a fact holds no infinity, and so short a run has none for 99.9 %."""
    return (each for each in report.intervals if math.isfinite(each[1].high))


def tensors(training: TrainResult, given: dict[str, Any]) -> list[dict[str, Any]]:
    """One request's input tensors, in the words of the Open Inference Protocol."""
    found = []
    for spec in training.signature.inputs:
        value = given[spec.name]
        shape = [len(value)] + [1] * (len(spec.shape) - 1)
        found.append({"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": value})
    return found


def _body(training: TrainResult, given: dict[str, Any]) -> dict[str, Any]:
    return {"inputs": tensors(training, given), "parameters": {"replayed": True}}


def _served_as(endpoint: Endpoint) -> str:
    return f"{endpoint.url}/v2/models/{endpoint.name}, {_latency(endpoint.load)}" if endpoint.load else endpoint.url


def _latency(report: LoadTest) -> str:
    verdict = "meets" if report.met else "MISSES"
    return (
        f"p99 {report.p99.value:.1f} ms [{report.p99.low:.1f}, {report.p99.high:.1f}] {verdict} "
        f"{report.limit_p99_ms:g} ms at {report.rate:,.0f}/s, {report.failed} of {report.requests:,} failed"
    )


def _keep_serving(context: Context) -> None:
    """What should be served, up again if this owner is not serving it yet."""
    with context.system.store.read() as tx:
        row = tx.endpoints.get(context.use_case.name)
    endpoints.start(context.system, endpoints.spec_of(row))


SERVE = Stage(
    name="serve",
    title="Serve it, and measure it",
    needs=("features", "approve"),
    inputs=_serve_inputs,
    run=_serve,
    summarise=lambda context: _served_as(context.body("serve", Endpoint)),
    halts=_under_way,
    resume=lambda context: _keep_serving(context) if context.system.serving else None,
)


# ------------------------------------------------------------------------------------------------------------- observe


def _observe_inputs(context: Context) -> dict[str, str]:
    return {
        "endpoint": context.output("serve").digest,
        "monitor": section(context, "monitor"),
        "alerts": section(context, "alerts"),
    }


def _observe(context: Context) -> Outcome:
    from bedplate.observe.report import observe

    system, use_case = context.system, context.use_case
    name = use_case.name
    table = access.predictions_table(name)
    journal = endpoints.journal_of(system, name)
    _keep_serving(context)
    plan, refresh = _replay_plan(context)
    already = answered(journal, system.tables, table)
    endpoint = context.body("serve", Endpoint)
    with httpx.Client(timeout=30.0, trust_env=False) as client:
        send = http_sender(client, _url(context, endpoint), name, system.token)
        replay(plan, send, context.progress, already, before_window=refresh)
    shipped = _ship_all(context, journal, table, set(plan.moments()))
    outcomes = use_case.monitor.outcomes
    observed = observe(
        tables=system.tables,
        table=shipped,
        endpoint=name,
        bundle=context.body("bundle", Bundle).digest,
        outcomes=_outcomes(context) if outcomes is not None else None,
        within=outcomes.within if outcomes is not None else 0.0,
        reference=_reference(context) if use_case.monitor.drift == "default" else None,
        moments=plan.moments(),
    )
    parents = (context.output("serve").digest, context.output("ingest").digest)
    evidence = Evidence(kind="observation", body=observed.observation, parents=parents)
    return Outcome(evidence=(evidence,), summary=_seen(observed.observation))


def _url(context: Context, endpoint: Endpoint) -> str:
    running = {row.name: row.url for row in context.system.supervisor.status()}
    return running.get(endpoint.name, endpoint.url)


def _replay_plan(context: Context) -> tuple[ReplayPlan, Any]:
    """What to send, and what brings online features to a window's moment."""
    training = context.body("train", TrainResult)
    count = context.use_case.monitor.replay or REPLAY_ENTITIES
    digest = context.body("bundle", Bundle).digest
    moment, held_out = data.cut(context), data.holdout(context)
    if moment is None or held_out is None:
        given = measure.sample(context, training, count)
        made = {str(i): tensors(training, row) for i, row in enumerate(given)}
        window = ReplayWindow(as_of=context.output("ingest").created, inputs=made)
        return ReplayPlan(use_case=context.use_case.name, bundle=digest, windows=(window,)), None
    moments = tuple(moment + i * held_out / REPLAY_PARTS for i in range(REPLAY_PARTS))
    context.progress(f"features at {len(moments)} moments of the held-out time")
    later = data.compute(context, moments, "replay")
    windows = []
    for part in moments:
        asked = measure.asked(context, training, part, part + held_out / REPLAY_PARTS, later)
        made = {name: tensors(training, given) for name, given in measure.spread(asked, count)}
        windows.append(ReplayWindow(as_of=part.isoformat(), inputs=made))
    plan = ReplayPlan(use_case=context.use_case.name, bundle=digest, windows=tuple(windows))
    online = context.system.online_of(context.use_case.name)
    return plan, lambda as_of: measure.fill(context, online, datetime.fromisoformat(as_of), later)


def _ship_all(context: Context, journal: Any, table: str, wanted: set[str]) -> TableVersion:
    """Ship sealed segments until every replayed prediction lies in the table.

    Raises:
        UnavailableError: the replica did not seal its log in time.
    """
    system, name = context.system, context.use_case.name
    record = endpoints.recorder(system, context.use_case.governance.purpose)
    deadline = time.monotonic() + _SEAL_WITHIN
    while True:
        system.supervisor.seal(name)
        time.sleep(0.2)
        report = ship(journal, system.tables, table, on_segment=record)
        if report.table is not None:
            asked = set()
            for batch in system.tables.scan(report.table, ["request_id"]):
                asked.update(batch.column(0).to_pylist())
            if wanted <= asked:
                return report.table
        if time.monotonic() > deadline:
            raise UnavailableError(
                "predictions are still in the log of the replica", where=str(journal), fix="run again: it carries on"
            )


def _outcomes(context: Context) -> "pa.Table | None":
    """What happened later: entity, item and time of each line of the data that outcomes come from."""
    import pyarrow as pa

    use_case = context.use_case
    if not data.views(context):
        return None
    times = data.time_columns(context)
    outcomes = use_case.monitor.outcomes
    name = outcomes.data if outcomes is not None and outcomes.data else next(iter(times))
    entity = next(view.entity for view in data.views(context) if len(view.entity) == 2)
    version = data.ingested(context)[name].table
    rows = access.reader(context.system, use_case).read(version, [*entity, times[name]]).read_all()
    return pa.table({"entity": rows[entity[0]].cast(pa.string()), "item": rows[entity[1]], "time": rows[times[name]]})


def _reference(context: Context) -> "Reference | None":
    """The features that training saw, one block per moment: what differs from moment to moment is not drift."""
    from bedplate.observe import drift

    moment = data.cut(context)
    if moment is None:
        return None
    made = context.body("features", FeatureSet)
    moments = [datetime.fromisoformat(text) for text in made.as_of]
    tables = []
    for part in moments:
        entity, table = measure.subjects(context, context.body("train", TrainResult), part)
        tables.append([table.select(columns_of(table, (entity,)))])
    return drift.reference(lambda: tables)


def _seen(observation: Observation) -> str:
    matched = observation.matched
    drifted = [finding.feature for finding in observation.drift if finding.alarm]
    told = (
        f"drift in {', '.join(drifted)}" if drifted else "no drift alarm" if observation.drift else "drift not watched"
    )
    kind = "replayed predictions" if observation.replayed else "predictions"
    if not observation.with_outcome:
        return f"{observation.predictions:,} {kind}, {told}"
    return (
        f"{observation.predictions:,} {kind}, {matched.value:.1%} [{matched.low:.1%}, {matched.high:.1%}] "
        f"with a matched purchase, {told}"
    )


OBSERVE = Stage(
    name="observe",
    title="Replay held-out weeks and watch",
    needs=("ingest", "features", "serve"),
    inputs=_observe_inputs,
    run=_observe,
    summarise=lambda context: _seen(context.body("observe", Observation)),
)


# -------------------------------------------------------------------------------------------------------------- decide


def _decide_inputs(context: Context) -> dict[str, str]:
    return {
        "observation": context.output("observe").digest,
        "retrain": section(context, "retrain"),
        "budget": ids.digest_of(context.use_case.requirements.budget),
        "plan": context.output("plan").digest,
    }


def _decide(context: Context) -> Outcome:
    observation = context.body("observe", Observation)
    plan = context.body("plan", Plan)
    budget = context.use_case.requirements.budget
    trained = clock.parse(context.output("train").created)
    cost = plan.chosen.cost.retraining.value if plan.chosen is not None and plan.chosen.cost is not None else None
    signals = Signals(
        drift_alarm=observation.drift_alarm if observation.reference else None,
        drift_evidence=observation.drift_evidence,
        drifted=tuple(finding.feature for finding in observation.drift if finding.alarm),
        new_rows=0,  # everything that was ingested was there when it was trained
        age=(clock.now() - trained).total_seconds(),
        cost=cost,
        budget=budget.training_run.amount if budget is not None and budget.training_run is not None else None,
        currency=plan.currency,
        replayed=observation.replayed,
    )
    body = weigh(context.use_case.retrain, signals)
    parents = (context.output("observe").digest, context.output("plan").digest)
    return Outcome(evidence=(Evidence(kind="retrain", body=body, parents=parents),), summary=_decided(body))


def _decided(decision: RetrainDecision) -> str:
    return f"{'retrain' if decision.retrain else 'keep the model'}: {decision.reason}"


DECIDE = Stage(
    name="decide",
    title="Decide about retraining",
    needs=("observe",),
    inputs=_decide_inputs,
    run=_decide,
    summarise=lambda context: _decided(context.body("decide", RetrainDecision)),
)
