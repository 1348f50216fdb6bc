"""What is held against a candidate at each look.

A verdict is made from counts alone, so that whoever has them can make it again.
"""

from typing import Literal

import msgspec

from bedplate.records import Estimate, Guard, GuardFinding
from bedplate.release.rollout import RolloutPlan, Step
from bedplate.stats import intervals
from bedplate.stats.canary import Side, Tally, Values, excess_e_value

LEAST_ERRORS, LEAST_SLOW = 0.001, 0.02
"""By how much more of the requests a candidate must fail, or be slow, before evidence for it matters."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from the counts of a step now."""

    action: Literal["wait", "pass", "roll_back"]
    reason: str
    findings: tuple[GuardFinding, ...]


def judge(plan: RolloutPlan, step: Step, tally: Tally, values: Values, held: float) -> Verdict:
    """What the counts of a step say after ``held`` seconds of it."""
    findings = tuple(found for guard in plan.guards if (found := _look(guard, plan, step, tally, values)) is not None)
    for finding in findings:
        if finding.alarm:
            return Verdict(action="roll_back", reason=finding.text, findings=findings)
    answered = tally.candidate.requests
    if held < step.hold:
        return Verdict(action="wait", reason=f"{step.hold - held:,.0f} s of the step are left", findings=findings)
    if answered < plan.least:
        reason = f"the candidate was asked {answered:,} times of {plan.least:,}"
        return Verdict(action="wait", reason=reason, findings=findings)
    reason = "; ".join(finding.text for finding in findings) or "no guard was asked for"
    return Verdict(action="pass", reason=reason, findings=findings)


def _look(guard: Guard, plan: RolloutPlan, step: Step, tally: Tally, values: Values) -> GuardFinding | None:
    # Shadow copies are asked beside the requests, not instead of them: their share of all that is answered.
    share = step.share / (1 + step.share) if step.mode == "shadow" else step.share
    if guard == "errors":
        return _shares(guard, plan, tally, "errors", tally.errors.e_value(share), LEAST_ERRORS)
    if guard == "latency":
        return _shares(guard, plan, tally, "slow", tally.slow.e_value(share), LEAST_SLOW)
    if guard == "rows":
        return None if step.mode == "split" or plan.differ is None else _rows(plan, plan.differ, tally)
    return _earned(plan, values)


def _shares(
    guard: Guard, plan: RolloutPlan, tally: Tally, field: Literal["errors", "slow"], e: float, least: float
) -> GuardFinding:
    def share(side: Side) -> Estimate | None:
        if not side.requests:
            return None
        return intervals.wilson(min(getattr(side, field), side.requests), side.requests)

    stable, candidate = share(tally.stable), share(tally.candidate)
    worse = candidate is not None and candidate.value - (stable.value if stable is not None else 0.0) >= least
    alarm = e >= plan.limit and worse
    kind = "failed" if field == "errors" else "slow"
    text = (
        f"{kind}: {_percent(candidate)} of the candidate's answers, {_percent(stable)} of the stable release's"
        f" (evidence {e:,.1f} of {plan.limit:,.0f})"
    )
    if field == "errors" and tally.reasons:
        text += f"; {', '.join(f'{count:,} {reason}' for reason, count in sorted(tally.reasons.items()))}"
    return GuardFinding(
        guard=guard, e_value=e, limit=plan.limit, stable=stable, candidate=candidate, alarm=alarm, text=text
    )


def _rows(plan: RolloutPlan, differ: float, tally: Tally) -> GuardFinding:
    rows = tally.rows
    found = intervals.wilson(rows.different, rows.compared) if rows.compared else None
    e = excess_e_value(rows.different, rows.compared, differ)
    text = f"{_percent(found)} of {rows.compared:,} rows differ, {differ:.1%} may"
    text += f" (evidence {e:,.1f} of {plan.limit:,.0f})"
    return GuardFinding(
        guard="rows", e_value=e, limit=plan.limit, stable=None, candidate=found, alarm=e >= plan.limit, text=text
    )


def _earned(plan: RolloutPlan, values: Values) -> GuardFinding | None:
    """What the outcomes reported so far say, in the unit of the KPI."""
    if not values.candidate or not values.stable:
        return None
    low, high = plan.between
    n = values.candidate + values.stable
    mean = (values.candidate_sum + values.stable_sum) / n
    spread = max(0.0, values.squares / n - mean * mean) ** 0.5

    def estimate(total: float, count: int) -> Estimate:
        value, half = total / count, 1.96 * spread / count**0.5
        ends = (value, value - half, value + half)
        a, b, c = (low + (high - low) * (end if plan.up else 1 - end) for end in ends)
        return Estimate(value=a, low=min(b, c), high=max(b, c), level=0.95, n=count, method="normal")

    stable = estimate(values.stable_sum, values.stable)
    candidate = estimate(values.candidate_sum, values.candidate)
    e = values.e_value
    text = f"earned: {candidate.value:,.3g} by the candidate, {stable.value:,.3g} by the stable release"
    text += f" (evidence {e:,.1f} of {plan.limit:,.0f})"
    return GuardFinding(
        guard="kpi", e_value=e, limit=plan.limit, stable=stable, candidate=candidate, alarm=e >= plan.limit, text=text
    )


def _percent(share: Estimate | None) -> str:
    if share is None:
        return "none"
    return f"{share.value:.2%} [{share.low:.2%}, {share.high:.2%}]"
