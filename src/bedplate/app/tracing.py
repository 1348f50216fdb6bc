"""The line from one prediction back to the objective: every digest on it is computed again."""

from collections.abc import Iterator
from typing import Any

import msgspec

from bedplate import bundle as bundles
from bedplate.app import access
from bedplate.app.read_models import Trace, TraceNode
from bedplate.app.system import System
from bedplate.errors import BedplateError, DeniedError, IntegrityError, NotFoundError
from bedplate.identity import Principal, policy_principal
from bedplate.ids import Digest, digest_of, is_digest
from bedplate.policy import values as policy
from bedplate.records import Bundle, Exposure, Fact, Governance, IngestResult, Objective, Prediction
from bedplate.store import facts

ORDER = ("approval", "bundle", "gates", "training", "features", "dataset", "data", "plan", "requirements", "objective")
"""The kinds of evidence on the way, nearest to the prediction first."""

TITLES = {
    "approval": "Approved for its environment",
    "bundle": "Model version",
    "gates": "Gates",
    "training": "Training",
    "features": "Features, point in time",
    "dataset": "Data under contract",
    "data": "Data",
    "plan": "Plan",
    "requirements": "Requirements",
    "objective": "Objective",
}


def trace(system: System, principal: Principal, prediction_id: str, purpose: str | None = None) -> Trace:
    """Find a prediction and walk it back, for the purpose of its use case unless another one is given.

    Looking for it reads the predictions of each use case in turn, as the principal may see them: each such read stands
    in the ledger, allowed or denied.

    Raises:
        NotFoundError: no use case has a prediction of that id.
        DeniedError: policy does not allow to look at it, or at the predictions of a use case that may have it.
    """
    from bedplate.observe.ship import find

    if is_digest(prediction_id):
        return _scored(system, principal, Digest(prediction_id))
    with system.store.read() as tx:
        names = [row.name for row in tx.use_cases.list()]
    denied: DeniedError | None = None
    for name in names:
        try:
            version = system.tables.current(access.predictions_table(name))
            with system.store.read() as tx:
                governance = access.governance(tx, name)
            rows = access.reader_for(system, name, governance, policy_principal(principal), purpose)
            prediction = find(rows, version, prediction_id)
        except NotFoundError:
            continue
        except DeniedError as error:
            denied = error
            continue
        decision = access.demand(system, principal, "read", policy.use_case(name))
        with system.store.transaction() as tx:
            system.ledger.record(
                tx,
                actor=principal.id,
                action="prediction.read",
                resource=f"prediction/{prediction_id}",
                policies=decision.policies,
                auth=principal.auth,
            )
        return walk(system, prediction, _withheld(prediction, governance))
    if denied is not None:
        raise denied
    raise NotFoundError(
        f"no prediction {prediction_id!r} in this home",
        fix="take an id from an answer of its endpoints (x-prediction-id) or from the page of the use case",
    )


def _scored(system: System, principal: Principal, digest: Digest) -> Trace:
    """The line of the rows that one scoring of a table made."""
    with system.store.read() as tx:
        fact = tx.facts.get(digest)
    if fact.kind != "scoring":
        raise NotFoundError(f"{digest} is no scoring", fix="take the digest from the column scoring of a scored table")
    access.demand(system, principal, "read", policy.use_case(fact.use_case))
    asked = fact.body
    made = system.tables.made_by(asked["to"], digest)
    again = facts.digest_of(fact.kind, fact.use_case, fact.parents, asked)
    written = f"{made.rows:,} rows in {made.name}@{made.version}" if made else "nothing was written"
    first = TraceNode(
        kind="scoring",
        title="Scored table",
        summary=f"{written}, from {asked['source']['name']}@{asked['source']['version']} for {asked['purpose']}",
        digest=digest,
        verified=again == digest and made is not None,
        created=fact.created,
        where=asked["endpoint"],
        details=asked,
    )
    return _line(system, first, digest, fact.use_case, fact.parents[0], asked["bundle"])


def _withheld(prediction: Prediction, governance: Governance) -> tuple[str, ...]:
    """The sensitive values that the prediction has, and does not show to who asked."""
    shown = (prediction.inputs, prediction.features, prediction.outputs)
    return tuple(name for name in governance.hidden if any(name in part and part[name] is None for part in shown))


def walk(system: System, prediction: Prediction, withheld: tuple[str, ...] = ()) -> Trace:
    """The line of a prediction: itself, then every fact that it rests on, nearest first."""
    first = _prediction(prediction, withheld)
    return _line(system, first, prediction.id, prediction.use_case, prediction.evidence, prediction.bundle)


