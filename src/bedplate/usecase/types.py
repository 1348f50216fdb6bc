"""The types of ``usecase.yaml``. Units are fixed: seconds, bytes, fractions of one, money with its currency."""

from typing import Annotated, Any, Literal

import msgspec

from bedplate.errors import InputError
from bedplate.graph import Graph
from bedplate.records import MaskRule

Seconds = Annotated[float, msgspec.Meta(extra_json_schema={"quantity": "duration"})]
"""Written ``20 ms``, ``5 s``, ``14 d``; kept in seconds."""
PerSecond = Annotated[float, msgspec.Meta(extra_json_schema={"quantity": "rate"})]
"""Written ``500/s``, ``30/min``; kept per second."""
Bytes = Annotated[int, msgspec.Meta(extra_json_schema={"quantity": "size"})]
"""Written ``4 GiB``, ``200 MB``; kept in bytes."""
Fraction = Annotated[float, msgspec.Meta(extra_json_schema={"quantity": "share"})]
"""Written ``99.9 %``; kept as a fraction of one."""
Count = Annotated[int, msgspec.Meta(extra_json_schema={"quantity": "count"})]
"""Written ``92000`` or ``92000 items``; kept as a whole number."""


class Money(msgspec.Struct, frozen=True):
    """Written ``2000 USD``."""

    amount: float
    currency: str


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section: immutable, no unknown key."""


class Owner(_Section, frozen=True, kw_only=True):
    """Who answers for the use case."""

    team: str
    accountable: str
    contact: str = ""


class Kpi(_Section, frozen=True, kw_only=True):
    """The figure that the business wants to move."""

    name: str
    unit: str
    direction: Literal["up", "down"]
    baseline: float
    target: float
    measured_by: str = ""


class Value(_Section, frozen=True, kw_only=True):
    """What one accepted unit is worth, and how many a month are expected once the target is reached."""

    per_unit: Money
    of: str
    monthly: Count | None = None


class ObjectiveSection(_Section, frozen=True, kw_only=True):
    """What the business wants."""

    statement: str
    kpi: Kpi
    value: Value | None = None


class Risk(_Section, frozen=True, kw_only=True):
    """Switches controls on."""

    level: Literal["minimal", "limited", "high"]
    affects_people: bool = False
    rationale: str = ""


WorkloadKind = Literal[
    "recommender",
    "tabular",
    "image_training",
    "image_inference",
    "embedding",
    "llm_training",
    "llm_inference",
    "batch_scoring",
    "data_pipeline",
]


class Workload(_Section, frozen=True, kw_only=True):
    """What kind of model this is, and how large its world is. Which fields belong to a kind, ``check`` says.

    ``model`` is a file of this folder, or the name of a model that the planner has published measurements of: a
    ``config.json`` as Hugging Face writes it, an ONNX file, a program of ``torch.export`` (``.pt2``), or a ``.py`` file
    with a function marked ``@network``. For ``tabular`` and ``recommender`` it may be the ONNX file that answers a
    request whole; an ``embedding`` may name its ONNX file with the ``config.json`` beside it. ``tokens``, ``images``,
    ``rows`` and ``bytes`` are of one run;
    ``tokens_in`` and ``tokens_out`` of one request, and ``cached`` is the share of the former that was asked before.
    ``batch`` counts sequences or images of one step; ``record`` is the size of one record; ``cpu`` the time of one core
    that reading one takes.
    """

    kind: WorkloadKind
    catalogue: Count | None = None
    users: Count | None = None
    rows: Count | None = None
    target: str | None = None
    task: Literal["classification", "regression"] | None = None
    model: str | None = None
    precision: tuple[Literal["bf16", "fp8", "fp4", "fp16"], ...] = ()
    tokens: Count | None = None
    sequence: Count | None = None
    batch: Count | None = None
    tokens_in: Count | None = None
    tokens_out: Count | None = None
    cached: Fraction = 0.0
    images: Count | None = None
    epochs: Count = 1
    bytes: Bytes | None = None
    record: Bytes | None = None
    cpu: Seconds | None = None


class Latency(_Section, frozen=True, kw_only=True):
    """What a caller may wait, at percentiles: for the whole answer, and for text its first and each further token."""

    p99: Seconds
    p50: Seconds | None = None
    first_token: Seconds | None = None
    per_token: Seconds | None = None


class Throughput(_Section, frozen=True, kw_only=True):
    """Requests at the busiest moment, and how the day is shaped."""

    peak: PerSecond
    daily_shape: Literal["flat", "office", "retail"] = "flat"


class Freshness(_Section, frozen=True, kw_only=True):
    """How old features and model may get."""

    features: Seconds | None = None
    model: Seconds | None = None


class Margin(_Section, frozen=True, kw_only=True):
    """A baseline that the candidate may fall short of by at most ``margin``."""

    baseline: str
    margin: float


class Quality(_Section, frozen=True, kw_only=True):
    """One promise about the model. Exactly one of ``better_than``, ``not_worse_than`` and ``at_least`` is given.

    ``better_than`` is ``each baseline`` or a baseline's name. ``on`` is ``all`` or a slice.
    """

    metric: str
    better_than: str | None = None
    not_worse_than: Margin | None = None
    at_least: float | None = None
    on: str = "all"


class Budget(_Section, frozen=True, kw_only=True):
    """What it may cost."""

    monthly: Money
    training_run: Money | None = None
    on_breach: Literal["block", "warn"] = "warn"


class RequirementsSection(_Section, frozen=True, kw_only=True):
    """What the model and its infrastructure must meet. ``time`` is what one run may take, for what does not serve."""

    latency: Latency | None = None
    throughput: Throughput | None = None
    time: Seconds | None = None
    availability: Fraction = 0.99
    freshness: Freshness = Freshness()
    quality: tuple[Quality, ...] = ()
    budget: Budget | None = None
    residency: tuple[str, ...] = ()
    size: Bytes | None = None

    @property
    def p99(self) -> float:
        """Seconds that 99 of 100 answers may take.

        Raises:
            InputError: the use case does not serve.
        """
        if self.latency is None:
            raise InputError("this use case does not serve", where="requirements", fix="give requirements.latency.p99")
        return self.latency.p99

    @property
    def traffic(self) -> Throughput:
        """What comes in.

        Raises:
            InputError: the use case does not serve.
        """
        if self.throughput is None:
            raise InputError("this use case does not serve", where="requirements", fix="give requirements.throughput")
        return self.throughput


class Source(_Section, frozen=True, kw_only=True):
    """Where rows come from.

    ``path`` is a file or folder, or an address: ``https://``, ``s3://``. ``package`` reads it inside an installed
    Python package. ``sql`` runs a ``query`` on a ``connection`` of the home, or on the file of SQLite at ``path``;
    ``rows`` asks a program that the home names as a connection, such as a resource of dlt. ``region`` is where it lies;
    what is a file or folder lies where the home does, unless it says so.
    """

    kind: Literal["parquet", "csv", "json", "arrow", "images", "dicom", "sql", "rows"]
    path: str = ""
    package: str | None = None
    connection: str = ""
    query: str = ""
    region: str = ""


class Incremental(_Section, frozen=True, kw_only=True):
    """How rows come in batch by batch: the column that grows, how far below its greatest value a row may come in, and
    what happens to one that is later. Rows are known by the primary key of the contract."""

    watermark: str
    lateness: Seconds = 0.0
    late: Literal["accept", "refuse"] = "accept"


class Region(_Section, frozen=True, kw_only=True):
    """Rectangles of pixels that are made black, ``[left, top, right, bottom]`` each, in pictures of one kind.

    A picture is of that kind if it says all that is given here. No box: somebody has looked, and nothing is written
    into the pixels of this kind.
    """

    boxes: tuple[tuple[int, ...], ...]
    modality: str | None = None
    manufacturer: str | None = None
    rows: Count | None = None
    columns: Count | None = None


class Deidentify(_Section, frozen=True, kw_only=True):
    """What takes out of pictures who somebody is, before anything of them is a column.

    ``dicom-basic`` is the basic profile of PS3.15 Annex E with its ``options``, for DICOM files; ``images`` drops what
    stands beside the pixels of other files. ``regions`` say where text is written into pixels; ``text: find`` looks for
    it in every picture as well. ``private`` names, by private creator, the private elements to keep, such as
    ``0043,xx39``.
    """

    profile: Literal["dicom-basic", "images"]
    options: tuple[
        Literal[
            "clean-pixel-data", "clean-visual-features", "clean-graphics", "clean-structured-content",
            "clean-descriptors", "retain-full-dates", "modified-dates", "retain-patient", "retain-device",
            "retain-uids", "retain-safe-private", "retain-institution",
        ],
        ...,
    ] = ()  # fmt: skip
    regions: tuple[Region, ...] = ()
    text: Literal["declared", "find"] = "declared"
    private: dict[str, tuple[str, ...]] = {}


class DataSet(_Section, frozen=True, kw_only=True):
    """One data set: its contract, its source, and the column that names the person it is about.

    It is read whole each time, unless ``incremental`` says how it is added to.
    """

    contract: str
    source: Source
    subject: str | None = None
    incremental: Incremental | None = None
    deidentify: Deidentify | None = None


class Governance(_Section, frozen=True, kw_only=True):
    """What the data may be used for, for how long, and what is sensitive in it.

    ``sensitive`` names columns of the contracts. The flow uses them; people see them only if policy lets them unmask.
    ``masks`` says, by a tag or classification that contracts put on columns, what people see in place of their values.
    ``privacy_budget`` is how much epsilon each of them may spend for each purpose on masks of kind ``noise``.
    ``rows`` names, by data set, a file of Cedar policies on its rows: who sees which. Without one, all rows are seen.
    ``deidentify`` takes out, before rows land, what identifies somebody by the tags of the contracts, as Safe Harbor of
    HIPAA has it; data sets of pictures say how in their own ``deidentify``.
    """

    purpose: str
    retention: Seconds | None = None
    sensitive: tuple[str, ...] = ()
    masks: dict[str, MaskRule] = {}
    privacy_budget: float = 0
    rows: dict[str, str] = {}
    erasure: Literal["by subject", "none"] = "none"
    deidentify: Literal["safe-harbor", "none"] = "none"


class UpkeepSection(_Section, frozen=True, kw_only=True):
    """How often the control plane looks after the tables by itself, each task where it is written; a minute at least.

    ``promises`` holds them against what contracts promise over time, ``expire`` takes out what is older than it may be
    kept, ``compact`` writes small files together, ``scrub`` hashes every data file again, and ``skew`` compares the
    features that were served since the time before with their recomputation.
    """

    promises: Seconds | None = None
    expire: Seconds | None = None
    compact: Seconds | None = None
    scrub: Seconds | None = None
    skew: Seconds | None = None


class Resources(_Section, frozen=True, kw_only=True):
    """What training may use."""

    cpu: Count = 1
    memory: Bytes = 2 << 30


class Train(_Section, frozen=True, kw_only=True):
    """How to train.

    ``models`` are ONNX files of this folder that training gets and the release takes along, under their own names.
    ``holdout`` is the last stretch of time, or the share of rows, that nothing is tuned on. Where it is time, the model
    learns from ``windows`` stretches of the same length before it.
    """

    resources: Resources = Resources()
    models: tuple[str, ...] = ()
    holdout: str | None = None
    windows: Count = 5
    seed: int = 7
    schedule: str | None = None
    parameters: dict[str, Any] = {}


class WaiverSection(_Section, frozen=True, kw_only=True):
    """A named person lets results of a gate through that have too little evidence. It holds in ``dev`` only."""

    gate: str
    by: str
    reason: str


class Release(_Section, frozen=True, kw_only=True):
    """What a candidate must pass, and who must agree, by environment (``2 of [growth-leads, risk]``)."""

    gates: tuple[Literal["quality", "latency", "size", "fairness", "security"], ...] = ("quality", "latency", "size")
    approvals: dict[str, str] = {}
    waivers: tuple[WaiverSection, ...] = ()


class Shift(_Section, frozen=True, kw_only=True):
    """A part of the day in which more copies serve at least, written ``"07:00"`` to ``"19:00"``."""

    from_: str = msgspec.field(name="from")
    to: str
    min: Count
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = (
        "mon", "tue", "wed", "thu", "fri", "sat", "sun",
    )  # fmt: skip


class Replicas(_Section, frozen=True, kw_only=True):
    """How many copies serve: more under load, and none ``idle`` after the last request where ``min`` is 0.

    The clock of ``schedule`` is that of ``zone``, a name of the time zone database.
    """

    min: Count = 1
    max: Count = 1
    idle: Seconds = 300.0
    zone: str = "UTC"
    schedule: tuple[Shift, ...] = ()


class Rollout(_Section, frozen=True, kw_only=True):
    """Traffic steps and what guards them.

    A step lasts ``hold``, and until the candidate has answered ``least`` requests. ``shadow`` is how long it first
    answers copies, which nobody sees; then no more than ``differ`` of all rows may differ. ``key`` names the input
    whose values stay with one release. ``between`` bounds the values that outcomes report for the guard ``kpi``.
    """

    steps: tuple[Fraction, ...] = (1.0,)
    guard: tuple[Literal["errors", "latency", "kpi"], ...] = ("errors", "latency")
    hold: Seconds = 600.0
    least: Count = 20
    shadow: Seconds | None = None
    differ: Fraction | None = None
    key: str | None = None
    between: tuple[float, float] = (0.0, 1.0)


class QuotaSection(_Section, frozen=True, kw_only=True):
    """What each principal may ask: so many requests a second on average, ``burst`` at once, and in a day and a month.

    What is not given bounds nothing; ``burst`` is what the rate allows in a second. Single principals and groups get
    other quotas by ``bedplate quota set``. ``count`` is what all of them count: requests, rows, or elements of tensors.
    """

    count: Literal["requests", "rows", "elements"] = "requests"

    rate: PerSecond | None = None
    burst: Count | None = None
    day: Count | None = None
    month: Count | None = None


class Serve(_Section, frozen=True, kw_only=True):
    """How it is served."""

    protocol: tuple[Literal["rest", "grpc"], ...] = ("rest",)
    replicas: Replicas = Replicas()
    rollout: Rollout = Rollout()
    log: Literal["buffered", "durable"] = "buffered"
    port: Count | None = None
    grpc_port: Count | None = None
    quota: QuotaSection = QuotaSection()


class Outcomes(_Section, frozen=True, kw_only=True):
    """How later facts are joined to predictions."""

    join: str
    within: Seconds
    data: str | None = None


class Monitor(_Section, frozen=True, kw_only=True):
    """What is watched. ``replay`` is how many held-out units are replayed as traffic."""

    drift: Literal["default", "off"] = "default"
    outcomes: Outcomes | None = None
    replay: Count | None = None


class Alert(_Section, frozen=True, kw_only=True):
    """What to tell whom, and what to do by itself. ``skew`` fires by what ``upkeep.skew`` finds."""

    when: Literal["slo_burn", "drift", "skew", "errors", "budget"]
    notify: str = ""
    then: Literal["roll_back", "consider_retrain", "nothing"] = "nothing"


class Retrain(_Section, frozen=True, kw_only=True):
    """When to think about retraining, and the condition that decides."""

    when: tuple[str, ...] = ()
    if_: str = msgspec.field(default="expected_gain > cost", name="if")


class UseCase(_Section, frozen=True, kw_only=True):
    """A whole ``usecase.yaml``."""

    bedplate: Literal[1]
    name: str
    owner: Owner
    objective: ObjectiveSection
    risk: Risk
    workload: Workload
    requirements: RequirementsSection
    data: dict[str, DataSet] = {}
    governance: Governance
    upkeep: UpkeepSection = UpkeepSection()
    features: tuple[str, ...] = ()
    train: Train = Train()
    graph: Graph | None = None
    release: Release = Release()
    serve: Serve = Serve()
    monitor: Monitor = Monitor()
    alerts: tuple[Alert, ...] = ()
    retrain: Retrain = Retrain()
