"""What people decide about releases: approve, refuse, waive. Policy first, then the row and its ledger entry."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bedplate.app import access
from bedplate.app.read_models import DecisionReport
from bedplate.errors import ConflictError, InputError
from bedplate.identity import Principal
from bedplate.policy import values as policy
from bedplate.release.gates import WAIVABLE_IN
from bedplate.usecase import approvals as quorums
from bedplate.usecase import load
from bedplate.usecase.types import UseCase

if TYPE_CHECKING:
    from bedplate.app.system import System


def vote(
    system: "System",
    principal: Principal,
    use_case: str,
    environment: str,
    reason: str,
    state: Literal["approved", "refused"],
) -> DecisionReport:
    """Say that the latest bundle may, or may not, go into an environment; the next run acts on it.

    Raises:
        ConflictError: there is no bundle to decide about.
        DeniedError: policy does not give this person a say.
        InputError: no reason was given.
    """
    if not reason.strip():
        raise InputError("a decision needs a reason", where="--reason", fix="say why in a sentence")
    with system.store.read() as tx:
        row = tx.use_cases.get(use_case)
        fact = tx.facts.latest(use_case, "bundle")
        gates = tx.facts.latest(use_case, "gates")
    if fact is None or gates is None:
        raise ConflictError(
            f"{use_case} has no model version to decide about", fix=f"run it first: bedplate run {row.folder}"
        )
    bundle, passed = fact.body["digest"], bool(gates.body["passed"])
    loaded = load(Path(row.folder) / row.file, check_files=False)
    decision = access.demand(
        system,
        principal,
        "approve",
        policy.bundle(bundle, use_case=use_case, approvers=approvers(loaded.use_case, environment)),
        environment=environment,
        gates_passed=passed,
    )
    with system.store.transaction() as tx:
        tx.approvals.add(
            use_case, bundle, environment, state=state, by=principal.name, reason=reason, policies=decision.policies
        )
        index = system.ledger.record(
            tx,
            actor=principal.id,
            action=f"release.{'approve' if state == 'approved' else 'refuse'}",
            resource=f"use_case/{use_case}",
            payload={"bundle": bundle, "environment": environment, "reason": reason, "by": principal.name},
            auth=principal.auth,
            policies=decision.policies,
        )
    return DecisionReport(
        use_case=use_case,
        action="approve" if state == "approved" else "refuse",
        subject=f"version {fact.body['version']} for {environment}",
        by=principal.name,
        reason=reason,
        ledger_index=index,
    )


def approvers(use_case: UseCase, environment: str) -> tuple[str, ...]:
    """The groups that the file names for an environment."""
    rule = use_case.release.approvals.get(environment)
    return () if rule is None else tuple(quorums.parse(rule).of)


def waive(system: "System", principal: Principal, use_case: str, gate: str, reason: str) -> DecisionReport:
    """Let results of a gate through that have too little evidence, in ``dev``, under one's own name.

    Raises:
        ConflictError: no gate has been asked yet.
        InputError: no such gate lacks evidence, or no reason was given.
        DeniedError: policy does not allow it.
    """
    if not reason.strip():
        raise InputError("a waiver needs a reason", where="--reason", fix="say why in a sentence")
    with system.store.read() as tx:
        tx.use_cases.get(use_case)
        fact = tx.facts.latest(use_case, "gates")
    if fact is None:
        raise ConflictError(f"the gates of {use_case} have not been asked yet", fix="run it first")
    unsure = [result for result in fact.body["results"] if result["verdict"] == "insufficient_evidence"]
    lacking = {name for result in unsure for name in (result["gate"], result["name"])}
    if gate not in lacking:
        raise InputError(
            f"no result of {gate!r} lacks evidence, and only that can be waived",
            where=use_case,
            fix=f"name one of {', '.join(sorted(lacking)) or 'none: nothing lacks evidence'}",
        )
    resource = policy.bundle(fact.digest, use_case=use_case)
    decision = access.demand(system, principal, "waive", resource, environment=WAIVABLE_IN)
    with system.store.transaction() as tx:
        row = tx.waivers.add(use_case, gate, environment=WAIVABLE_IN, by=principal.name, reason=reason)
        index = system.ledger.record(
            tx,
            actor=principal.id,
            action="gate.waive",
            resource=f"use_case/{use_case}",
            payload={"waiver": row.id, "gate": gate, "by": principal.name, "reason": reason},
            auth=principal.auth,
            policies=decision.policies,
        )
    return DecisionReport(
        use_case=use_case, action="waive", subject=gate, by=principal.name, reason=reason, ledger_index=index
    )