def _line(system: System, first: TraceNode, name: str, use_case: str, evidence: Digest, bundle: Digest) -> Trace:
    """What ``first`` rests on: the approval ``evidence``, and everything under it."""
    nodes = [first]
    with system.store.read() as tx:
        approval = tx.facts.get(evidence)
        found = [approval, *tx.facts.ancestors(evidence)]
    by_kind: dict[str, list[Fact]] = {}
    for fact in found:
        by_kind.setdefault(fact.kind, []).append(fact)
    for kind in ORDER:
        nodes.extend(_fact(system, bundle, fact) for fact in by_kind.get(kind, ()))
    missing = [kind for kind in ("approval", "bundle", "gates", "training", "plan", "objective") if kind not in by_kind]
    nodes.extend(
        TraceNode(kind=kind, title=TITLES[kind], summary="not found on the line", digest="", verified=False)
        for kind in missing
    )
    return Trace(
        prediction_id=name, use_case=use_case, nodes=tuple(nodes), verified=all(node.verified for node in nodes)
    )


def _prediction(prediction: Prediction, withheld: tuple[str, ...]) -> TraceNode:
    replayed = ", replayed" if prediction.replayed else ""
    hidden = f"; withheld: {', '.join(withheld)}" if withheld else ""
    assigned = f", {_assigned(prediction.exposure)}" if prediction.exposure is not None else ""
    return TraceNode(
        kind="prediction",
        title="Prediction",
        summary=f"for {prediction.entity or 'one row'} in {prediction.latency_ms:.1f} ms{replayed}{assigned}{hidden}",
        digest=digest_of(prediction),
        verified=True,  # its page checksums were verified as the row was read
        created=prediction.time,
        where=prediction.endpoint,
        details=msgspec.to_builtins(prediction),
    )


def _assigned(exposure: Exposure) -> str:
    """What a rollout had to do with a prediction; its bundle says which release answered."""
    if exposure.mode == "shadow":
        return f"in a shadow step of {exposure.rollout}"
    share = f"{100 * exposure.share:.3g}% of the requests were the candidate's"
    return f"assigned to the {exposure.assigned} release by {exposure.rollout} when {share}"


def _fact(system: System, bundle: Digest, fact: Fact) -> TraceNode:
    """One fact: its digest over kind, use case, parents and body, and whatever else it names, computed again."""
    body: dict[str, Any] = fact.body
    again = digest_of({"kind": fact.kind, "use_case": fact.use_case, "parents": list(fact.parents), "body": fact.body})
    problem = "" if again == fact.digest else "what is stored is not what the digest covers"
    where = ""
    if not problem and fact.kind == "bundle":
        problem, where = _bundle(system, bundle, msgspec.convert(body, Bundle))
    if not problem and fact.kind == "dataset":
        problem, where = _table(system, msgspec.convert(body, IngestResult))
    if fact.kind == "objective":
        objective = msgspec.convert(body, Objective)
        where = f"{objective.file}:{objective.line}"
    return TraceNode(
        kind=fact.kind,
        title=TITLES[fact.kind],
        summary=problem or " ".join(_sentence(fact.kind, body)),
        digest=fact.digest,
        verified=not problem,
        created=fact.created,
        where=where,
        details=body,
    )


def _bundle(system: System, bundle: Digest, made: Bundle) -> tuple[str, str]:
    """What is wrong with the bundle on disk, if anything, and where it lies."""
    if bundle != made.digest:
        return "the prediction came from another bundle", ""
    folder = bundles.path_of(system.home.bundles, made.digest)
    try:
        bundles.verify(folder, public_key=system.opened.signing_public, digest=Digest(made.digest))
    except BedplateError as error:
        return error.message, str(folder)
    return "", str(folder)


def _table(system: System, ingested: IngestResult) -> tuple[str, str]:
    where = f"{ingested.table.name}, version {ingested.table.version}"
    try:
        system.tables.files(ingested.table)
    except (IntegrityError, NotFoundError) as error:
        return error.message, where
    return "", where


def _sentence(kind: str, body: dict[str, Any]) -> Iterator[str]:
    match kind:
        case "approval":
            yield f"{body['environment']}: {body['state']}, {body['reason']}"
        case "bundle":
            yield f"{body['name']} version {body['version']}, {body['size'] / 1e6:.1f} MB, signature holds"
        case "gates":
            yield str(body["summary"])
        case "training":
            yield f"run {body['run_id']}, {body['workload']}, seed {body['seed']}, {body['seconds']:.0f} s"
        case "features":
            yield f"{len(body['views'])} views at {len(body['as_of'])} moments"
        case "dataset":
            yield f"{body['dataset']}: {body['accepted']:,} rows under {body['contract']},"
            yield f"{body['rejected']:,} rejected"
        case "data":
            yield f"{len(body['datasets'])} data sets"
        case "plan":
            chosen = body.get("chosen") or {}
            yield from (chosen.get("provider", ""), chosen.get("instance", "no option"), chosen.get("region", ""))
        case "requirements":
            yield f"{len(body['items'])} requirements, each with its line"
        case "objective":
            yield str(body["statement"])
