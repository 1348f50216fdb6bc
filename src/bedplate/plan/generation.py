"""Tokens a second of a language model that is served: prefill, decode, and the batch that memory allows.

Continuous batching keeps as many sequences in flight as their cache fits beside the weights; each gives a token per
step, and between the steps the prompts of those that come in are computed. Source of the parts: Pope et al. (2022),
Efficiently Scaling Transformer Inference; Yu et al. (2022), Orca.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Literal, NamedTuple

import msgspec

from bedplate.errors import InputError
from bedplate.plan import counts
from bedplate.plan.accelerators import Accelerator, accelerator, models, rows
from bedplate.plan.calibration import Calibrated, Constant, Constants, Estimated, Level, Measured, Model, restore

Phase = Literal["offline", "limited", "prefill", "decode"]
"""All requests at once; under a limit on latency; prompts alone (tokens in); answers alone at a given batch."""

_WEIGHT_BYTES = {"fp4": 0.5625, "fp8": 1.0, "bf16": 2.0, "fp16": 2.0}
"""A weight with its scales; one of sixteen bits of scale each sixteen weights at four bits."""
_CACHE_BYTES = {"fp4": 1.0, "fp8": 1.0, "bf16": 2.0, "fp16": 2.0}
"""A number of what is kept of a sequence, beside weights at those bits, where nothing else was said."""
_RESERVE = 3e9
"""Bytes that the engine keeps for itself on each device."""
_TOKENS = 8192
"""Tokens that each device computes at once, at most: engines size their buffers for so many."""


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A model served on ``devices`` accelerators, in copies of ``tensor`` x ``pipeline`` each. Tokens a request."""

    model: counts.Transformer
    accelerator: Accelerator
    devices: int
    tensor: int = 1
    pipeline: int = 1
    precision: str
    phase: Phase = "offline"
    tokens_in: int
    tokens_out: int
    concurrency: int | None = None
    """Sequences in flight of one copy; None: as many as fit."""
    requests: int | None = None
    """How many are sent in all, at once; None: they never end."""
    beams: int = 1
    """Answers that are followed side by side for each request, of which the best is given."""
    cache: Literal["", "fp8", "bf16"] = ""
    """At how many bits keys and values are kept; empty: at 8 where weights have no more, else at 16."""

    @property
    def cached_bytes(self) -> float:
        """Of one token of one sequence."""
        return self.model.kv_bytes(_CACHE_BYTES[self.cache or self.precision])

    @property
    def copies(self) -> float:
        """Of the model."""
        return self.devices / (self.tensor * self.pipeline)


class Steps(NamedTuple):
    """What one copy does: requests in flight, seconds of one decoding step, seconds of one prompt."""

    batch: float
    step: float
    prefill: float


_CONSTANTS = {
    "matmul": Constant(0.9, 0.15, 0.15),  # share of peak in endless products, were there power for it
    "energy": Constant(0.25, 0.3),  # what 10^12 operations a second take of that for each watt
    "fp8": Constant(0.85, 0.15, 0.12),
    "fp4": Constant(0.75, 0.2, 0.12),
    "stream": Constant(0.8, 0.12, 0.1),
    "look": Constant(1.0, 0.15, 0.1),  # rate of reading what is in the cache, beside the weights
    "attention": Constant(0.6, 0.3, 0.15),  # share of the rate at the bits of the cache, for prompts
    "experts": Constant(0.7, 0.3, 0.15),  # rate of the products of experts, and of reading them, beside the others
    "narrow": Constant(300.0, 0.5),  # width at which they run at half of it, where the others run at 15 times fp32
    "tile": Constant(64.0, 0.5),  # rows that an expert computes in vain
    "moved": Constant(16.0, 0.4),  # bytes a token, layer and width outside the products
    "copied": Constant(8.0, 0.4),  # of the same, to each expert and back
    "kernel": Constant(2e-5, 0.6),  # seconds a layer between products, whatever its work
    "host": Constant(2e-3, 0.6),  # seconds a step
    "token": Constant(1.5e-5, 0.5),  # seconds of the host for each token that leaves
    "waiting": Constant(3e-6, 0.7),  # seconds of the host a step for each sequence that is with another stage
    "batch": Constant(4096.0, 0.2),  # sequences in flight that engines are set to, at most
    "cache": Constant(0.9, 0.05),  # share of the free memory that the cache takes
    "reserved": Constant(0.9, 0.1),  # share of an answer's cache that is kept free for it from the start
    "link": Constant(0.7, 0.2, 0.15),  # eight H100 sum 64 MB at 0.73, timed alone
    "dispatch": Constant(0.4, 0.3),  # of the same, when tokens go to experts and back
    "latency": Constant(1.5e-5, 0.4),  # seconds of one all-reduce of nothing
    "stages": Constant(0.08, 0.5),  # what each doubling of pipeline stages adds
    "limited": Constant(1.15, 0.08),
}


