"""What the command line, the API and the pages show. Only values: :mod:`bedplate.app.queries` fills them.

Every body that came from evidence stands in a :class:`Stamped`, so a page can always say which fact a number is from.
"""

from typing import Any, Generic, Literal, TypeVar

import msgspec

from bedplate.app.plan_models import Account
from bedplate.ids import Digest
from bedplate.records import (
    Approval,
    Bundle,
    Endpoint,
    Estimate,
    FeatureSet,
    GateReport,
    IngestResult,
    LoadTest,
    Objective,
    Observation,
    ReplicaPrice,
    RetrainDecision,
    TableVersion,
    TrainResult,
)

T = TypeVar("T")

STAGES = (
    "check",
    "plan",
    "ingest",
    "features",
    "train",
    "gates",
    "bundle",
    "approve",
    "serve",
    "observe",
    "decide",
    "look",
    "trace",
)
"""The stages of a run, in order, as progress lines, summary and pages number them."""


class Stamped(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The body of one fact with its provenance: the digest that proves it and when it was recorded."""

    digest: Digest
    created: str
    body: T


# ------------------------------------------------------------------------------------------------------- use case, plan


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """A use case that passed ``bedplate check``. One that does not pass is a UseCaseError with every problem."""

    name: str
    path: str
    digest: Digest
    workload: str
    data: tuple[str, ...]
    features: tuple[str, ...]
    gates: tuple[str, ...]
    notes: tuple[str, ...] = ()


class InitReport(msgspec.Struct, frozen=True, kw_only=True):
    """The starter that ``bedplate init`` wrote."""

    name: str
    folder: str
    files: tuple[str, ...]


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """One technical requirement, and the line of ``usecase.yaml`` it was derived from."""

    name: str
    value: str
    because: str
    line: int | None = None


class PlanOption(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run the use case. ``monthly`` is an amount of the plan's ``period``; times are predictions."""

    name: str
    provider: str
    region: str
    cpus: float
    memory_gib: float
    replicas: int
    monthly: float
    p99_ms: Estimate | None
    feasible: bool
    reason: str
    machines: int = 0
    run_seconds: Estimate | None = None


class StagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do with one stage, and why."""

    stage: str
    action: Literal["run", "skip"]
    because: str


class PlanReport(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``plan`` as shown: the options compared, the one chosen, what bound the choice, and the stages to run."""

    use_case: str
    requirements: tuple[Requirement, ...]
    options: tuple[PlanOption, ...]
    chosen: str
    runner_up: str | None
    binding_constraint: str
    currency: str
    price_source: str
    price_date: str
    monthly_cost: float | None
    """None: nothing was chosen."""
    training_cost: float | None
    budget: float | None
    within_budget: bool
    reasons: tuple[str, ...] = ()
    stages: tuple[StagePlan, ...] = ()
    period: Literal["month", "run"] = "month"

    def option(self, name: str | None) -> PlanOption | None:
        """The option of that name, if the plan compared it."""
        return next((option for option in self.options if option.name == name), None)


# ----------------------------------------------------------------------------------------------------------------- runs


class StageState(msgspec.Struct, frozen=True, kw_only=True):
    """Where one stage of the flow stands. ``summary`` is one line for people."""

    stage: str
    state: Literal["finished", "skipped", "running", "waiting", "failed", "pending"]
    summary: str
    seconds: float | None = None
    finished: str | None = None
    output: Digest | None = None
    because: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The latest facts of one use case, from objective to decision. What has not happened yet is absent, and so are the
    data sets ``kept_in``, which who looks may not count."""

    objective: Stamped[Objective] | None = None
    plan: Stamped[PlanReport] | None = None
    datasets: tuple[Stamped[IngestResult], ...] = ()
    kept_in: tuple[str, ...] = ()
    features: Stamped[FeatureSet] | None = None
    training: Stamped[TrainResult] | None = None
    gates: Stamped[GateReport] | None = None
    bundle: Stamped[Bundle] | None = None
    approval: Stamped[Approval] | None = None
    endpoint: Stamped[Endpoint] | None = None
    observation: Stamped[Observation] | None = None
    retrain: Stamped[RetrainDecision] | None = None


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did, in the order of the flow. ``link`` lets one browser in, once, for a minute."""

    use_case: str
    run_id: str
    stages: tuple[StageState, ...]
    evidence: Evidence
    seconds: float
    halted: Literal["refused", "waiting"] | None = None
    halted_because: str = ""
    address: str | None = None
    link: str | None = None
    prediction: str | None = None


# --------------------------------------------------------------------------------------------------------------- status


EndpointState = Literal["ready", "starting", "asleep", "stopped", "failed"]
"""Whether an endpoint answers; asleep: it has no replica until somebody connects."""


class ServingCost(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint costs since its owner started: replicas ran for ``seconds``, idle included, at ``price``.

    ``each`` is the cost of one prediction, and ``why`` what that assumes. Where no price is known, or while none was
    made, ``each`` is None and ``why`` says so.
    """

    price: ReplicaPrice | None
    seconds: float
    predictions: int
    each: float | None
    why: str


class EndpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint now. ``state`` is what its replicas answer, not what was asked for.

    ``grpc`` is the host and port that answer gRPC, empty without it. ``replicas`` are those that answer; they take
    ``memory`` bytes, each its share of what several have in common. ``error``: why none answers, where one should.
    """

    name: str
    use_case: str
    url: str
    state: EndpointState
    bundle: Digest
    revision: int
    grpc: str = ""
    replicas: int = 0
    memory: int = 0
    requests: int = 0
    failed: int = 0
    p99_ms: float | None = None
    since: str | None = None
    cost: ServingCost | None = None
    error: str = ""


Standing = Literal["new", "running", "waiting", "served", "refused", "failed", "trained"]
"""Where a use case is."""


class UseCaseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One use case in a list."""

    name: str
    statement: str
    owner: str
    risk: str
    state: Standing
    sentence: str
    updated: str
    kpi: dict[str, Any] = {}
    version: int | None = None
    waiting_for: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a home is doing now; ``spans_sent`` and ``spans_dropped`` since its owner started."""

    home: str
    owner: int | None
    since: str | None
    address: str | None
    use_cases: tuple[UseCaseStatus, ...]
    endpoints: tuple[EndpointStatus, ...]
    running: str | None = None
    spans_sent: int = 0
    spans_dropped: int = 0


class UpInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where ``bedplate up`` serves. ``link`` lets one browser in, once, for a minute."""

    address: str
    link: str
    pid: int


class StopReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``bedplate stop`` ended; ``pid`` is None when nothing was running."""

    pid: int | None
    endpoints: tuple[str, ...] = ()


class LoadTarget(msgspec.Struct, frozen=True, kw_only=True):
    """What a load run against an endpoint goes by: its address, what its use case requires, and requests to send.

    ``bodies`` are infer requests made of logged predictions; none if they were not asked for.
    """

    endpoint: str
    url: str
    limit_p99_ms: float
    peak: float
    bodies: tuple[dict[str, Any], ...] = ()


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """A load run, and whether it shows that the endpoint meets its requirement.

    ``verdict`` is ``open`` where the interval of the p99 holds the limit, or the run asked for less than the ``peak``.
    """

    endpoint: str
    url: str
    rate: float
    peak: float
    requests: int
    """Different requests, sent in turn."""
    test: LoadTest
    failures: Estimate
    verdict: Literal["met", "missed", "open"]
    because: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    ceiling: float | None = None
    """Requests a second that the client itself reaches with a server that does nothing."""


class ScoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """A table through a model: what was read, what was written, by which release, and the digest to trace it by."""

    endpoint: str
    bundle: Digest
    source: TableVersion
    table: TableVersion
    scoring: Digest
    purpose: str
    seconds: float


ScoringState = Literal["waiting", "running", "finished", "failed", "cancelled"]


class Scoring(msgspec.Struct, frozen=True, kw_only=True):
    """A scoring that was asked for over HTTP: ``done`` of ``total`` rows of ``source`` go into the table ``to``.

    ``scoring`` is the digest to trace it by. ``report`` is there once it has finished, ``error`` once it has failed.
    """

    id: str
    endpoint: str
    source: str
    to: str
    purpose: str
    scoring: Digest
    state: ScoringState
    by: str
    asked: str
    done: int
    total: int
    report: ScoreReport | None = None
    error: dict[str, Any] | None = None


# --------------------------------------------------------------------------------------------------------- trace, audit


class TraceNode(msgspec.Struct, frozen=True, kw_only=True):
    """One step from a prediction back to its objective. ``verified``: its digest was computed again and matched."""

    kind: str
    title: str
    summary: str
    digest: str
    verified: bool
    created: str = ""
    where: str = ""
    details: dict[str, Any] = {}


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The whole line of one prediction, prediction first, objective last."""

    prediction_id: str
    use_case: str
    nodes: tuple[TraceNode, ...]
    verified: bool


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the audit ledger."""

    index: int
    time: str
    actor: str
    action: str
    resource: str
    decision: str
    policies: tuple[str, ...] = ()
    purpose: str = ""
    payload: dict[str, Any] = {}
    hash: str = ""


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``bedplate audit verify`` found. ``problems`` is empty when every proof holds."""

    verified: bool
    entries: int
    root: str
    checkpoint: str
    against: str | None = None
    problems: tuple[str, ...] = ()


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the ledger with its tree head. ``entries`` has the newest first."""

    size: int
    root: str
    checkpoint: str
    entries: tuple[LedgerEntry, ...]
    verified: bool | None = None


# ----------------------------------------------------------------------------------------------------- backup, contract


class BackupReport(msgspec.Struct, frozen=True, kw_only=True):
    """A verified copy of a home: ``path`` is the copy, ``size`` in bytes."""

    path: str
    home: str
    created: str
    files: int
    size: int
    warning: str


class GcReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted for good, or would be in a dry run.

    ``rows`` were appended to runs that went, ``files`` were artifacts of what went; ``kept`` says what stays and why.
    ``contents`` nothing named any more, ``size`` is what they took, in bytes; ``waiting`` ones are within their grace
    period. ``uploads`` were never completed, or were long ago; ``leftovers`` are files of writers that were killed.
    """

    older_than: str
    dry_run: bool
    runs: int
    models: int
    experiments: int
    rows: int
    files: int
    kept: tuple[str, ...]
    uploads: int
    contents: int
    size: int
    waiting: int
    leftovers: int


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """A home made from a backup, after every digest in it was checked."""

    home: str
    files: int
    size: int
    warning: str


class DecisionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What approving, refusing or waiving changed, and the ledger entry that says so."""

    use_case: str
    action: Literal["approve", "refuse", "waive"]
    subject: str
    by: str
    reason: str
    ledger_index: int
    approval: Approval | None = None


# ---------------------------------------------------------------------------------------------------------------- pages


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One model version and what was decided about it."""

    bundle: Stamped[Bundle]
    gates: Stamped[GateReport] | None
    approvals: tuple[Stamped[Approval], ...]
    waiting_in: str | None = None


class UseCasePage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the page of one use case shows."""

    status: UseCaseStatus
    stages: tuple[StageState, ...]
    evidence: Evidence
    trainings: tuple[Stamped[TrainResult], ...] = ()
    releases: tuple[Release, ...] = ()
    observations: tuple[Stamped[Observation], ...] = ()
    endpoint: EndpointStatus | None = None
    ledger: tuple[LedgerEntry, ...] = ()
    sample_predictions: tuple[str, ...] = ()
    account: Account | None = None
