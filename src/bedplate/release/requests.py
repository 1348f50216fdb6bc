"""Requests to release a version into an environment, as moving it to a stage or pointing an alias to it makes them.

A version that the flow made is judged as the flow's own stage ``approve`` judges it: by its gates, by who the file of
its use case names for the environment, and by policy. A version that a client registered has no gates but one, what was
seen in its files; into production it goes only where its model names approvers, or a policy of the home lets it.

Whoever is named and asks for a release says yes to it by asking.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bedplate.errors import BedplateError, StateError
from bedplate.identity import Principal, policy_principal
from bedplate.ids import Digest, digest_of
from bedplate.policy import values as policy
from bedplate.policy.policies import Decides
from bedplate.policy.values import Decision, Resource
from bedplate.records import Approval, Fact, GateReport, GateResult
from bedplate.release import approval as approvals
from bedplate.release.checks import APPROVERS
from bedplate.release.environments import PRODUCTION
from bedplate.release.foreign import Findings
from bedplate.release.gates import Verdict
from bedplate.store import Transaction
from bedplate.store.models import ModelRow, VersionRow
from bedplate.usecase import approvals as quorums
from bedplate.usecase import load

ASKED = "asked for the release"
"""The reason of an approval that somebody gave by asking."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is judged by. ``subject`` and ``digest`` are what approvals are kept under."""

    subject: str
    digest: Digest
    environment: str
    rule: str | None
    report: GateReport
    resource: Resource
    makers: tuple[str, ...]
    evidence: Fact | None = None
    """The fact of the bundle, where there is one."""
    missing: str = ""
    """What to do about it where nobody is named for the environment."""

    @property
    def resource_name(self) -> str:
        """What the ledger calls it."""
        return f"{'use_case' if self.resource.kind == 'Bundle' else 'model'}/{self.subject}"


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request. ``voted`` says that asking counted as the approval of who asked."""

    case: Case
    approval: Approval
    voted: bool

    @property
    def allowed(self) -> bool:
        """Whether the version may go into the environment."""
        return self.approval.state == "approved"

    @property
    def refusal(self) -> str:
        """Why it may not, and what to do."""
        words = f"{self.case.environment}: {self.approval.reason}"
        nobody = self.case.rule is None and self.case.missing and self.case.report.passed
        return f"{words}. {self.case.missing}" if nobody else words


def judge(
    tx: Transaction,
    policies: Decides,
    by: Principal,
    model: ModelRow,
    row: VersionRow,
    environment: str,
    seen: Findings | None = None,
) -> Ruling:
    """Decide about one version. What the asker says by asking is kept as an approval; nothing else is written.

    ``seen`` is what is in the files of a client's version now.
    """
    case = case_of(tx, model, row, environment, seen)
    asker = policy_principal(by)
    context = {"environment": environment, "gates_passed": case.report.passed}
    voted = case.rule is not None and _may_vote(policies, asker, case, context, by)
    if voted:
        tx.approvals.add(case.subject, case.digest, environment, state="approved", by=by.name, reason=ASKED)
    decision = _by_policy(policies, asker, case, context, flow=row.fact is not None)
    said = votes(tx, case.subject, case.digest, environment)
    if by.name in case.makers:  # told why asking is no approval here
        said.append(approvals.Vote(by=by.name, groups=by.groups, state="approved", reason=ASKED))
    answer = approvals.approve(
        case.digest,
        environment,
        rule=case.rule,
        policy=decision,
        report=case.report,
        votes=said,
        makers=case.makers,
    )
    return Ruling(case=case, approval=answer, voted=voted)


def case_of(tx: Transaction, model: ModelRow, row: VersionRow, environment: str, seen: Findings | None = None) -> Case:
    """What a request about this version and environment is judged by."""
    return _flow_case(tx, row, environment) if row.fact is not None else _client_case(tx, model, row, environment, seen)


def votes(tx: Transaction, subject: str, digest: Digest, environment: str) -> list[approvals.Vote]:
    """What was said about a version for an environment, in order, with the groups of who said it."""
    people = {row.name: row for row in tx.principals.list()}
    return [
        approvals.Vote(
            by=row.by, groups=people[row.by].groups if row.by in people else (), state=row.state, reason=row.reason
        )
        for row in tx.approvals.list(subject, digest, environment)
    ]


def _may_vote(
    policies: Decides, asker: policy.Principal, case: Case, context: dict[str, object], by: Principal
) -> bool:
    assert case.rule is not None
    named = set(quorums.parse(case.rule).of)
    if by.name in case.makers or not (by.name in named or named & set(by.groups)):
        return False
    return policies.decide(asker, "approve", case.resource, context).allowed


def _by_policy(
    policies: Decides, asker: policy.Principal, case: Case, context: dict[str, object], *, flow: bool
) -> Decision:
    """With a rule, people decide and policy only has to let the flow look; without one, policy decides alone."""
    if case.rule is not None:
        return policies.decide(policy.FLOW, "read", case.resource, context)
    return policies.decide(policy.FLOW if flow else asker, "approve", case.resource, context)


# ---------------------------------------------------------------------------------------------- versions of use cases


def _flow_case(tx: Transaction, row: VersionRow, environment: str) -> Case:
    if row.bundle is None or row.fact is None:
        raise StateError(
            f"version {row.number} of {row.name} is not packaged yet", fix="run its use case to the end first"
        )
    bundle = next(
        (f for f in tx.facts.children(row.fact) if f.kind == "bundle" and f.body.get("digest") == row.bundle), None
    )
    rule = _rule_in_file(tx, row.name, environment)
    return Case(
        subject=row.name,
        digest=row.bundle,
        environment=environment,
        rule=rule,
        report=msgspec.convert(tx.facts.get(row.fact).body, GateReport),
        resource=policy.bundle(row.bundle, use_case=row.name, approvers=_named(rule)),
        makers=(row.creator,),
        evidence=bundle,
        missing=f"Name approvers in the file of {row.name}: release.approvals.{environment}",
    )


def _rule_in_file(tx: Transaction, use_case: str, environment: str) -> str | None:
    """Who must agree, as the file of the use case says now.

    Raises:
        StateError: the file cannot be read, so nobody knows.
    """
    known = tx.use_cases.get(use_case)
    try:
        loaded = load(Path(known.folder) / known.file, check_files=False)
    except BedplateError as error:
        raise StateError(
            f"the file of {use_case} cannot be read, so nobody knows who must agree: {error.message}",
            where=str(Path(known.folder) / known.file),
            fix="put it back, or correct it",
        ) from error
    return loaded.use_case.release.approvals.get(environment)


def _named(rule: str | None) -> tuple[str, ...]:
    return () if rule is None else tuple(quorums.parse(rule).of)


# ------------------------------------------------------------------------------------------------ versions of clients


def _client_case(tx: Transaction, model: ModelRow, row: VersionRow, environment: str, seen: Findings | None) -> Case:
    rule = tx.models.tags(model.workspace, [model.name])[model.name].get(APPROVERS + environment)
    return Case(
        subject=model.id,
        digest=digest_of_version(model, row),
        environment=environment,
        rule=rule,
        report=security(row, environment, seen),
        resource=policy.model(model.id, name=model.name, workspace=model.workspace, approvers=_named(rule)),
        makers=(row.creator,),
        missing=(
            f"Nobody is named who may let versions of {model.name} into {environment}: an administrator names them, "
            f"bedplate models approvers {model.name} '1 of [GROUP]' --environment {environment}"
        ),
    )


def digest_of_version(model: ModelRow, row: VersionRow) -> Digest:
    """What approvals of a client's version are kept under: this version of this model, with the files it came with."""
    return digest_of({"model": model.id, "number": row.number, "content": row.content})


