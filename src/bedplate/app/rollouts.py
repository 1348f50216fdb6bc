"""What can be asked of a rollout: begin one, look at it, freeze it, go on, roll it back, and report what came of it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bedplate import bundle as bundles
from bedplate import clock
from bedplate.app import access, endpoints, rollout_steps, rollout_views
from bedplate.app.serving_models import RolloutReport
from bedplate.errors import ConflictError, InputError
from bedplate.identity import Principal
from bedplate.ids import digest_of
from bedplate.policy import values as policy
from bedplate.records import Approval
from bedplate.release import rollout
from bedplate.release.rollout import RolloutPlan
from bedplate.serve.routing import position
from bedplate.serve.spec import ReplicaSpec
from bedplate.stats.canary import Values
from bedplate.usecase import load

if TYPE_CHECKING:
    from bedplate.app.system import System


def start(system: "System", principal: Principal, endpoint: str) -> RolloutReport:
    """Begin to roll out the newest approved release of an endpoint's use case.

    Raises:
        ConflictError: another rollout is under way, or there is no approved release but the one that is served.
        NotFoundError: there is no such endpoint.
        DeniedError: policy does not allow it.
    """
    with system.store.read() as tx:
        row = tx.endpoints.get(endpoint)
        made = tx.use_cases.get(row.use_case)
        approval = tx.facts.latest(row.use_case, "approval")
    _demand(system, principal, row.use_case)
    said = msgspec.convert(approval.body, Approval) if approval is not None else None
    if said is None or (said.state, said.environment) != ("approved", system.settings.environment):
        raise ConflictError(
            f"no release of {row.use_case} is approved for {system.settings.environment}",
            fix="run the use case, and have what it made approved",
        )
    if said.bundle == row.bundle:
        raise ConflictError(
            f"{endpoint} serves the newest approved release already",
            fix="run the use case, and have what it made approved",
        )
    assert approval is not None
    spec = msgspec.structs.replace(
        endpoints.spec_of(row),
        bundle=bundles.path_of(system.home.bundles, said.bundle),
        digest=said.bundle,
        evidence=approval.digest,
    )
    loaded = load(Path(made.folder) / made.file, check_files=False)
    return begin(system, principal, endpoint, spec, rollout.plan_of(loaded.use_case))


def begin(system: "System", principal: Principal, endpoint: str, spec: ReplicaSpec, plan: RolloutPlan) -> RolloutReport:
    """Start a candidate beside what an endpoint serves, and give it its first step. One that is not ready ends it.

    Raises:
        ConflictError: another rollout is under way, or this owner serves nothing.
        NotFoundError: there is no such endpoint.
    """
    if not system.serving:
        raise ConflictError("nothing is being served here", fix="start it: bedplate up --detach")
    with rollout_steps.changing(system, endpoint):
        with system.store.transaction() as tx:
            served = tx.endpoints.get(endpoint)
            latest = tx.rollouts.latest(endpoint)
            if latest is not None and latest.state in ("running", "frozen"):
                raise ConflictError(
                    f"{endpoint} is being rolled out already",
                    fix=f"wait for it, or end it: bedplate rollout roll-back {endpoint}",
                )
            row = tx.rollouts.add(
                endpoint,
                use_case=served.use_case,
                bundle=spec.digest,
                plan=msgspec.to_builtins(plan),
                spec=endpoints.as_row(spec),
                before=served.spec,
                by=principal.name,
            )
            rollout_steps.record(system, tx, row, "start", principal, {"plan": row.plan, "before": served.bundle})
        return rollout_views.report(system, rollout_steps.run(system, row))


def report(system: "System", principal: Principal, endpoint: str) -> RolloutReport:
    """The newest rollout of an endpoint as it is now.

    Raises:
        NotFoundError: there is no such endpoint, or nothing was ever rolled out there.
        DeniedError: policy does not allow it.
    """
    row = rollout_steps.latest(system, endpoint)
    access.demand(system, principal, "read", policy.use_case(row.use_case))
    return rollout_views.report(system, row)


def newest(system: "System", endpoint: str) -> RolloutReport | None:
    """The newest rollout of an endpoint, if there was one, for whoever was let in to see its use case."""
    with system.store.read() as tx:
        row = tx.rollouts.latest(endpoint)
    return None if row is None else rollout_views.report(system, row)


def freeze(system: "System", principal: Principal, endpoint: str) -> RolloutReport:
    """Take no more steps; the candidate keeps its share, and the guards still roll it back.

    Raises:
        ConflictError: it has ended.
    """
    return _set(system, principal, endpoint, "frozen_by", "freeze")


def resume(system: "System", principal: Principal, endpoint: str) -> RolloutReport:
    """Go on with the step at which it was frozen, which begins anew.

    Raises:
        ConflictError: it is not frozen.
    """
    return _set(system, principal, endpoint, "resumed", "resume")


def roll_back(system: "System", principal: Principal, endpoint: str, reason: str = "") -> RolloutReport:
    """Have the release from before the newest rollout answer everything, at once; also after it was completed.

    Raises:
        ConflictError: it was rolled back already.
        UnavailableError: the release from before does not start; what answers now goes on.
    """
    _demand(system, principal, rollout_steps.latest(system, endpoint).use_case)
    with rollout_steps.changing(system, endpoint):
        row = rollout_steps.latest(system, endpoint)
        return rollout_views.report(
            system, rollout_steps.undo(system, row, principal, reason or f"asked for by {principal.name}", None)
        )


def take_outcomes(
    system: "System", principal: Principal, endpoint: str, outcomes: Sequence[tuple[str, float]]
) -> RolloutReport:
    """Count what came of answers: the split key that was asked with, and what it earned, one pair each.

    A key's outcome counts for the release that the key is assigned to now.

    Raises:
        ConflictError: nothing is being rolled out there, or its requests have no key to tell the releases apart.
        InputError: a value is no number.
    """
    if not all(math.isfinite(value) for _, value in outcomes):
        raise InputError("an outcome is no number", where="value")
    _demand(system, principal, rollout_steps.latest(system, endpoint).use_case)
    with rollout_steps.changing(system, endpoint):
        row = rollout_steps.latest(system, endpoint)
        plan = rollout_views.plan_of(row)
        step = plan.steps[row.step] if row.state in ("running", "frozen") else None
        if step is None or step.mode == "shadow" or not plan.key:
            raise ConflictError(
                f"outcomes cannot be told apart at {endpoint} now",
                fix="report them while a rollout with serve.rollout.key takes its steps",
            )
        values = msgspec.convert(row.outcomes, Values)
        for key, value in outcomes:
            values.add(rollout.scaled(plan, value), on_candidate=position(row.id, key) < step.share)
        with system.store.transaction() as tx:
            row = tx.rollouts.change(row, outcomes=msgspec.to_builtins(values))
            payload = {"count": len(outcomes), "digest": digest_of(list(outcomes)), "step": row.step}
            rollout_steps.record(system, tx, row, "outcomes", principal, payload)
        return rollout_views.report(system, row)


def _demand(system: "System", principal: Principal, use_case: str) -> None:
    access.demand(system, principal, "operate", policy.use_case(use_case))


def _set(system: "System", principal: Principal, endpoint: str, event: rollout.Event, action: str) -> RolloutReport:
    _demand(system, principal, rollout_steps.latest(system, endpoint).use_case)
    with rollout_steps.changing(system, endpoint):
        row = rollout_steps.latest(system, endpoint)
        state = rollout.follow(row.state, event)
        stepped = clock.timestamp() if event == "resumed" else row.stepped
        with system.store.transaction() as tx:
            row = tx.rollouts.change(row, state=state, stepped=stepped)
            rollout_steps.record(system, tx, row, action, principal, {"step": row.step})
        return rollout_views.report(system, row)
