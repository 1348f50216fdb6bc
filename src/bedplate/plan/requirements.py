"""From the file to numbers that machines can be held to: each with its unit, its line and the rule that made it."""

import math
import re
from collections.abc import Iterator
from typing import Any

from bedplate.errors import InputError
from bedplate.plan import counts, workloads
from bedplate.plan import experience as experiences
from bedplate.plan.catalogue import CURRENCY
from bedplate.plan.experience import Experience, Learned
from bedplate.plan.types import (
    ChatSize,
    DataFacts,
    ImageTrainingSize,
    Item,
    Job,
    LanguageTrainingSize,
    PipelineSize,
    Requests,
    Requirements,
    ScoringSize,
    Served,
    StageBudget,
)
from bedplate.records import Estimate
from bedplate.usecase import quantities
from bedplate.usecase.load import Loaded

NOTHING_LEARNED = Experience()
TRAINING, SERVICE = "one training", "work of a request"
CORRECTED = (TRAINING, SERVICE)
"""Figures that later runs and days of serving correct: core seconds of a training, seconds of one request."""

SHAPES: dict[str, tuple[float, ...]] = {
    "flat": (1.0,) * 24,
    "office": (0.05,) * 7 + (0.4, 0.8, 1.0, 1.0, 0.9, 0.7, 0.9, 1.0, 1.0, 0.9, 0.6, 0.3, 0.15) + (0.05,) * 4,
    "retail": (
        *(0.15, 0.08, 0.05, 0.05, 0.06, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65),
        *(0.7, 0.65, 0.6, 0.6, 0.65, 0.75, 0.9, 1.0, 1.0, 0.85, 0.55, 0.3),
    ),
}
"""Rate by hour as a fraction of the busiest one. Assumed shapes: a log of real traffic replaces them."""

HOURS_PER_MONTH = 730.0
_MONTH = HOURS_PER_MONTH * 3600


def derive(
    loaded: Loaded, facts: DataFacts, experience: Experience = NOTHING_LEARNED, hardware: str = ""
) -> Requirements:
    """The requirements of a use case; what ``experience`` knows of its kind on ``hardware`` corrects predictions.

    Raises:
        InputError: no workload model for its kind; the text says what to measure instead. Or the budget is in another
            currency than prices.
    """
    case = loaded.use_case
    size = workloads.size_of(case, facts)
    budget = case.requirements.budget
    if budget and budget.monthly.currency != CURRENCY:
        raise InputError(
            f"the budget is in {budget.monthly.currency} and prices are in {CURRENCY}",
            where=f"{loaded.path}, line {loaded.line('requirements', 'budget', 'monthly')}",
            fix=f"state it in {CURRENCY}: no exchange rate is known here",
        )
    hourly: tuple[float, ...] = ()
    items: tuple[Item, ...]
    known = (experience.of(figure, case.workload.kind, hardware) for figure in CORRECTED)
    learned = tuple(item for item in known if item is not None)
    if isinstance(size, Job):
        items = tuple(_run(loaded, size))
    else:
        hourly = SHAPES[case.requirements.traffic.daily_shape]
        items = (
            *_traffic(loaded, hourly),
            *_service(loaded, size),
            *_storage(loaded, facts, hourly, size),
            *_training(loaded, facts, size, learned),
        )
    return Requirements(
        use_case=case.name,
        file_digest=loaded.digest,
        items=items,
        budgets=() if isinstance(size, Job) else tuple(_budgets(loaded, size)),
        size=size,
        hourly=hourly,
        residency=case.requirements.residency,
        residency_line=loaded.line("requirements", "residency"),
        budget=budget.monthly if budget else None,
        training_budget=budget.training_run if budget else None,
        on_breach=budget.on_breach if budget else "warn",
        replicas_min=case.serve.replicas.min,
        replicas_max=case.serve.replicas.max,
        replicas_line=loaded.line("serve", "replicas", "max"),
        learned=learned,
    )


def _traffic(loaded: Loaded, hourly: tuple[float, ...]) -> Iterator[Item]:
    needs, traffic = loaded.use_case.requirements, loaded.use_case.requirements.traffic
    latency, throughput = ("requirements", "latency", "p99"), ("requirements", "throughput", "peak")
    yield _item(loaded, "p99", needs.p99, "s", latency, "as the file says", "stated")
    for field, name in (("p50", "p50"), ("first_token", "first token"), ("per_token", "each further token")):
        given = getattr(needs.latency, field)
        if given is not None:
            yield _item(loaded, name, given, "s", ("requirements", "latency", field), "as the file says", "stated")
    peak = traffic.peak
    yield _item(loaded, "peak rate", peak, "requests/s", throughput, "as the file says", "stated")
    mean = peak * sum(hourly) / 24
    shape = ("requirements", "throughput", "daily_shape")
    rule = f"the {traffic.daily_shape} day is {mean / peak:.0%} of its peak on average"
    yield _item(loaded, "mean rate", mean, "requests/s", shape, rule, "assumed")
    yield _item(loaded, "requests a month", mean * _MONTH, "requests", shape, "mean rate x 730 h", "derived")
    yield _item(
        loaded, "concurrency", peak * needs.p99, "requests at once", latency,
        "Little's law: peak rate x the longest time one may stay", "derived",
    )  # fmt: skip


