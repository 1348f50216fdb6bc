"""Values that cross packages and processes: what one stage hands to the next, and what the store keeps as evidence.

Each stage of the flow ends in one *fact*: one of the structs below, kept as canonical JSON under its digest, with the
digests of the facts it rests on as parents. That graph is what `bedplate trace` walks.
"""

from typing import Any, Literal

import msgspec

from bedplate.ids import Digest

REGIONS = ("eu", "us", "ca", "uk", "ch", "asia", "au", "sa", "me", "af")
"""What places say of where they are, and use cases of where rows may lie; the planner maps each to cloud regions."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number that says how sure it is: the interval [low, high] at ``level``, from ``n`` observations."""

    value: float
    low: float
    high: float
    level: float = 0.95
    n: int = 0
    method: str = ""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of evidence. ``digest`` covers kind, use_case, parents and body; not ``created``."""

    digest: Digest
    kind: str
    use_case: str
    parents: tuple[Digest, ...]
    body: dict[str, Any]
    created: str


# ---------------------------------------------------------------------------------------------------- objective, file


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``objective``: what the use case is for, with the line of the file that says it."""

    name: str
    statement: str
    kpi: dict[str, Any]
    owner: dict[str, Any]
    purpose: str
    file: str
    file_digest: Digest
    line: int
    risk: str = ""
    value: dict[str, Any] = {}
    """What one accepted unit is worth, if the file says so."""


class RowAccess(msgspec.Struct, frozen=True, kw_only=True):
    """The row policies of one data set, as they were written, and what its contract says of the columns they may name.

    ``columns`` maps each to its type in Cedar; ``required`` are those that are never null.
    """

    text: str
    columns: dict[str, Literal["Long", "String", "Bool"]]
    required: tuple[str, ...] = ()


MaskKind = Literal["drop", "null", "hash", "noise", "generalise", "redact", "truncate"]
TimeUnit = Literal["day", "month", "quarter", "year"]


class MaskRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What goes out instead of the values of columns that bear a tag; see :class:`bedplate.data.masks.Mask`.

    ``truncate`` keeps the first ``keep`` characters, ``generalise`` rounds to ``step`` or to the ``unit`` of a time,
    ``redact`` hides ``members`` of a JSON text, and ``noise`` hides differences up to ``scale`` for ``epsilon`` of the
    privacy budget at each read.
    """

    kind: MaskKind
    keep: int = 0
    step: float = 0
    unit: TimeUnit = "year"
    members: tuple[str, ...] = ()
    scale: float = 0
    epsilon: float = 0


class Governance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fact ``governance``: what rows of the use case are for, the columns hidden from who may not unmask them, and, by
    data set, who may see which rows. A data set that is not in ``rows`` shows all.

    ``masks`` are by tag, and ``tagged`` are the tags that its contracts put on columns, as far as masks name them.
    ``privacy_budget`` is the epsilon that each principal may spend for each purpose. ``residency`` is where rows may
    lie, empty for anywhere.
    """

    purpose: str
    sensitive: tuple[str, ...]
    rows: dict[str, RowAccess] = {}
    masks: dict[str, MaskRule] = {}
    tagged: dict[str, tuple[str, ...]] = {}
    privacy_budget: float = 0
    residency: tuple[str, ...] = ()

    @property
    def hidden(self) -> tuple[str, ...]:
        """Every column whose values are hidden from somebody."""
        return tuple(dict.fromkeys((*self.sensitive, *self.tagged)))


# --------------------------------------------------------------------------------------------------------------- data


class TableVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable version of a table. ``digest`` covers its schema and the digests of its data files."""

    name: str
    version: int
    digest: Digest
    rows: int


class RuleOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one contract rule found. ``dimension`` is the ODCS quality dimension."""

    rule: str
    column: str | None
    severity: Literal["error", "warning", "info"]
    failed: int
    message: str
    dimension: str = ""