def _split(g: Generation) -> bool:
    """Whether the devices of a copy split attention by heads. With experts each of them serves requests of its own,
    with attention whole, and they split the experts: so engines are set up where rates are published."""
    return not g.model.experts


def weight_bytes(g: Generation, weights: float) -> float:
    """Bytes of so many of the model's weights; what embeds and what scores the vocabulary stays at sixteen bits."""
    if g.precision not in _WEIGHT_BYTES:
        raise InputError(
            f"weights at {g.precision} are not counted", where="precision", fix=f"one of {', '.join(_WEIGHT_BYTES)}"
        )
    wide = g.model.vocab * g.model.hidden * (1 if g.model.tied else 2)
    return _WEIGHT_BYTES[g.precision] * (weights - wide) + 2.0 * wide


def held_bytes(g: Generation, weights: float) -> float:
    """Bytes of so many weights that each device of a copy holds, or reads in a step."""
    if _split(g):
        return weight_bytes(g, weights) / g.tensor / g.pipeline
    whole = g.model.parameters - g.model.experts_all
    return (weight_bytes(g, whole) + _WEIGHT_BYTES[g.precision] * (weights - whole) / g.tensor) / g.pipeline


def _exchanged(g: Generation) -> float:
    """Bytes of the buffers for experts: the tokens of all devices of a copy, and for each expert that a token goes to
    what goes in (8 bits), what the first matrices make of it (16), what goes into the last (8), and what comes out."""
    m = g.model
    row = 2 * m.hidden + m.experts_used * (3 * m.hidden + 5 * m.expert_ffn)
    return float(_TOKENS * g.tensor * row) if m.experts else 0.0


def cached_tokens(g: Generation, share: float = 0.9) -> float:
    """Tokens whose keys and values fit beside the weights of one copy; below zero when the weights alone do not fit."""
    kept = _RESERVE + _exchanged(g)
    free = (g.accelerator.memory_gib * 2**30 - kept) * 0.97 - held_bytes(g, g.model.parameters)
    copies = max(1.0, g.tensor / g.model.kv_heads) if _split(g) else 1.0
    return share * free * g.tensor * g.pipeline / g.cached_bytes / copies


def steps(c: Constants, g: Generation) -> Steps:
    """The parts that :func:`MODEL` makes a rate of.

    Raises:
        InputError: the weights do not fit, or the accelerator has no rate at this precision.
    """
    batch = _batch(c, g)
    step = _iteration(c, g, batch, 0.0)
    return Steps(batch, step, _iteration(c, g, batch, 1.0) - step)


def _batch(c: Constants, g: Generation) -> float:
    """Requests in flight of one copy."""
    room = cached_tokens(g, c("cache"))
    most = c("batch") / g.beams * (1 if _split(g) else g.tensor)
    batch = float(g.concurrency or min(most, room / (g.tokens_in + c("reserved") * g.tokens_out * g.beams)))
    if room <= 0 or batch < 1:
        raise InputError(
            f"the weights and one request do not fit {g.tensor * g.pipeline} of {g.accelerator.name}",
            where="devices",
            fix="use more devices for a copy, or fewer bits",
        )
    if g.requests:
        batch = min(batch, max(1.0, g.requests / g.copies))
    return batch


