"""Who let a bundle into an environment: the policy alone, or the people that the file names. Pure.

``2 of [growth-leads, risk]`` asks for two different people, one for each name that they stand for. Whoever trained the
model does not count (four eyes), a refusal ends it, and what somebody says later replaces what they said before.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from bedplate.ids import Digest
from bedplate.records import Approval, GateReport
from bedplate.release.gates import WAIVABLE_IN
from bedplate.usecase import approvals


class PolicyDecision(Protocol):
    """What the policy said about releasing this bundle to this environment."""

    @property
    def allowed(self) -> bool: ...
    @property
    def policies(self) -> Sequence[str]: ...
    @property
    def reasons(self) -> Sequence[str]: ...


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """What one principal said about the bundle; ``groups`` are those it was in when it said so."""

    by: str
    groups: tuple[str, ...] = ()
    state: Literal["approved", "refused", "withdrawn"]
    reason: str = ""


def approve(
    bundle: Digest,
    environment: str,
    *,
    rule: str | None,
    policy: PolicyDecision,
    report: GateReport,
    votes: Sequence[Vote] = (),
    makers: Sequence[str] = (),
) -> Approval:
    """Whether ``bundle`` may be served in ``environment``, and on which ground.

    ``rule`` is what the file says under ``release.approvals`` for this environment, or None: then the policy decides.
    ``votes`` are in the order in which they were given; ``makers`` are those who started the training or wrote the
    code.

    Raises:
        QuorumError: ``rule`` is malformed; loading the file has refused it before.
    """
    waived = tuple(result.waiver for result in report.results if result.waiver is not None)

    def approval(state: Literal["approved", "waiting", "refused"], reason: str, by: Sequence[str] = ()) -> Approval:
        return Approval(
            bundle=bundle,
            environment=environment,
            state=state,
            by=tuple(by),
            reason=reason,
            policies=tuple(policy.policies),
            waivers=waived,
        )

    if not report.passed:
        return approval("refused", f"the gates did not let it through: {report.summary}")
    if waived and environment != WAIVABLE_IN:
        return approval("refused", f"gates were waived, and a waiver holds in {WAIVABLE_IN} only")
    if not policy.allowed:
        return approval("refused", "; ".join(policy.reasons) or "no policy allows it")
    if rule is None:
        why = "; ".join(policy.reasons) or "the policy of this environment allows it"
        return approval("approved", why, ["policy"])

    quorum = approvals.parse(rule)
    said = {vote.by: vote for vote in votes}  # the last word of each
    counted = [v for v in said.values() if v.by not in makers and _stands_for(v, quorum.of)]
    refusals = [vote for vote in counted if vote.state == "refused"]
    if refusals:
        words = "; ".join(f"{vote.by}: {vote.reason or 'no reason given'}" for vote in refusals)
        return approval("refused", f"refused by {words}", [vote.by for vote in refusals])
    filled = _assign(quorum.of, [vote for vote in counted if vote.state == "approved"])
    agreed = "; ".join(f"{name}: {by}" for name, by in filled.items())
    if len(filled) >= quorum.need:
        return approval("approved", f"{rule}: {agreed}", list(filled.values()))
    open_names = [name for name in quorum.of if name not in filled]
    own = [v.by for v in said.values() if v.by in makers and v.state == "approved"]
    return approval(
        "waiting",
        f"{len(filled)} of {quorum.need} approvals"
        + (f" ({agreed})" if agreed else "")
        + f"; still needed from {' or '.join(open_names)}"
        + (f"; {', '.join(own)} made it and cannot approve it" if own else ""),
        list(filled.values()),
    )


def _stands_for(vote: Vote, names: Sequence[str]) -> bool:
    return vote.by in names or any(group in names for group in vote.groups)


def _assign(names: Sequence[str], votes: Sequence[Vote]) -> dict[str, str]:
    """As many names as possible, each with a different person who is it or belongs to it (maximum matching)."""
    holder: dict[str, Vote] = {}

    def place(vote: Vote, tried: set[str]) -> bool:
        for name in names:
            if name in tried or not (vote.by == name or name in vote.groups):
                continue
            tried.add(name)
            if name not in holder or place(holder[name], tried):
                holder[name] = vote
                return True
        return False

    for vote in votes:
        place(vote, set())
    return {name: holder[name].by for name in names if name in holder}
