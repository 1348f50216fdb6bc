"""The values of the planner. All are plain and JSON-able: the same inputs give the same plan, byte for byte."""

from typing import Literal

import msgspec

from bedplate.ids import Digest
from bedplate.plan.counts import Transformer
from bedplate.plan.experience import Learned
from bedplate.plan.graphs import GraphCount
from bedplate.records import Estimate
from bedplate.usecase.types import Money


class TableFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one data set before it is read: rows and bytes, None where nobody knows yet."""

    rows: int | None = None
    size: int | None = None


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A model, counted. ``name`` is that of a published model, or ``yours``; ``digest`` is that of an ONNX file."""

    name: str
    digest: Digest | None = None
    transformer: Transformer | None = None
    graph: GraphCount | None = None


class DataFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the data of a use case, by data set, and of the model that its file names."""

    tables: dict[str, TableFacts] = {}
    model: ModelFacts | None = None


class MatrixRate(msgspec.Struct, frozen=True, kw_only=True):
    """Products of square matrices of 32-bit floats, one thread: rows of a matrix, and 10^9 operations a second."""

    rows: int
    gflops: float


class AcceleratorProbe(msgspec.Struct, frozen=True, kw_only=True):
    """What a short measurement found on one accelerator. None: the library that measured cannot tell."""

    name: str
    framework: str
    memory: int | None
    """Bytes."""
    matmul_tflops: dict[str, float]
    """10^12 operations a second, by the type of the numbers."""
    copy_gbps: float | None
    """10^9 bytes a second, read and written, in its own memory."""
    upload_gbps: float
    """10^9 bytes a second from the memory of the host."""
    launch_us: float | None
    """The smallest piece of work, from the host's call to its end."""