def _iteration(c: Constants, g: Generation, batch: float, prompts: float) -> float:
    """Seconds in which one stage works through a micro-batch of one copy: a token for each of ``batch`` requests in
    flight (for each answer that is followed of it), and so many ``prompts`` beside them, both of all stages."""
    m, a = g.model, g.accelerator
    part, tensor, split = 1 / g.pipeline, g.tensor, _split(g)
    followed = batch * g.beams
    inside, filling = followed * part, prompts * part * g.tokens_in
    tokens = inside + filling
    cached = "fp8" if _CACHE_BYTES[g.cache or g.precision] == 1 and "fp8" in a.tflops else "bf16"
    wide, scores, rate = (
        a.peak(p) * c("matmul", a.name) / (1 + c("energy") * a.load(p)) for p in ("bf16", cached, g.precision)
    )
    if g.precision in ("fp8", "fp4"):
        rate *= c(g.precision, a.generation)
    memory = a.memory_gbps * 1e9 * c("stream", a.name)
    sparse, head = m.experts_met, m.head
    experts = c("experts", a.generation)
    touched = m.touched(tokens)
    whole = held_bytes(g, m.parameters - m.experts_all)
    weights = (whole + (held_bytes(g, touched) - whole) / experts) / memory
    # Rows that fill the last tile of each expert are computed in vain; only the last token of a prompt is scored.
    padded = c("tile") * (touched - m.parameters + m.experts_all)
    # What is scaled, gated and copied for an expert keeps the vector units busy, however narrow its products are.
    small = 1 + c("narrow") * rate / (15 * a.peak("fp32")) / m.expert_ffn if m.experts else 1.0
    work = tokens * (m.linear - head - sparse) + (tokens * sparse + padded) * small / experts
    work = 2 * work / rate + 2 * (inside + prompts * part) * head / wide
    work += tokens * m.hidden * (c("moved") * m.layers + c("copied") * m.moe_layers * m.experts_used) / memory
    work += filling * m.attention_flops(g.tokens_in / 2) / (scores * c("attention", a.generation))
    context = g.tokens_in + g.tokens_out / 2
    read = inside * context * m.seen_share(context) * g.cached_bytes * part
    read /= (min(tensor, m.kv_heads) if split else tensor) * memory * c("look", a.name)
    device = math.hypot(weights, work * part / tensor) + read
    device += c("kernel") * (m.layers + m.moe_layers) * part + _traffic(c, g, tokens)
    device *= 1 + c("stages") * math.log2(g.pipeline)
    host = c("host") + (c("token") * inside + c("waiting") * (followed - inside)) / (1 if split else tensor)
    # The host prepares a step while the device computes the one before, unless that must come back through a pipeline.
    return math.hypot(device, host) if g.pipeline == 1 else device + host


def _traffic(c: Constants, g: Generation, tokens: float) -> float:
    """Seconds of two sums over the devices in each layer; with attention whole, one in two halves: to the experts at
    the bits of their weights, and back at 16 (as DeepSeek-AI 2024, 3.3: dispatched at 8, combined at 16)."""
    m, split, tensor = g.model, _split(g), g.tensor
    if tensor == 1:
        return 0.0
    link = g.accelerator.link_gbps * 1e9 * (c("link", g.accelerator.name) if split else c("dispatch"))
    sums = (2 * m.layers if split else m.moe_layers) / g.pipeline
    there = 2.0 if split else _WEIGHT_BYTES[g.precision]
    sent = tokens * m.hidden * (there + 2.0) * (tensor - 1) / tensor
    return sums * (sent / link + c("latency") * (1 if split else 2))