def _service(loaded: Loaded, size: Served) -> Iterator[Item]:
    case = loaded.use_case
    keys = ("requirements", "availability")
    availability = case.requirements.availability
    yield _taken(loaded, "availability", availability, "share of time", keys)
    down = (1 - availability) * HOURS_PER_MONTH * 60
    yield _item(loaded, "time down a month", down, "min", keys, "(1 - availability) x 730 h", "derived")
    memory = None if isinstance(size, ChatSize) else workloads.memory(size)
    if memory is None:
        return
    yield _item(
        loaded, "memory of a replica", memory, "bytes", ("workload",),
        "runtime + model + online features" + ("" if isinstance(size, Requests) else ", on processors"), "derived",
        low=memory * 0.7, high=memory * 1.6,
    )  # fmt: skip


def _storage(loaded: Loaded, facts: DataFacts, hourly: tuple[float, ...], size: Served) -> Iterator[Item]:
    case = loaded.use_case
    requests = case.requirements.traffic.peak * sum(hourly) / 24 * _MONTH
    record = workloads.record_bytes(size)
    growth = requests * record
    peak = ("requirements", "throughput")
    yield _item(
        loaded, "prediction log a month", growth, "bytes", peak,
        f"{record} bytes a prediction, compressed, with what went into it", "assumed", low=growth / 2, high=growth * 2,
    )  # fmt: skip
    retention = case.governance.retention
    months = (retention or 365 * 86400) / _MONTH
    kept = growth * months
    yield _item(
        loaded, "prediction log kept", kept, "bytes", ("governance", "retention"),
        f"a month's log x {months:.1f} months of retention" + ("" if retention else ", assumed: the file gives none"),
        "derived" if retention else "assumed", low=kept / 2, high=kept * 2,
    )  # fmt: skip
    sizes = [table.size for name, table in facts.tables.items() if name in case.data and table.size is not None]
    if sizes:
        tables = float(sum(sizes))
        # every table version that retention keeps holds what changed; twice the source covers features and versions
        yield _item(
            loaded, "tables kept", tables * 2, "bytes", ("data",), "source bytes x 2 for features and versions",
            "derived", low=tables, high=tables * 4,
        )  # fmt: skip
    answer = workloads.answer_bytes(size)
    yield _item(
        loaded, "answers a month", requests * answer, "bytes", peak, f"{answer} bytes an answer", "assumed",
        low=requests * answer / 2, high=requests * answer * 2,
    )  # fmt: skip


def _training(loaded: Loaded, facts: DataFacts, size: Served, learned: tuple[Learned, ...]) -> Iterator[Item]:
    if not isinstance(size, Requests):
        return  # its model is trained elsewhere
    case = loaded.use_case
    every, keys, rule = _cadence(loaded)
    yield _item(
        loaded, "retrainings a month", _MONTH / every, "runs", keys, rule, "stated" if keys[0] != "train" else "assumed"
    )
    known = [table.rows for name, table in facts.tables.items() if name in case.data and table.rows is not None]
    rows = max(known, default=0) or case.workload.rows or 0
    if rows:
        before = next((item for item in learned if item.figure == TRAINING), None)
        counted = workloads.training_core_seconds(size, rows)
        plain = Estimate(value=counted, low=counted / 4, high=counted * 4, method="rows counted")
        took = experiences.corrected(plain, before)
        rule = f"{rows:,} rows; " + (f"corrected by {before.factor.n} runs" if before else "until a run has been timed")
        yield _item(
            loaded, "one training", took.value, "core-s", ("train",), rule, "derived" if before else "assumed",
            low=took.low, high=took.high,
        )  # fmt: skip
    resources = case.train.resources
    keys = ("train", "resources")
    yield _taken(loaded, "training memory", float(resources.memory), "bytes", (*keys, "memory"))
    yield _taken(loaded, "training cores", float(resources.cpu), "cores", (*keys, "cpu"))


