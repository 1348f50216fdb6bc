"""Seconds and memory of one training step of a transformer, and of a whole run with its failures.

Time is work over rate, part by part: matrix products, attention, what is read and written element by element, the
collectives of tensor, sharded-data, context and expert parallelism as far as they are not hidden, the pipeline's
bubble, the optimiser. Sources: Narayanan et al. (2021), Korthikanti et al. (2022), Rajbhandari et al. (2020), Dao
(2023), Shah et al. (2024).
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache

import msgspec

from bedplate.errors import InputError
from bedplate.plan import counts
from bedplate.plan.accelerators import Accelerator, accelerator, models, rows
from bedplate.plan.calibration import Calibrated, Constant, Constants, Estimated, Level, Measured, Model, restore

_RESERVE = 4 * 2**30
"""Bytes that the runtime, its collectives and fragmentation keep from training; published runs show 3 to 5 GiB."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """One layout of a training step. ``batch`` and ``micro_batch`` are sequences, of all devices and of one replica."""

    model: counts.Transformer
    accelerator: Accelerator
    devices: int
    precision: str
    recipe: str = ""
    """How numbers of 8 bits are scaled: ``tensorwise``, ``rowwise`` or ``blockwise``."""
    sequence: int
    batch: int
    micro_batch: int = 1
    tensor: int = 1
    pipeline: int = 1
    virtual: int = 1
    """Stages that each device holds of the pipeline."""
    context: int = 1
    expert: int = 1
    sharding: int = 3
    """ZeRO stage: 0 nothing, 1 optimiser, 2 gradients too, 3 weights too (FSDP)."""
    recompute: counts.Recompute = "none"
    sequence_parallel: bool = True
    fused: bool = True
    """Compiled or hand-fused element-wise steps."""
    fused_loss: bool = False
    """The loss keeps no 32-bit copies of the scores."""
    overlapped: bool = False
    """Tensor parallelism that computes while it sends."""
    dated: int = 0
    """How many generations attention's kernels are behind the accelerator: FlashAttention-2 is one behind Hopper, the
    first is one behind Ampere, and so is two behind Hopper."""

    def __post_init__(self) -> None:
        if self.devices % (self.tensor * self.pipeline * self.context):
            raise InputError(
                f"{self.devices} devices are not a multiple of {self.tensor} x {self.pipeline} x {self.context}",
                where="devices",
                fix="choose tensor, pipeline and context so that they divide the devices",
            )

    @property
    def replicas(self) -> int:
        """Copies of the model that each see other data."""
        return self.devices // (self.tensor * self.pipeline * self.context)

    @property
    def micro_batches(self) -> float:
        """That one replica works through in a step."""
        return max(1.0, self.batch / self.replicas / self.micro_batch)


_CONSTANTS = {
    "matmul": Constant(0.92, 0.08, 0.1),  # share of peak in endless matrix products, were there power for it
    "energy": Constant(0.22, 0.3),  # what 10^12 operations a second take of that for each watt
    "fp8": Constant(0.82, 0.15, 0.12),  # of the peak at 8 bits, beside the share above
    "rowwise": Constant(0.75, 0.2),
    "blockwise": Constant(0.9, 0.2),
    "attention": Constant(0.55, 0.2, 0.15),  # by kernels of its generation: Dao (2023) on A100, cuDNN on H100
    "dated": Constant(0.6, 0.2),  # of that, a generation behind: half (Dao 2023), or 298 of 509 (Shah et al. 2024)
    "ring": Constant(0.1, 0.5),  # what each doubling of context parallelism adds to it
    "elementwise": Constant(60.0, 0.4),  # bytes per token, layer and width, forward and backward, fused
    "cast": Constant(8.0, 0.4),  # bytes of each number that goes into a product of 8 bits, there and back
    "eager": Constant(1.8, 0.3),  # times more when not fused
    "stream": Constant(0.85, 0.08),  # share of the memory's bandwidth
    "small": Constant(180.0, 0.5),  # width at which a product runs at half its rate, at 220 operations a byte of memory
    "link": Constant(0.65, 0.2, 0.15),
    "network": Constant(0.65, 0.2, 0.15),
    "hidden": Constant(0.85, 0.1),  # share of the smaller of computing and sharding that is hidden
    "overlap": Constant(0.5, 0.3),  # what is left of tensor traffic when it is overlapped
    "route": Constant(3e-3, 0.7),  # seconds a layer of experts and micro-batch, for sorting tokens and small products
    "experts": Constant(0.6, 0.25),  # rate of the experts' products, beside the others
    "dispatch": Constant(0.4, 0.3),  # of the bandwidth, when tokens go to their experts
    "wait": Constant(0.02, 0.5),  # what each doubling of nodes adds: all wait for the slowest
    "launch": Constant(3e-4, 0.6),  # seconds a layer and micro-batch that the host cannot hide
}


def _seconds(c: Constants, t: Training) -> float:
    m, a = t.model, t.accelerator
    tokens = t.sequence * t.batch / t.devices * t.tensor * t.pipeline  # that pass through one device
    layers = m.layers / t.pipeline
    bits8 = t.precision == "fp8"
    peak = a.peak(t.precision)
    wide = a.peak("bf16") * c("matmul", a.name) / (1 + c("energy") * a.load("bf16"))
    rate = peak * c("matmul", a.name) / (1 + c("energy") * a.load(t.precision))
    if bits8:
        rate *= c("fp8", a.generation)
        rate *= c(t.recipe) if t.recipe in ("rowwise", "blockwise") else 1.0
    width = m.hidden / math.sqrt(t.tensor)  # tensor parallelism makes products narrow on one side
    rate *= width / (width + c("small") * peak / (220e9 * a.memory_gbps))
    again = {"full": 4 / 3, "half": 7 / 6}.get(t.recompute, 1.0)
    sparse, head = m.experts_met, m.head
    work = 6 * (m.linear - sparse - head) * again + 6 * sparse * again / c("experts")
    matrices = work * tokens / t.tensor / t.pipeline / rate
    matrices += 6 * head * tokens / t.tensor / t.pipeline / wide
    rounds = 3.5 + (t.recompute != "none")
    attention = rounds * m.attention_flops(t.sequence / 2) * tokens / t.tensor / t.pipeline
    attention /= a.peak("bf16") * c("attention", a.generation) * c("dated") ** t.dated
    attention *= 1 + c("ring") * math.log2(t.context)

    memory = a.memory_gbps * 1e9 * c("stream")
    fused = 1.0 if t.fused else c("eager")
    width = c("elementwise") * fused * m.hidden * again
    split = t.tensor if t.sequence_parallel else (1 + (t.tensor - 1) * 0.6)
    elements = (layers * width * tokens / split + 16.0 * m.vocab * tokens / t.tensor / t.pipeline) / memory
    if bits8:
        elements += c("cast") * m.inputs / t.pipeline * again * tokens / t.tensor / memory

    traffic = 0.0
    if t.tensor > 1:
        speed = (a.link_gbps if t.tensor <= a.node else a.network_gbps) * 1e9 * c("link", a.generation)
        trips = 4 + 2 * (t.recompute == "full")
        traffic = trips * layers * tokens * m.hidden * 2 * 2 * (t.tensor - 1) / t.tensor / speed
        traffic *= c("overlap") if t.overlapped else 1.0
    if m.experts and t.expert > 1:
        speed = (a.link_gbps if t.expert <= a.node else a.network_gbps) * 1e9 * c("dispatch")
        sent = tokens * m.experts_used * m.hidden * 2 * (t.expert - 1) / t.expert
        traffic += 4 * m.moe_layers / t.pipeline * sent / speed / t.tensor
    host = (c("launch") * layers + c("route") * m.moe_layers / t.pipeline) * t.micro_batches
    computing = matrices + attention + elements + host
    bubble = (t.pipeline - 1) / t.virtual / t.micro_batches
    sharding = _sharding(c, t)
    # Weights and gradients that are split travel with each micro-batch; whole ones once, while a pipeline runs empty.
    beside = computing if t.sharding >= 2 else computing * min(1.0, t.pipeline / t.micro_batches)
    exposed = sharding - c("hidden") * min(sharding, beside)
    shards = t.replicas if t.sharding else 1
    optimiser = 28.0 * m.parameters / t.tensor / t.pipeline / shards / memory
    slowest = 1 + c("wait") * math.log2(max(1.0, t.devices / a.node))
    return ((computing + traffic) * (1 + bubble) + exposed + optimiser) * slowest


def _sharding(c: Constants, t: Training) -> float:
    """Seconds of collectives between replicas, as if nothing hid them: of what each has, and of the experts that fewer
    share as they lie on more devices."""
    m, lying = t.model, t.expert if t.model.experts else 1
    experts = m.experts_all / t.tensor / t.pipeline
    part = m.parameters / t.tensor / t.pipeline - experts
    return _gathered(c, t, part, 1) + (_gathered(c, t, experts / lying, lying) if experts else 0.0)


def _gathered(c: Constants, t: Training, part: float, lying: int) -> float:
    """Seconds for ``part`` parameters of a device, of which each ``lying``-th device of a replica has others.

    A group that spans whole nodes takes in what it gathers through all network cards of a node together.
    """
    a = t.accelerator
    if t.replicas * t.context <= lying:
        return 0.0
    if t.sharding >= 3:
        volume = 3 * 2 * part * t.micro_batches
    elif t.sharding == 2:
        volume = 2 * part * (t.micro_batches + 1)
    else:
        volume = 2 * 2 * part
    speed = a.link_gbps * c("link", a.generation)
    if t.devices > a.node:
        cards = max(1, a.node // (t.tensor * t.context * lying))
        speed = min(speed, a.network_gbps * c("network", a.generation) * cards)
    return volume / (speed * 1e9)


def _names(t: Training) -> Mapping[str, Sequence[str]]:
    a = t.accelerator
    names = {"matmul": [a.name], "attention": [a.generation], "link": [a.generation], "network": [a.generation]}
    return names | ({"fp8": [a.generation]} if t.precision == "fp8" else {})


MODEL = Model(
    _seconds,
    _CONSTANTS,
    _names,
    {
        "source": Level(0.08),
        "stack": Level(0.06),
        "kind": Level(0.06),
        "layout": Level(0.06, near=True),
    },
    0.03,
    apart=("each", "source"),
    like="kind",
)


def groups(t: Training, source: str) -> dict[str, str]:
    """What a step shares with measurements: the publication, the hardware and precision there, the kind of model."""
    kind = "sparse" if t.model.experts else "dense"
    stack = f"{source} {t.accelerator.name} {t.precision} {t.recipe} {t.fused}"
    return {"source": source, "stack": stack, "kind": f"{kind} {t.precision}", "layout": f"{stack} {kind}"} | {
        "each": repr(t)
    }


def at(t: Training) -> tuple[float, ...]:
    """Where a step lies among others: a factor of e counts as one apart, or less where less depends on it."""
    return (
        math.log(t.model.hidden),
        0.7 * math.log(t.sequence),
        0.4 * math.log(t.devices),
        0.5 * math.log(t.sequence * t.micro_batch),
        0.7 * math.log(t.tensor * t.pipeline),
        1.0 * (t.recompute == "full"),
    )


@cache
def measured() -> tuple[tuple[str, Measured[Training]], ...]:
    """All published steps, each with its quality."""
    return tuple((row["quality"], _measured(row)) for row in rows("llm_training"))


def _measured(row: Mapping[str, str]) -> Measured[Training]:
    t = Training(
        model=models()[row["model"]],
        accelerator=accelerator(row["accelerator"]),
        devices=int(row["gpus"]),
        precision=row["precision"],
        recipe=row["recipe"],
        sequence=int(row["sequence"]),
        batch=int(row["batch"]),
        micro_batch=int(row["micro_batch"]),
        tensor=int(row["tensor"]),
        pipeline=int(row["pipeline"]),
        virtual=int(row["virtual"]),
        context=int(row["context"]),
        expert=int(row["expert"]),
        sharding=int(row["sharding"]),
        recompute=msgspec.convert(row["recompute"] or "none", counts.Recompute),
        sequence_parallel=row["sequence_parallel"] == "yes",
        fused=row["fused"] == "yes",
        fused_loss=row["fused_loss"] == "yes",
        overlapped=row["overlapped"] == "yes",
        dated=int(row["dated"]),
    )
    return Measured(t, float(row["step_seconds"]), groups(t, row["source"]), at(t))


@cache
def calibrated() -> Calibrated[Training]:
    """The model with all measurements that were read, not recalled, as anchors."""
    return restore("llm_training", MODEL, [row for quality, row in measured() if quality == "exact"])


def step(t: Training) -> Estimated:
    """Seconds of one step with a 90 % interval, for a software stack that nobody measured.

    Raises:
        InputError: the accelerator has no rate at this precision.
    """
    return calibrated().estimate(t, groups(t, "yours"), at(t))


def memory_bytes(t: Training, *, flash: bool = True) -> float:
    """Bytes that one device needs: states, activations in flight, scores of the vocabulary, and the runtime.

    ``flash``: attention keeps no scores for the way back.
    """
    m = t.model
    experts = m.experts_all
    part = ((m.parameters - experts) / t.tensor + experts / max(t.tensor, t.expert)) / t.pipeline
    shards = t.replicas * t.context
    states = counts.state_bytes(part, shards=shards, stage=t.sharding)
    in_flight = m.layers / t.pipeline * min(t.pipeline, t.micro_batches)
    if t.virtual > 1:
        in_flight *= 1 + (t.pipeline - 1) / (t.pipeline * t.virtual)
    kept = counts.activation_bytes(
        m,
        sequence=t.sequence // t.context,
        micro_batch=t.micro_batch,
        recompute=t.recompute,
        tensor=t.tensor,
        sequence_parallel=t.sequence_parallel,
        flash=flash,
        layers=in_flight,
    )
    tokens = t.sequence * t.micro_batch // t.context
    return states + kept + counts.logit_bytes(m, tokens=tokens, tensor=t.tensor, fused=t.fused_loss) + _RESERVE


def goodput(*, checkpoint: float, restart: float, between_failures: float) -> tuple[float, float]:
    """The best seconds between checkpoints, and the share of time that then goes into training (Young, 1974).

    All in seconds: to write a checkpoint, to start again, and between two failures of the whole run.
    """
    every = math.sqrt(2 * checkpoint * between_failures)
    return every, max(0.0, 1 - checkpoint / every - (every / 2 + restart) / between_failures)