class IngestResult(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``dataset``: what came in under a contract. ``rejected`` rows lie in ``quarantine`` with reasons.

    Of rows that come batch by batch: ``known`` ones stood in the table already, ``outside`` ones lie outside the range
    that was asked for, ``late`` ones came in later than they may, and were accepted or rejected as the file says.
    """

    dataset: str
    table: TableVersion
    quarantine: TableVersion | None
    contract: str
    contract_digest: Digest
    source: str
    source_digest: Digest
    read: int
    accepted: int
    rejected: int
    outcomes: tuple[RuleOutcome, ...]
    known: int = 0
    late: int = 0
    outside: int = 0
    unconfined: str = ""
    """Why the source was parsed by a process that is not isolated; empty where it was."""
    deidentified: str = ""
    """The profile that took out what identifies somebody; empty where none did."""


Breaks = Literal["readers", "source", "both"]


class ContractChange(msgspec.Struct, frozen=True, kw_only=True):
    """One difference of two versions of a contract. ``column`` is empty where it is about the whole table.

    ``breaks`` says for whom: whoever reads the table, or the source whose rows were fine until now.
    """

    column: str
    what: str
    breaks: Breaks


class ViewRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A feature view as it was declared when its table was made; ``digest`` is the version of the declaration.

    ``rests_on`` are the columns of its inputs that its features may tell of. ``ttl`` in seconds; ``rows``: what it says
    of an entity is that of the entity's rows, at any moment.
    """

    digest: Digest
    entity: tuple[str, ...]
    rests_on: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    rows: bool = False
    ttl: float | None = None
    defaults: dict[str, float] = {}
    on_demand: dict[str, str] = {}
    request: tuple[str, ...] = ()
    owner: str = ""


class FeatureSet(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``features``: the feature tables, one row per entity and ``as_of``; nothing in a row is later than it."""

    views: dict[str, TableVersion]
    columns: dict[str, tuple[str, ...]]
    as_of: tuple[str, ...]
    code_digest: Digest
    inputs: tuple[TableVersion, ...]
    declared: dict[str, ViewRecord] = {}


# ----------------------------------------------------------------------------------------------------------- training


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one model on one slice. ``model`` is ``candidate`` or a baseline's name."""

    metric: str
    model: str
    slice: str
    estimate: Estimate


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate minus baseline on one slice, paired per unit; the sign is turned so that above zero is better."""

    metric: str
    baseline: str
    slice: str
    difference: Estimate


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``training``: what a run made. ``artifacts`` maps file names inside the bundle to blob digests."""

    run_id: str
    workload: str
    artifacts: dict[str, Digest]
    signature: "ModelSignature"
    parameters: dict[str, Any]
    metrics: tuple[Metric, ...]
    comparisons: tuple[Comparison, ...]
    split: dict[str, Any]
    inputs: tuple[TableVersion, ...]
    code_digest: Digest
    environment_digest: Digest
    seed: int
    seconds: float
    isolated: bool


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output, in Open Inference Protocol words; -1 is a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelSignature(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes and gives. ``predictor`` names the loader, one of those of serving."""

    predictor: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


# ------------------------------------------------------------------------------------------------------------ release


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One gate. ``insufficient_evidence`` is never a pass; a named waiver can let it through in ``dev``."""

    gate: str
    name: str
    verdict: Literal["pass", "fail", "insufficient_evidence"]
    measured: Estimate | None
    limit: str
    reason: str
    line: int | None = None
    waiver: str | None = None


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``gates``: every gate's result and whether the candidate may be bundled for release."""

    results: tuple[GateResult, ...]
    passed: bool
    summary: str


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``bundle``: a signed, content-addressed model version. ``digest`` is that of its manifest."""

    name: str
    version: int
    digest: Digest
    tenant: str
    files: dict[str, Digest]
    size: int
    signature_digest: Digest
    bom_digest: Digest


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``approval``: who let which bundle into which environment, and on which ground."""

    bundle: Digest
    environment: str
    state: Literal["approved", "waiting", "refused"]
    by: tuple[str, ...]
    reason: str
    policies: tuple[str, ...] = ()
    waivers: tuple[str, ...] = ()


class LoadMoment(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a load run, from ``at`` seconds after its start: the answered requests that were due in it."""

    at: float
    requests: int
    p50_ms: float
    p99_ms: float


class LoadTest(msgspec.Struct, frozen=True, kw_only=True):
    """A short open- or closed-loop load run against an endpoint. Latencies in milliseconds, as the client saw them.

    ``unsent`` requests were due in an open loop, and no connection became free for them in time. ``lag_p99_ms`` is how
    late the client itself was with requests that it only had to wait for; None in a closed loop, where none is due.
    """

    requests: int
    failed: int
    seconds: float
    rate: float
    connections: int
    p50_ms: float
    p90_ms: float
    p99: Estimate
    limit_p99_ms: float
    met: bool
    unsent: int = 0
    lag_p99_ms: float | None = None
    percentiles: tuple[tuple[float, float], ...] = ()
    """Share of the answered requests, and the latency that it stays within."""
    intervals: tuple[tuple[float, Estimate], ...] = ()
    """The same for the shares that people ask for, each with its interval."""
    over_time: tuple[LoadMoment, ...] = ()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``endpoint``: a bundle served under an approval, with the load run that shows it meets the file."""

    name: str
    url: str
    bundle: Digest
    revision: int
    protocol: str
    load: LoadTest | None


# --------------------------------------------------------------------------------------------------- serving, outcomes


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """To which release of a rollout a request was assigned, at random by ``split``: its key's hash in [0, 1).

    The prediction's ``bundle`` says who answered: the stable one also where an assigned candidate failed.
    """

    rollout: str
    step: int
    mode: Literal["shadow", "split"]
    share: float
    split: float
    assigned: Literal["stable", "candidate"]


RolloutState = Literal["running", "frozen", "completed", "rolled_back"]
"""How far a rollout is: what it means and what follows stands in :mod:`bedplate.release.rollout`."""

Guard = Literal["errors", "latency", "kpi", "rows"]
"""What may roll a candidate back: its failures, its slowness, what it earns, or how many rows it answers otherwise."""


class GuardFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What one guard of a rollout sees: both releases with intervals, the evidence, and whether it rolls back.

    A release that was asked nothing has no figure.
    """

    guard: Guard
    e_value: float
    limit: float
    stable: Estimate | None
    candidate: Estimate | None
    alarm: bool
    text: str


Unit = Literal["requests", "rows", "elements"]
"""What quotas of an endpoint count: requests, rows of their inputs, or elements of all their input tensors."""


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What one principal may ask of an endpoint: ``rate`` requests a second on average and ``burst`` at once, and so
    many in a ``day`` and a ``month`` of UTC. None bounds nothing; a burst of None is what the rate allows in a second.
    """

    rate: float | None = None
    burst: int | None = None
    day: int | None = None
    month: int | None = None


class ReplicaPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica costs an hour; ``basis`` is how that is known: the machine, its price, and who shares it."""

    hour: float
    currency: str
    basis: str

    def each(self, seconds: float, predictions: int) -> float | None:
        """What a prediction costs if replicas ran so many seconds for so many of them; None while there are none."""
        return self.hour * seconds / 3600 / predictions if predictions else None


class TraceContext(msgspec.Struct, frozen=True, kw_only=True):
    """The trace that a request is a part of, as W3C writes it, and how long its parts took in the replica.

    ``receive_ms`` is from its arrival until it was decoded, ``queue_ms`` until the model began, ``model_ms`` what the
    model took; ``steps_ms`` what each step of it took, in their order, if it is a graph, and ``starts_ms`` when it
    began after the model did; without that one began when the one before it ended.
    """

    parent: str
    state: str = ""
    receive_ms: float = 0.0
    queue_ms: float = 0.0
    model_ms: float = 0.0
    steps_ms: dict[str, float] = {}
    starts_ms: dict[str, float] = {}


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One served prediction, as the journal and then the prediction table keep it.

    ``exposure`` is known during a rollout, ``trace`` where the caller sent one. ``ended``: why an answer in pieces was
    broken off, empty when it was whole; its outputs are the pieces that were sent.
    """

    id: str
    request_id: str
    time: str
    use_case: str
    endpoint: str
    bundle: Digest
    evidence: Digest
    principal: str
    decision: str
    entity: str
    inputs: dict[str, Any]
    features: dict[str, Any]
    outputs: dict[str, Any]
    latency_ms: float
    replayed: bool = False
    exposure: Exposure | None = None
    ended: str = ""
    trace: TraceContext | None = None


class FeatureRead(msgspec.Struct, frozen=True, kw_only=True):
    """One question of features by key at a replica: by whom, of which view, for what, and of how many entities.

    ``decision`` is ``allow`` or ``deny``. Which entities is not said: an audit is no second place for people's ids.
    """

    time: str
    principal: str
    view: str
    purpose: str
    decision: str
    keys: int


class DriftFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Drift of one feature: an effect with its interval and anytime-valid evidence; an alarm needs both."""

    feature: str
    effect: Estimate
    effect_unit: str
    minimum_effect: float
    e_value: float
    alarm: bool


class ObservedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of served traffic: a day, or a moment of a replay.

    ``as_of`` is its start in RFC 3339; answer times are in ms.

    ``matched`` is the share of predictions that a matching purchase followed; None where none had its whole time yet.
    ``drift_evidence`` is of everything up to its end.
    """

    as_of: str
    predictions: int
    p50_ms: float
    p99_ms: float
    drift_evidence: float
    drift_alarm: bool
    with_outcome: int = 0
    matched: Estimate | None = None


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``observation``: what was seen in served traffic.

    ``matched`` are predictions followed by a matching purchase. A replay of history shows matches, never value or an
    effect on the KPI: those need randomised exposure. ``reference`` is empty if drift was not watched; ``notes`` say
    why, and what else could not be looked at.
    """

    endpoint: str
    bundle: Digest
    predictions: int
    with_outcome: int
    matched: Estimate
    windows: tuple[ObservedWindow, ...]
    drift: tuple[DriftFinding, ...]
    drift_alarm: bool
    drift_evidence: float
    table: TableVersion
    reference: str
    latency_p99_ms: float
    replayed: bool
    notes: tuple[str, ...] = ()


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured for one entry of ``retrain.when``, and whether it ``fired``; None is not measured.

    One that is ``hard`` is a promise of the file. ``measured`` and ``threshold`` are in what the signal counts in:
    evidence, a shortfall, rows, or seconds.
    """

    when: str
    signal: str
    hard: bool
    measured: float | Estimate | None
    threshold: float
    fired: bool
    why: str


class RetrainDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``retrain``: whether to retrain, every signal that was looked at, and why."""

    retrain: bool
    signals: tuple[Signal, ...]
    expected_gain: Estimate | None
    expected_cost: float | None
    currency: str
    reason: str


# ------------------------------------------------------------------------------------------------------------- events


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One progress line of a running flow, as sent over the owner's socket and shown by the CLI."""

    stage: str
    state: Literal["started", "progress", "finished", "skipped", "failed", "waiting"]
    message: str
    done: float | None = None
    total: float | None = None
    seconds: float | None = None
