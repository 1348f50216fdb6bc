"""What is known of a rollout: the counts that replicas left, the verdict on them, and both in words."""

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate import clock
from bedplate.app import endpoints
from bedplate.app.serving_models import RolloutReport, RolloutStep
from bedplate.ids import Digest
from bedplate.records import GuardFinding
from bedplate.release.rollout import RolloutPlan
from bedplate.stats.canary import Tally, Values
from bedplate.store.rollouts import RolloutRow

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.release.guards import Verdict


def plan_of(row: RolloutRow) -> RolloutPlan:
    """The steps and guards that it was begun with."""
    return msgspec.convert(row.plan, RolloutPlan)


def tally(system: "System", row: RolloutRow, step: int) -> Tally:
    """What all replicas counted in a step so far."""
    total = Tally()
    for path in endpoints.tallies_of(system, row).glob(f"{step}-*.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            total.add(msgspec.json.decode(path.read_bytes(), type=Tally))
    return total


def judge(system: "System", row: RolloutRow) -> "Verdict | None":
    """The verdict on the present step; None after the last."""
    from bedplate.release import guards  # SciPy: not for a home where nothing is rolled out

    plan = plan_of(row)
    if row.step >= len(plan.steps):
        return None
    held = (clock.now() - clock.parse(row.stepped)).total_seconds()
    values = msgspec.convert(row.outcomes, Values)
    return guards.judge(plan, plan.steps[row.step], tally(system, row, row.step), values, held)


def seen(system: "System", row: RolloutRow, verdict: "Verdict | None", reason: str = "") -> dict[str, Any]:
    """What is kept of a step when it ends."""
    counts = tally(system, row, row.step)
    findings = verdict.findings if verdict is not None else ()
    if verdict is None and (looked := judge(system, row)) is not None:
        findings = looked.findings
    return {
        "step": row.step,
        "reason": reason or (verdict.reason if verdict is not None else ""),
        "ended": clock.timestamp(),
        "counts": msgspec.to_builtins(counts),
        "findings": msgspec.to_builtins(findings),
    }


def report(system: "System", row: RolloutRow) -> RolloutReport:
    """A rollout as it is now."""
    plan = plan_of(row)
    ended = {kept["step"]: kept for kept in row.evidence}
    steps = []
    for i, step in enumerate(plan.steps):
        kept = ended.get(i)
        if kept is None and i == row.step and row.state in ("running", "frozen"):
            verdict = judge(system, row)
            kept = seen(system, row, verdict) | {"ended": ""}
        shown = RolloutStep(mode=step.mode, share=step.share, hold=step.hold, state="to come")
        if kept is not None:
            counts = msgspec.convert(kept["counts"], Tally)
            state = "now" if i not in ended else "passed"
            if i == row.step and row.state == "rolled_back":
                state = "stopped"
            shown = msgspec.structs.replace(
                shown,
                state=state,
                stable=counts.stable.requests,
                candidate=counts.candidate.requests,
                findings=msgspec.convert(kept["findings"], tuple[GuardFinding, ...]),
                rows=counts.rows.compared,
                different=counts.rows.different,
                ended=kept["ended"],
            )
        steps.append(shown)
    return RolloutReport(
        id=row.id,
        endpoint=row.endpoint,
        use_case=row.use_case,
        state=row.state,
        bundle=row.bundle,
        before=Digest(row.before["digest"]),
        by=row.by,
        reason=row.reason,
        created=row.created,
        updated=row.updated,
        steps=tuple(steps),
    )