class BatchTime(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one call with so many rows, the quieter tenth of many."""

    rows: int
    seconds: float


class ModelProbe(msgspec.Struct, frozen=True, kw_only=True):
    """What a model of the user took on this machine, on one thread: an anchor for what is like it."""

    name: str
    digest: Digest
    times: tuple[BatchTime, ...]


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What a short measurement found on this machine. None: could not be measured here.

    Rates are of one core; times are of single operations, the quieter tenth of many.
    """

    cpu: str
    cores: int
    memory: int
    """Bytes."""
    clock_ghz: float | None
    """As the system reports it: usually the base clock, below what the cores run at."""
    matmul_gflops: float
    """32-bit floats, one thread."""
    copy_gbps: float
    """10^9 bytes a second, read and written, one thread."""
    score_gbps: float
    """10^9 bytes a second of a matrix too large for the caches, times a vector, as NumPy does it."""
    select_ns: float
    """Picking the best of many scores, per score, as NumPy does it."""
    request_us: float
    """Decode one request and encode its answer."""
    service_cs2: float
    """Squared coefficient of variation of about a millisecond of steady work: how unsteady this machine is."""
    onnx_call_us: float | None
    """Fixed cost of one call of ONNX Runtime."""
    onnx_tree_ns: float | None
    """One row through one tree of depth 6 in ONNX Runtime, one thread."""
    fsync_ms: float
    matmul_sizes: tuple[MatrixRate, ...] = ()
    matmul_all_gflops: float | None = None
    """All cores together, the largest of ``matmul_sizes``."""
    copy_all_gbps: float | None = None
    """All cores together."""
    disk_write_gbps: float | None = None
    """One file written from its start to its end, synced."""
    disk_read_gbps: float | None = None
    """The same file read again, not from memory where the system lets go of it."""
    accelerators: tuple[AcceleratorProbe, ...] = ()
    models: tuple[ModelProbe, ...] = ()
    """The user's own, if any was given."""
    crowded: float = 0.0
    """Share of the processors that others took meanwhile: by up to that the machine was measured slower than it is."""
    made: str
    """RFC 3339."""
    seconds: float
    """What measuring took."""
    code: Digest
    """Of the code that measured: figures of another version are not the same figures."""

    @property
    def doubtful(self) -> bool:
        """Whether others took so much of the processors that it is worth a word."""
        return self.crowded >= 0.1


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One derived requirement: the number, the line of the file it comes from, and the rule that made it."""

    name: str
    value: float
    unit: str
    line: int
    rule: str
    kind: Literal["stated", "derived", "assumed"]
    low: float | None = None
    high: float | None = None


class StageBudget(msgspec.Struct, frozen=True, kw_only=True):
    """The share of the p99 that one stage of a request may take."""

    stage: str
    seconds: float
    rule: str
    line: int


class RecommenderSize(msgspec.Struct, frozen=True, kw_only=True, tag="recommender"):
    """What one recommender request works on; ``graph`` and ``digest`` are of an ONNX file that answers it whole."""

    catalogue: int
    users: int
    factors: int
    candidates: int
    features: int
    trees: int
    depth: int
    graph: GraphCount | None = None
    digest: Digest | None = None


class TabularSize(msgspec.Struct, frozen=True, kw_only=True, tag="tabular"):
    """What one tabular request works on; ``graph`` and ``digest`` are of an ONNX file that scores it."""

    features: int
    trees: int
    depth: int
    graph: GraphCount | None = None
    digest: Digest | None = None


class ImageSize(msgspec.Struct, frozen=True, kw_only=True, tag="image_inference"):
    """One image a request, through a model of these counts; ``digest`` as in :class:`ModelFacts`."""

    name: str
    graph: GraphCount
    precisions: tuple[str, ...]
    features: int = 0
    digest: Digest | None = None


class EmbeddingSize(msgspec.Struct, frozen=True, kw_only=True, tag="embedding"):
    """One text of ``tokens`` a request; ``graph`` and ``digest`` are of the model's ONNX file, where it has one."""

    name: str
    model: Transformer
    tokens: int
    precisions: tuple[str, ...]
    features: int = 0
    graph: GraphCount | None = None
    digest: Digest | None = None


class ChatSize(msgspec.Struct, frozen=True, kw_only=True, tag="llm_inference"):
    """One prompt and one answer a request; ``cached`` is the share of the prompt that need not be computed."""

    name: str
    model: Transformer
    tokens_in: int
    tokens_out: int
    cached: float
    precisions: tuple[str, ...]
    features: int = 0


class ImageTrainingSize(msgspec.Struct, frozen=True, kw_only=True, tag="image_training"):
    """One run over ``images``, ``epochs`` times; ``batch`` of all devices together."""

    name: str
    graph: GraphCount
    images: int
    epochs: int
    batch: int
    precisions: tuple[str, ...]


class LanguageTrainingSize(msgspec.Struct, frozen=True, kw_only=True, tag="llm_training"):
    """One run over ``tokens``, in steps of ``batch`` sequences of all devices together."""

    name: str
    model: Transformer
    tokens: int
    sequence: int
    batch: int
    precisions: tuple[str, ...]


class ScoringSize(msgspec.Struct, frozen=True, kw_only=True, tag="batch_scoring"):
    """One run that scores ``rows`` with trees."""

    rows: int
    features: int
    trees: int
    depth: int


class PipelineSize(msgspec.Struct, frozen=True, kw_only=True, tag="data_pipeline"):
    """One run that reads so many bytes, in records that take ``seconds`` of one core each."""

    size: int
    record: int
    seconds: float


Requests = RecommenderSize | TabularSize
"""Answered by processors, stage by stage."""
Served = RecommenderSize | TabularSize | ImageSize | EmbeddingSize | ChatSize
Job = ImageTrainingSize | LanguageTrainingSize | ScoringSize | PipelineSize
Size = (
    RecommenderSize
    | TabularSize
    | ImageSize
    | EmbeddingSize
    | ChatSize
    | ImageTrainingSize
    | LanguageTrainingSize
    | ScoringSize
    | PipelineSize
)


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the plan has to meet, typed, each number with its line and rule."""

    use_case: str
    file_digest: Digest
    items: tuple[Item, ...]
    budgets: tuple[StageBudget, ...]
    size: Size
    hourly: tuple[float, ...]
    """Rate in each hour of a day as a fraction of the peak: 24 numbers, the highest is 1; none for what ends."""
    residency: tuple[str, ...]
    residency_line: int
    budget: Money | None
    training_budget: Money | None
    on_breach: Literal["block", "warn"]
    replicas_min: int
    replicas_max: int
    replicas_line: int
    learned: tuple[Learned, ...] = ()
    """What earlier plans got wrong of such work on this machine: its predictions are corrected by it."""

    def correction(self, figure: str) -> Learned | None:
        """What was learned of one figure."""
        return next((item for item in self.learned if item.figure == figure), None)

    def item(self, name: str) -> Item:
        """The item of that name."""
        return next(item for item in self.items if item.name == name)

    def value(self, name: str) -> float:
        """The value of :meth:`item`, in its unit."""
        return self.item(name).value

    def allowed(self, period: Literal["month", "run"]) -> Money | None:
        """What a month, or a run that ends, may cost by the file."""
        return self.training_budget if period == "run" else self.budget


class StageTime(msgspec.Struct, frozen=True, kw_only=True):
    """The predicted time of one stage of a request, in seconds, and what it was predicted from."""

    stage: str
    time: Estimate
    why: str


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How one copy of a model lies on accelerators. ``batch``: requests in flight of a copy, or a training step's."""

    accelerator: str
    devices: int
    """Of all copies together."""
    precision: str
    batch: int
    micro_batch: int = 1
    tensor: int = 1
    pipeline: int = 1
    virtual: int = 1
    """Stages that each device holds of the pipeline."""
    context: int = 1
    expert: int = 1
    sharding: int = 0
    recompute: str = "none"
    memory_gib: float = 0.0
    """That one device needs."""


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """One predicted figure, with the limit that the file sets for it and the probability of keeping it."""

    name: str
    estimate: Estimate
    unit: str
    limit: float | None = None
    line: int = 0
    chance: float | None = None
    known: float | None = None
    """Share of the model's uncertainty that near measurements took away; None: nothing was measured that is like it."""


class Flip(msgspec.Struct, frozen=True, kw_only=True):
    """An input that changes the choice when it is multiplied by ``factor``, and the option that is then chosen."""

    name: str
    factor: float
    to: str


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """A month, or one run, in money by part. ``compute`` is what is used, ``idle`` what is paid for and waits."""

    currency: str
    period: Literal["month", "run"] = "month"
    compute: Estimate
    idle: Estimate
    storage: Estimate
    logging: Estimate
    egress: Estimate
    retraining: Estimate
    total: Estimate


Market = Literal["on-demand", "spot", "reserved", "owned"]


def named(provider: str, region: str, instance: str, market: Market) -> str:
    """``aws/us-east-1/p5.48xlarge (spot)``."""
    paid = f" ({market})" if market in ("spot", "reserved") else ""
    return f"{provider}/{region}/{instance}{paid}"


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run it. What could not be predicted is None, and ``lost`` says why."""

    provider: str
    region: str
    instance: str
    architecture: str
    vcpus: int
    memory_gib: float
    price_hour: float
    price_date: str
    price_source: str
    price_quality: str
    market: Market = "on-demand"
    layout: Layout | None = None
    predicted: tuple[Predicted, ...] = ()
    carbon: Estimate | None = None
    """Kilograms of CO2 equivalents in the period of the cost; None where the grid or the power is not known."""
    machines: int | None
    replicas: int | None
    p99: Estimate | None
    """Seconds, as the caller sees it, at the peak and with every machine up."""
    utilisation: Estimate | None
    service: Estimate | None
    """Mean seconds of work per request."""
    method: str
    """How p99 was found: formula or simulation."""
    cost: Cost | None
    meets: bool
    lost: str
    """Why it was not chosen; empty for the chosen one."""

    @property
    def name(self) -> str:
        """:func:`named`: no other option of a plan has it."""
        return named(self.provider, self.region, self.instance, self.market)


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The option that a use case is served with, by its name, and the day since when."""

    name: str
    since: str


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """What one requirement costs: the monthly total saved if it were let go. ``path`` is where the file states it."""

    name: str
    line: int
    path: str = ""
    saved: float
    share: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``plan``: what was compared, what was chosen and why."""

    use_case: str
    requirements: Requirements
    catalogue_digest: Digest
    probe: Probe
    stages: tuple[StageTime, ...]
    """Predicted on this machine."""
    options: tuple[Option, ...]
    """Cheapest first among those that meet the file, then the others."""
    chosen: Option | None
    runners_up: tuple[Option, ...]
    """The two next best that meet the file."""
    here: Option | None
    """This machine, where it could do the work at all."""
    flips: tuple[Flip, ...] = ()
    """Nearest first."""
    binding: Constraint | None
    constraints: tuple[Constraint, ...]
    in_the_way: tuple[Constraint, ...] = ()
    """Where nothing meets the file: the requirements without which, each alone, something would."""
    breach: Literal["none", "warn", "block"]
    reason: str
    running: Running | None = None
    """What served the use case when the plan was made; None: nothing did."""
    about_running: str = ""
    """Why that is kept, or is not any more, in a sentence."""
    cautions: tuple[str, ...] = ()
    """What to know of the prices and measurements that decided."""
    currency: str