def security(row: VersionRow, environment: str, seen: Findings | None) -> GateReport:
    """The one gate of a client's version: what is in its files. Only production insists on it."""
    verdict, reason = _verdict(row, seen)
    result = GateResult(
        gate="security",
        name="files run no code",
        verdict=verdict,
        measured=None,
        limit="every file of a format that runs no code when loaded",
        reason=reason,
    )
    passed = verdict == "pass" or environment != PRODUCTION
    return GateReport(results=(result,), passed=passed, summary=reason)


def _verdict(row: VersionRow, seen: Findings | None) -> tuple[Verdict, str]:
    if seen is not None and row.content is not None and row.content != seen.content:
        return "fail", "its files changed after it was registered; register them as a new version"
    if seen is None or seen.safety == "unknown":
        return "insufficient_evidence", "its files cannot be read here, so nobody knows what is in them"
    if seen.safety == "safe":
        return "pass", "every file is of a format that runs no code"
    if row.onnx is not None:
        return "pass", "it was converted to ONNX, which runs no code"
    return "fail", f"{_several(seen.reasons)}; convert it: bedplate models convert {row.name} {row.number}"


def _several(reasons: Sequence[str]) -> str:
    shown = "; ".join(reasons[:3])
    return f"{shown}; and {len(reasons) - 3} more" if len(reasons) > 3 else shown
