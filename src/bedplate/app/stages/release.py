"""Gates from the file, a signed bundle, and whoever must agree to it."""

import tempfile
from pathlib import Path

from bedplate import bundle as bundles
from bedplate import ids, store
from bedplate.app import access, decisions
from bedplate.app.inputs import section
from bedplate.app.measure import latency
from bedplate.app.stage import Context, Evidence, Halt, Outcome, Stage
from bedplate.errors import IntegrityError
from bedplate.ids import Digest
from bedplate.policy import values as policy
from bedplate.records import Approval, Bundle, Fact, GateReport, TrainResult
from bedplate.release import approval as approvals
from bedplate.release import gates, line, requests
from bedplate.release.package import Version, inspect, package
from bedplate.store.releases import WaiverRow

TENANT = "local"
"""The one tenant of a home; bundles are signed for it."""


# --------------------------------------------------------------------------------------------------------------- gates


def _waivers(context: Context) -> tuple[WaiverRow, ...]:
    """Waivers in force: those that the file names, and those given by command."""
    with context.system.store.read() as tx:
        return tuple(tx.waivers.list(context.use_case.name))


def _wanted_waivers(context: Context) -> list[tuple[str, str, str]]:
    return [(w.gate, w.by, w.reason) for w in context.use_case.release.waivers]


def _gate_inputs(context: Context) -> dict[str, str]:
    given = {(w.gate, w.by, w.reason) for w in _waivers(context)} | set(_wanted_waivers(context))
    return {
        "training": context.output("train").digest,
        "requirements": section(context, "requirements"),
        "gates": ids.digest_of(context.use_case.release.gates),
        "sensitive columns": ids.digest_of(context.use_case.governance.sensitive),
        "risk": section(context, "risk"),
        "waivers": ids.digest_of(sorted(given)),
        "environment": context.system.settings.environment,
    }


def _gates(context: Context) -> Outcome:
    training = context.body("train", TrainResult)
    environment = context.system.settings.environment
    if environment == gates.WAIVABLE_IN:  # elsewhere a waiver holds nothing, so none is recorded
        _record_waivers(context)
    files = {name: context.system.contents.get(digest) for name, digest in training.artifacts.items()}
    security = inspect(files, isolated=training.isolated, predictor=training.signature.predictor)
    measured = None
    if not security.refused:
        context.progress("measuring the latency of the candidate")
        with tempfile.TemporaryDirectory(prefix="bedplate-candidate-") as folder:
            limit = context.use_case.requirements.p99 * 1e3
            measured = latency(context, training, files, Path(folder), limit=limit)
    report = gates.evaluate(
        context.loaded,
        training,
        size=sum(len(content) for content in files.values()),
        latency=measured,
        security=security,
        waivers=_waivers(context),
        environment=environment,
    )
    parents = (context.output("train").digest, context.output("plan").digest, context.output("check").digest)
    return Outcome(evidence=(Evidence(kind="gates", body=report, parents=parents),), summary=report.summary)


def _record_waivers(context: Context) -> None:
    """Put the file's waivers where every waiver is: in the store, with a ledger entry that names the person.

    The file is no way around policy: whoever runs it must be one who may waive.
    """
    name = context.use_case.name
    with context.system.store.read() as tx:
        known = {(w.gate, w.by, w.reason) for w in tx.waivers.list(name)}
    new = [waiver for waiver in _wanted_waivers(context) if waiver not in known]
    if not new:
        return
    assert context.principal is not None, "a stage is run by somebody"
    resource = policy.bundle(context.output("train").digest, use_case=name)
    environment = context.system.settings.environment
    decision = access.demand(context.system, context.principal, "waive", resource, environment=environment)
    with context.system.store.transaction() as tx:
        for gate, by, reason in new:
            row = tx.waivers.add(name, gate, environment=gates.WAIVABLE_IN, by=by, reason=reason)
            context.system.ledger.record(
                tx,
                actor=context.actor,
                action="gate.waive",
                resource=f"use_case/{name}",
                payload={"waiver": row.id, "gate": gate, "by": by, "reason": reason, "written in": "usecase.yaml"},
                policies=decision.policies,
                purpose=context.use_case.governance.purpose,
            )


def _refused(context: Context) -> Halt | None:
    report = context.body("gates", GateReport)
    return None if report.passed else Halt(state="refused", reason=report.summary)


GATES = Stage(
    name="gates",
    title="Hold the candidate against the file",
    needs=("train",),
    inputs=_gate_inputs,
    run=_gates,
    summarise=lambda context: context.body("gates", GateReport).summary,
    halts=_refused,
)


# -------------------------------------------------------------------------------------------------------------- bundle


def _bundle_inputs(context: Context) -> dict[str, str]:
    return {"training": context.output("train").digest, "gates": context.output("gates").digest}


