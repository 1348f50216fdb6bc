"""Requests that accelerators answer: language models, embeddings and images, by copies that work in batches.

A copy takes some accelerators of one machine. How many requests it answers a second follows from the largest batch
that keeps the promised times at the slow end of every interval; how many copies, from the peak.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from bedplate.errors import InputError
from bedplate.plan import cost, generation, images, queueing, replicas, workloads
from bedplate.plan.accelerators import Accelerator, accelerator
from bedplate.plan.calibration import Constants, Estimated
from bedplate.plan.catalogue import Catalogue
from bedplate.plan.replicas import MAX_UTILISATION, machines_for
from bedplate.plan.requirements import HOURS_PER_MONTH
from bedplate.plan.sites import Site, described, lost, predicted
from bedplate.plan.types import ChatSize, EmbeddingSize, ImageSize, Layout, Option, Probe, Requirements
from bedplate.records import Estimate

_CALL = 2e-3
"""Seconds of the host to start one batch of texts. Assumed."""
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Copy(NamedTuple):
    """One copy of a model: requests a second it can take, and the times it keeps then. ``waits`` by requirement."""

    rate: Estimate
    layout: Layout
    waits: dict[str, Estimate]
    known: float
    tokens: Estimate | None = None
    """A second, of answers."""


class Limits(NamedTuple):
    """Seconds that may be waited; infinite where the file names none."""

    p99: float
    first: float
    each: float


def options(site: Site, needs: Requirements, catalogue: Catalogue, probe: Probe) -> Iterator[Option]:
    """A machine type with as many copies as the peak needs, each as wide as is cheapest; or why it cannot be.

    Processors alone are sized for a model that was measured on them.
    """
    name = site.instance.accelerator
    if name is None:
        yield from replicas.options(site, needs, catalogue, probe)
        return
    device = accelerator(name)
    if device.generation == "tpu":
        yield lost(site, f"no calibrated estimate: nothing that was measured on {name} is known; measure one copy")
        return
    items = {item.name: item for item in needs.items}
    limits = Limits(*(items[n].value if n in items else math.inf for n in ("p99", "first token", "each further token")))
    found: list[Option] = []
    why = "no precision that the file allows is known there"
    assert isinstance(needs.size, ChatSize | EmbeddingSize | ImageSize)
    for width in (1, 2, 4, 8):
        if width > site.instance.accelerators or (width > 1 and not isinstance(needs.size, ChatSize)):
            break
        for precision in needs.size.precisions:
            made = copy(needs.size, device, width, precision, limits)
            if isinstance(made, str):
                why = made
            else:
                found.append(_sized(site, needs, catalogue, made, width))
    yield min(found, key=_rank) if found else lost(site, why)


def _rank(option: Option) -> tuple[bool, float]:
    return not option.meets, option.cost.total.value if option.cost else math.inf


def _sized(site: Site, needs: Requirements, catalogue: Catalogue, made: Copy, width: int) -> Option:
    peak, mean = needs.value("peak rate"), needs.value("mean rate")
    needed = max(1, math.ceil(peak / made.rate.low))
    slots = site.instance.accelerators // width
    machines, each, problem = machines_for(site.instance, catalogue, needs, needed, slots)
    copies = machines * each
    busy = peak / copies / made.rate.value * MAX_UTILISATION
    priced = cost.monthly(
        site, catalogue, needs, busy=mean / made.rate.value / slots * MAX_UTILISATION,
        machines=machines, slots=slots, needed=needed,
    )  # fmt: skip
    items = {item.name: item for item in needs.items}
    figures = [predicted(name, wait, "s", items.get(name), made.known) for name, wait in made.waits.items()]
    figures.append(predicted("requests a second", _times(made.rate, copies), "1/s", known=made.known))
    if made.tokens is not None:
        figures.append(predicted("tokens a second", _times(made.tokens, copies), "1/s", known=made.known))
    if not problem and copies > needs.replicas_max:
        problem = f"needs {copies} copies; the file allows {needs.replicas_max} (line {needs.replicas_line})"
    return msgspec.structs.replace(
        described(site),
        machines=machines,
        replicas=copies,
        p99=made.waits["p99"],
        utilisation=Estimate(value=busy, low=busy * 0.7, high=min(1.0, busy * 1.4), method="rate / what copies take"),
        layout=msgspec.structs.replace(made.layout, devices=width * copies),
        predicted=tuple(figures),
        method="batches counted and calibrated, queueing before them",
        cost=priced,
        carbon=cost.carbon(site.instance, catalogue, hours=machines * HOURS_PER_MONTH, busy=busy * mean / peak),
        meets=not problem,
        lost=problem,
    )


def _times(estimate: Estimate, factor: float) -> Estimate:
    return msgspec.structs.replace(
        estimate, value=estimate.value * factor, low=estimate.low * factor, high=estimate.high * factor
    )


@lru_cache(maxsize=4096)
def copy(
    size: ChatSize | EmbeddingSize | ImageSize, device: Accelerator, width: int, precision: str, limits: Limits
) -> Copy | str:
    """What one copy can take within the limits, or why it cannot be."""
    try:
        if isinstance(size, ChatSize):
            return _chat(size, device, width, precision, limits)
        return _batched(size, device, precision, limits)
    except InputError as error:
        return error.message


def _chat(size: ChatSize, device: Accelerator, width: int, precision: str, limits: Limits) -> Copy | str:
    g = generation.Generation(
        model=size.model, accelerator=device, devices=width, tensor=width, precision=precision,
        tokens_in=size.tokens_in, tokens_out=size.tokens_out,
    )  # fmt: skip
    estimated = generation.token(g, size.name)
    constants = Constants(generation.calibrated().values)
    most = int(generation.steps(constants, g).batch)
    plain = generation.MODEL.seconds(constants, g)
    ratio = [end / plain for end in (estimated.seconds.low, estimated.seconds.value, estimated.seconds.high)]

    def times(batch: int, off: float) -> tuple[float, float, float]:
        """Seconds to the first token, for each further one, and requests a second, at ``off`` times the model."""
        s = generation.steps(constants, msgspec.structs.replace(g, concurrency=batch))
        prompt = s.prefill * (1 - size.cached) * off
        each = s.step * off + batch * prompt / size.tokens_out
        rate = MAX_UTILISATION * batch / (size.tokens_out * each + prompt)
        queue = queueing.sojourn(0.99, 1, rate, prompt, 0.5) if rate * prompt < 0.95 else None
        return (queue.value if queue else math.inf) + each + workloads.NETWORK_SECONDS, each, rate

    def keeps(batch: int) -> bool:
        first, each, _ = times(batch, ratio[2])
        whole = first + size.tokens_out * each
        return first <= limits.first and each <= limits.each and whole <= limits.p99

    if not keeps(1):
        first, each, _ = times(1, ratio[2])
        return (
            f"one request alone may take {first:.2f} s to its first token, {each * 1e3:.0f} ms for each further one "
            f"and {first + size.tokens_out * each:.1f} s in all; the file allows less"
        )
    batch, above = 1, most + 1
    while above - batch > 1:
        middle = (batch + above) // 2
        batch, above = (middle, above) if keeps(middle) else (batch, middle)
    low, value, high = (times(batch, off) for off in ratio)
    rate = Estimate(value=value[2], low=high[2], high=low[2], method=estimated.seconds.method)
    memory = device.memory_gib * 0.97  # the engine fills what weights leave with its cache
    layout = Layout(
        accelerator=device.name, devices=width, precision=precision, batch=batch, tensor=width, memory_gib=memory
    )
    waits = {
        "p99": _between(low[0] + size.tokens_out * low[1], value[0] + size.tokens_out * value[1],
                        high[0] + size.tokens_out * high[1]),
        "first token": _between(low[0], value[0], high[0]),
        "each further token": _between(low[1], value[1], high[1]),
    }  # fmt: skip
    return Copy(rate, layout, waits, estimated.known, _times(rate, size.tokens_out))


def _between(low: float, value: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high, method="calibrated step x queueing")


def _batched(size: EmbeddingSize | ImageSize, device: Accelerator, precision: str, limits: Limits) -> Copy | str:
    """The largest batch that is answered in time. A copy takes what waits when it is free, so a request waits for at
    most the batch before it and is answered with its own; up to MAX_UTILISATION of the rate batches stay full enough.
    """
    best: Copy | None = None
    for batch in _BATCHES:
        found = _seconds(size, device, precision, batch)
        if found is None:
            break
        s, network = found.seconds, workloads.NETWORK_SECONDS
        p99 = _between(s.low + network, 1.9 * s.value + network, 2 * s.high + network)
        rate = [MAX_UTILISATION * batch / seconds for seconds in (s.high, s.value, s.low)]
        if p99.high <= limits.p99 and (best is None or rate[0] > best.rate.low):
            layout = Layout(accelerator=device.name, devices=1, precision=precision, batch=batch)
            able = Estimate(value=rate[1], low=rate[0], high=rate[2], method=s.method)
            best = Copy(able, layout, {"p99": p99}, found.known)
    return best or f"no batch is answered within {limits.p99 * 1e3:g} ms"


def _seconds(size: EmbeddingSize | ImageSize, device: Accelerator, precision: str, batch: int) -> Estimated | None:
    """Of one batch; None where it does not fit."""
    if isinstance(size, ImageSize):
        graph = size.graph
        if 2.0 * graph.parameters + 6.0 * batch * graph.activations > device.memory_gib * 2**30 - 2e9:
            return None
        work = images.Images(
            accelerator=device, precision=precision, batch=batch, compiled=True, parameters=graph.parameters,
            macs=graph.macs, activations=graph.activations,
        )  # fmt: skip
        return images.batch(work, size.name)
    g = generation.Generation(
        model=size.model, accelerator=device, devices=1, precision=precision, phase="prefill",
        tokens_in=size.tokens, tokens_out=1, concurrency=1,
    )  # fmt: skip
    found = generation.token(g, size.name)
    each = found.seconds
    ends = [end * size.tokens * batch + _CALL for end in (each.low, each.value, each.high)]
    return Estimated(Estimate(value=ends[1], low=ends[0], high=ends[2], method=each.method), found.known)