def _seconds(c: Constants, g: Generation) -> float:
    """Seconds of all devices together for each token."""
    if g.phase == "prefill":
        prompts = max(1.0, _TOKENS / g.tokens_in) * g.pipeline * (1 if _split(g) else g.tensor)
        return _iteration(c, g, 0.0, prompts) / (prompts * g.tokens_in) * g.pipeline / g.copies
    batch = _batch(c, g)
    if g.phase == "decode":
        return _iteration(c, g, batch, 0.0) * g.pipeline / batch / g.copies
    slowed = c("limited") if g.phase == "limited" else 1.0

    def each(batch: float) -> float:
        return _iteration(c, g, batch, batch / g.tokens_out) * g.pipeline / batch

    mean = each(batch)
    if g.requests:
        # All are as long as each other, so they come and go in waves, of which the last is not full.
        full, rest = divmod(g.requests / g.copies, batch)
        if rest >= 1:
            mean = (full * batch * mean + rest * each(rest)) / (full * batch + rest)
    return mean / g.copies * slowed


def _names(g: Generation) -> Mapping[str, Sequence[str]]:
    a = g.accelerator
    names = {"matmul": [a.name], "stream": [a.name], "look": [a.name], "link": [a.name], "attention": [a.generation]}
    names |= {"experts": [a.generation]} if g.model.experts else {}
    return names | ({g.precision: [a.generation]} if g.precision in ("fp8", "fp4") else {})


MODEL = Model(
    _seconds,
    _CONSTANTS,
    _names,
    {
        "publication": Level(0.10),
        "source": Level(0.10),
        "accelerator": Level(0.10),
        "model": Level(0.10),
        "cell": Level(0.08),
        "architecture": Level(0.12),
        "shape": Level(0.10, near=True),
        "near": Level(0.08, near=True),
    },
    0.04,
    apart=("each", "cell", "source"),
    like="kind",
)


def groups(g: Generation, source: str, model: str) -> dict[str, str]:
    """What a rate shares with measurements. A source here is a publication on one generation of accelerators."""
    sparse = "sparse" if g.model.experts else "dense"
    return {
        "publication": source,
        "source": f"{source} {g.accelerator.generation}",
        "accelerator": f"{source} {g.accelerator.name} {g.precision} {sparse}",
        "model": model,
        "cell": f"{model} {g.accelerator.name}",
        "architecture": f"{model} {g.accelerator.generation}",
        "kind": sparse,
        "shape": f"{source} {sparse}",
        "near": f"{model} {g.accelerator.name} {source}",
        "each": repr(g),
    }


def at(g: Generation) -> tuple[float, ...]:
    """Where it lies among others."""
    return (
        0.8 * math.log(g.tokens_in),
        0.6 * math.log(g.tokens_out + 1),
        0.7 * math.log(g.devices),
        0.7 * math.log(g.pipeline),
    )


@cache
def measured() -> tuple[tuple[str, Measured[Generation]], ...]:
    """All published rates, each with its quality."""
    return tuple((row["quality"], _measured(row)) for row in rows("llm_serving"))


def _measured(row: Mapping[str, str]) -> Measured[Generation]:
    g = Generation(
        model=models()[row["model"]],
        accelerator=accelerator(row["accelerator"]),
        devices=int(row["gpus"]),
        tensor=int(row["tensor"]),
        pipeline=int(row["pipeline"]),
        precision=row["precision"],
        phase=msgspec.convert(row["phase"], Phase),
        tokens_in=int(row["tokens_in"]),
        tokens_out=int(row["tokens_out"]),
        concurrency=int(row["concurrency"]) if row["concurrency"] else None,
        requests=int(row["requests"]) if row["requests"] else None,
        beams=int(row["beams"] or 1),
        cache=msgspec.convert(row["cache"], Literal["", "fp8", "bf16"]),
    )
    return Measured(g, 1 / float(row["tokens_per_second"]), groups(g, row["source"], row["model"]), at(g))


@cache
def calibrated() -> Calibrated[Generation]:
    """The model with all measurements that were read, not recalled, as anchors."""
    return restore("llm_serving", MODEL, [row for quality, row in measured() if quality == "exact"])


@lru_cache(maxsize=4096)
def token(g: Generation, model: str = "yours") -> Estimated:
    """Seconds for each token of all devices together, with a 90 % interval; ``model`` names it if it was published.

    Raises:
        InputError: it does not fit, or the accelerator has no rate at this precision.
    """
    return calibrated().estimate(g, groups(g, "yours", model), at(g))