def _packaged(context: Context, number: int) -> Bundle:
    gates_fact = context.output("gates")
    return package(
        context.system.contents,
        context.loaded,
        context.body("train", TrainResult),
        context.body("gates", GateReport),
        Version(
            tenant=TENANT,
            name=context.use_case.name,
            version=number,
            training=context.output("train").digest,
            gates=gates_fact.digest,
            created=gates_fact.created,
        ),
        bundles=context.system.home.bundles,
        private_key=context.system.opened.signing_key,
        public_key=context.system.opened.signing_public,
    )


def _bundle(context: Context) -> Outcome:
    name = context.use_case.name
    gates_fact = context.output("gates")
    ledger, by = context.system.ledger, context.principal
    assert by is not None, "a stage is run by somebody"
    with context.system.store.transaction() as tx:
        number = line.allot(ledger, tx, by, name, gates_fact.digest)
    bundle = _packaged(context, number)

    def bind(tx: store.Transaction, _facts: tuple[Fact, ...]) -> None:
        line.bind(ledger, tx, by, name, number, bundle.digest)

    parents = (gates_fact.digest, context.output("train").digest)
    evidence = Evidence(kind="bundle", body=bundle, parents=parents)
    return Outcome(evidence=(evidence,), summary=_bundled_as(bundle), apply=bind)


def _bundled_as(bundle: Bundle) -> str:
    return f"version {bundle.version}, {bundle.size / 1e6:.1f} MB, {len(bundle.files)} files, signed and verified"


def _bundle_here(context: Context) -> None:
    """Make the bundle again where this home has not got it: a copy of it, elsewhere, was the owner meanwhile.

    Raises:
        IntegrityError: it comes out otherwise, since other versions of packages are installed here.
    """
    made = context.body("bundle", Bundle)
    folder = bundles.path_of(context.system.home.bundles, made.digest)
    if folder.exists():
        return
    context.progress("made again: this home has not got it")
    again = _packaged(context, made.version)
    if again.digest != made.digest:
        raise IntegrityError(
            f"version {made.version} cannot be made again here: it came out as {again.digest}",
            where=str(folder),
            fix="copy this folder and the .sig.json beside it from the home that made them",
        )


BUNDLE = Stage(
    name="bundle",
    title="Sign the model version",
    needs=("train", "gates"),
    inputs=_bundle_inputs,
    run=_bundle,
    summarise=lambda context: _bundled_as(context.body("bundle", Bundle)),
    resume=_bundle_here,
)


# ------------------------------------------------------------------------------------------------------------- approve


def approvers(context: Context) -> tuple[str, ...]:
    """The groups and people whom the file names for the environment at hand."""
    return decisions.approvers(context.use_case, context.system.settings.environment)


def _votes(context: Context, bundle: Digest) -> list[approvals.Vote]:
    with context.system.store.read() as tx:
        return requests.votes(tx, context.use_case.name, bundle, context.system.settings.environment)


def _approve_inputs(context: Context) -> dict[str, str]:
    bundle = context.body("bundle", Bundle)
    return {
        "bundle": context.output("bundle").digest,
        "environment": context.system.settings.environment,
        "approvals in the file": ids.digest_of(context.use_case.release.approvals),
        "approvals given": ids.digest_of(_votes(context, bundle.digest)),
        "policies": context.system.policies.version,
    }


def _approve(context: Context) -> Outcome:
    bundle = context.body("bundle", Bundle)
    report = context.body("gates", GateReport)
    environment = context.system.settings.environment
    rule = context.use_case.release.approvals.get(environment)
    decision = context.system.policies.decide(
        policy.FLOW,
        "approve" if rule is None else "read",
        policy.bundle(bundle.digest, use_case=context.use_case.name, approvers=approvers(context)),
        {"environment": environment, "gates_passed": report.passed, "purpose": context.use_case.governance.purpose},
    )
    result = approvals.approve(
        bundle.digest,
        environment,
        rule=rule,
        policy=decision,
        report=report,
        votes=_votes(context, bundle.digest),
        makers=(context.actor,),
    )
    evidence = Evidence(kind="approval", body=result, parents=(context.output("bundle").digest,))
    return Outcome(evidence=(evidence,), summary=_approved_as(result))


def _approved_as(approval: Approval) -> str:
    by = f" by {', '.join(approval.by)}" if approval.by else ""
    return f"{approval.environment} {approval.state}{by}: {approval.reason}"


def _waiting(context: Context) -> Halt | None:
    approval = context.body("approve", Approval)
    if approval.state == "approved":
        return None
    return Halt(state="waiting" if approval.state == "waiting" else "refused", reason=_approved_as(approval))


APPROVE = Stage(
    name="approve",
    title="Let it into the environment",
    needs=("bundle",),
    inputs=_approve_inputs,
    run=_approve,
    summarise=lambda context: _approved_as(context.body("approve", Approval)),
    halts=_waiting,
)