def _run(loaded: Loaded, size: Job) -> Iterator[Item]:
    """What one run has to do, by when, and how often."""
    case = loaded.use_case
    limit = case.requirements.time or 0.0
    yield _item(loaded, "time of a run", limit, "s", ("requirements", "time"), "as the file says", "stated")
    for name, amount, unit, field in _amounts(size):
        yield _item(loaded, name, amount, unit, ("workload", field), "as the file says", "stated")
    if isinstance(size, LanguageTrainingSize):
        model, keys = size.model, ("workload", "model")
        rule = "counted from its description"
        yield _item(loaded, "parameters", float(model.parameters), "weights", keys, rule, "derived")
        work = 3.0 * model.forward_flops(size.sequence) * size.tokens
        rule = "operations of one token, forward and twice that backward, x tokens"
        yield _item(loaded, "work of a run", work, "operations", keys, rule, "derived")
        stored = counts.state_bytes(model.parameters, shards=1, stage=0) - 2.0 * model.parameters
        yield _item(loaded, "one checkpoint", stored, "bytes", keys, "weights and optimiser, 14 bytes each", "derived")
    elif isinstance(size, ImageTrainingSize):
        keys, rule = ("workload", "model"), "counted from its description"
        yield _item(loaded, "parameters", float(size.graph.parameters), "weights", keys, rule, "derived")
        work = 6.0 * size.graph.macs * size.images * size.epochs
        rule = "two operations a multiply-add, forward and twice that backward, x images x epochs"
        yield _item(loaded, "work of a run", work, "operations", keys, rule, "derived")
    if isinstance(size, ScoringSize | PipelineSize):
        every, keys_, rule = _cadence(loaded)
        kind = "assumed" if keys_[0] == "train" else "stated"
        yield _item(loaded, "runs a month", _MONTH / every, "runs", keys_, rule, kind)


def _amounts(size: Job) -> Iterator[tuple[str, float, str, str]]:
    if isinstance(size, LanguageTrainingSize):
        yield "text", float(size.tokens), "tokens", "tokens"
        yield "one step", float(size.batch * size.sequence), "tokens", "batch"
    elif isinstance(size, ImageTrainingSize):
        yield "images", float(size.images), "images", "images"
        yield "epochs", float(size.epochs), "epochs", "epochs"
    elif isinstance(size, ScoringSize):
        yield "rows", float(size.rows), "rows", "rows"
    else:
        yield "data read", float(size.size), "bytes", "bytes"


def _cadence(loaded: Loaded) -> tuple[float, tuple[str | int, ...], str]:
    """Seconds between retrainings, from what names a time; once a month if nothing does."""
    case = loaded.use_case
    found: list[tuple[float, tuple[str | int, ...], str]] = []
    for i, condition in enumerate(case.retrain.when):
        match = re.fullmatch(r"every\s+(.+)", condition.strip())
        if match:
            try:
                found.append((quantities.parse(match[1], "duration"), ("retrain", "when", i), condition))
            except quantities.QuantityError:
                continue
    model = case.requirements.freshness.model
    if model:
        found.append((model, ("requirements", "freshness", "model"), "the model may not get older"))
    found = [entry for entry in found if entry[0] > 0]
    return min(found, default=(_MONTH, ("train",), "once a month, assumed: the file names no time"))


def _budgets(loaded: Loaded, size: Served) -> Iterator[StageBudget]:
    """The p99 split: network first, then 40 % of the rest for waiting, then stages by the weight of their work."""
    p99 = loaded.use_case.requirements.p99
    line = loaded.line("requirements", "latency", "p99")
    network = min(workloads.NETWORK_SECONDS, p99 / 10)
    yield StageBudget(
        stage="network", seconds=network, rule="caller in the same region: 0.5 ms, at most a tenth", line=line
    )
    waiting = 0.4 * (p99 - network)
    yield StageBudget(
        stage="waiting", seconds=waiting, rule="40 % of the rest, so that replicas can be busy", line=line
    )
    rest = p99 - network - waiting
    weights = workloads.weights(size)
    for stage, weight in weights.items():
        share = weight / math.fsum(weights.values())
        yield StageBudget(
            stage=stage, seconds=rest * share, rule=f"{share:.0%} of what is left, by its work", line=line
        )


def _taken(loaded: Loaded, name: str, value: float, unit: str, keys: tuple[str | int, ...]) -> Item:
    """A value that stands in the file, or is assumed where it does not."""
    if loaded.root.at(keys) is None:
        return _item(loaded, name, value, unit, keys, "assumed: the file does not say", "assumed")
    return _item(loaded, name, value, unit, keys, "as the file says", "stated")


def _item(
    loaded: Loaded, name: str, value: float, unit: str, keys: tuple[str | int, ...], rule: str, kind: Any,
    low: float | None = None, high: float | None = None,
) -> Item:  # fmt: skip
    if not math.isfinite(value):
        raise InputError(f"{name} comes out as {value}", where=f"{loaded.path}, line {loaded.line(*keys)}")
    return Item(name=name, value=value, unit=unit, line=loaded.line(*keys), rule=rule, kind=kind, low=low, high=high)
