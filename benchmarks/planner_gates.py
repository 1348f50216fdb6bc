"""What the planner's predictions are used for, each held to its bound: choosing, fitting into memory, waiting in line.

Decisions: for a fixed job, of all that one table measured, the option is taken that a calibration calls best which has
not seen the case (its publication for training; the model for serving and images, measured nowhere). Regret is what was
measured of it over the best measured. Two rules of thumb choose beside it: the lowest price of an hour, and the fastest
accelerator by its data sheet; what a rule cannot tell apart counts as its mean.
Memory: peaks that were published, what ran, and what was published as not fitting.
Queue: p99 of a formula against the event simulator with twenty times as many customers as it has in a plan.

``--gate`` runs one. All of it takes about seven minutes of one core, most of that the calibrations and the queues.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from planner import part, predictions

from bedplate.plan import accelerators, calibration, catalogue, counts, generation, images, layouts, queueing, training

Row = calibration.Measured[Any]
_MEAN, _WORST = 0.05, 0.25
_OVER = 0.15
_QUEUE = 0.10
_AS = {"h100_96gb_500w": "h100", "rtx_pro_6000_maxq": "rtx_pro_6000"}
"""What is sold nowhere is priced like what it is made of."""


class Kind(NamedTuple):
    """What is decided in one kind: which rows are one job, what is hidden, and how much one row's seconds cost."""

    module: Any
    job: Callable[[Row], str]
    hidden: Callable[[Row], str]
    each: Callable[[Row], float]
    """What to divide the seconds by, so that rows of a job compare: sequences, images or tokens."""
    devices: Callable[[Row], int]


KINDS = {
    "training": Kind(
        training,
        lambda r: f"{r.groups['source']} {r.workload.model.parameters} {r.workload.sequence}",
        lambda r: r.groups["source"],
        lambda r: r.workload.batch,
        lambda r: r.workload.devices,
    ),
    "serving": Kind(
        generation,
        lambda r: f"{r.groups['model']} {r.workload.phase} {r.workload.tokens_in} {r.workload.tokens_out}",
        lambda r: r.groups["model"],
        lambda r: 1.0,
        lambda r: r.workload.devices,
    ),
    "images": Kind(
        images,
        lambda r: f"{r.groups['source']} {r.groups['model']} {r.workload.training} {r.workload.macs}",
        lambda r: part(r.groups["model"], 8),
        lambda r: r.workload.batch * r.workload.devices,
        lambda r: r.workload.devices,
    ),
}


@cache
def price(name: str) -> float | None:
    """The lowest price of an hour of one accelerator in the catalogue; None where it is not sold."""
    sold = [i for i in catalogue.load().instances if i.accelerator == _AS.get(name, name) and i.currency == "USD"]
    return min((i.price_hour / i.accelerators for i in sold), default=None)


class Choice(NamedTuple):
    """One option of a job: what it cost and what it was predicted to cost, and what the rules of thumb look at."""

    measured: float
    predicted: float
    hourly: float
    peak: float


def regret(options: list[Choice], key: Callable[[Choice], float]) -> float:
    """Of the option with the lowest key; the mean of those that share it."""
    lowest = min(key(option) for option in options)
    taken = [option.measured for option in options if key(option) <= lowest + abs(lowest) * 1e-9]
    return float(np.mean(taken)) / min(option.measured for option in options) - 1


AIMS = ("cheapest", "fastest", "fastest of as many devices")


def cases(kind: Kind, told: list[tuple[Row, float]], aim: str) -> Iterator[list[Choice]]:
    """Jobs that can be decided: options of more than one measured cost, in money or in time."""
    found = defaultdict(list)
    for row, seconds in told:
        device, devices = row.workload.accelerator, kind.devices(row)
        hourly = price(device.name)
        if aim == "cheapest" and hourly is None:
            continue
        rate = hourly * devices if aim == "cheapest" and hourly else 1.0
        peak = device.tflops.get("fp16", device.tflops.get("fp32", 0.0))
        each = kind.each(row)
        job = f"{kind.job(row)} {devices if aim == AIMS[2] else ''}"
        found[job].append(Choice(row.seconds * rate / each, seconds * rate / each, rate, -peak))
    for options in found.values():
        if len({option.measured for option in options}) > 1:
            yield options


def decisions() -> Iterator[str]:
    yield "| decision | cases | mean / worst regret % | cheapest hour: mean / worst | biggest: mean / worst | |"
    yield "|---|---|---|---|---|---|"
    everything: list[list[float]] = []
    for name, kind in KINDS.items():
        rows = [row for quality, row in kind.module.measured() if quality == "exact"]
        known = [(row, estimate.value) for row, estimate in predictions(kind.module.MODEL, rows, kind.hidden)]
        for aim in AIMS:
            told = [
                [regret(o, lambda c: c.predicted), regret(o, lambda c: c.hourly), regret(o, lambda c: c.peak)]
                for o in cases(kind, known, aim)
            ]
            everything += told if aim == "cheapest" else []
            yield _decided(f"{name}, {aim}", told, aim)
    yield _decided("all that have a price, cheapest", everything, "cheapest")


def _decided(name: str, told: list[list[float]], aim: str) -> str:
    mean, worst = np.mean(told, axis=0), np.max(told, axis=0)
    shown = [f"{100 * m:.1f} / {100 * w:.0f}" for m, w in zip(mean, worst, strict=True)]
    if aim != "cheapest":
        shown[1] = ""
    rules = mean[1:] if aim == "cheapest" else mean[2:]
    faults = [
        text
        for text, bad in (
            ("mean", mean[0] > _MEAN),
            ("worst", worst[0] > _WORST),
            ("a rule is as good", min(rules) <= mean[0]),
        )
        if bad
    ]
    few = "too few to gate" if len(told) < 20 else "met" if not faults else "missed: " + ", ".join(faults)
    return f"| {name} | {len(told)} | {' | '.join(shown)} | {few} |"


GPT2 = {"model_type": "gpt2", "n_head": 16, "n_positions": 1024, "vocab_size": 50257}
ZERO = "DeepSpeed, tutorial of ZeRO (docs/_tutorials/zero.md @0101896)"
SEQUENCE = "Korthikanti et al. 2022, figure 1: none of these fits 80 GB without recomputing or splitting by sequence"
HERD = "Llama Team 2024, section 6.1: two machines of eight for 16 bits"


def _gpt2(layers: int, width: int, heads: int) -> counts.Transformer:
    return counts.from_config(GPT2 | {"n_layer": layers, "n_embd": width, "n_head": heads})


def _step(model: counts.Transformer, accelerator: str, **layout: Any) -> training.Training:
    return training.Training(model=model, accelerator=accelerators.accelerator(accelerator), precision="bf16", **layout)


def _early() -> Iterator[tuple[str, training.Training, bool]]:
    """Training from before attention kept no scores, with what was published of whether it fits."""
    one, ten = _gpt2(48, 1600, 16), _gpt2(50, 4096, 32)
    for stage, fits in ((0, False), (1, True)):
        yield ZERO, _step(one, "v100_32gb", devices=8, sequence=1024, batch=8, sharding=stage), fits
    yield (
        ZERO,
        _step(ten, "v100_32gb", devices=32, sequence=1024, batch=32, sharding=2, recompute="full"),
        True,
    )
    for name, devices, pipeline, virtual, batch in (
        ("megatron-22b", 8, 1, 1, 4),
        ("gpt3-175b", 64, 8, 3, 64),
        ("mt-nlg-530b", 280, 35, 3, 280),
        ("megatron-1t", 512, 64, 1, 512),
    ):
        step = _step(
            accelerators.models()[name],
            "a100_80gb",
            devices=devices,
            tensor=8,
            pipeline=pipeline,
            virtual=virtual,
            sequence=2048,
            batch=batch,
            micro_batch=4 if name == "megatron-22b" else 1,
            sharding=0,
            sequence_parallel=False,
        )
        yield SEQUENCE, step, False


def _served() -> Iterator[tuple[str, generation.Generation, bool]]:
    """Models in 16 bits that were published as fitting or not."""
    big = accelerators.models()["llama-3.1-405b"]
    bloom = counts.from_config(
        {"model_type": "gpt2", "n_layer": 70, "n_embd": 14336, "n_head": 112, "vocab_size": 250880, "n_positions": 2048}
    )
    stas = "Bekman and Gugger 2022: BLOOM in 16 bits takes 8 x 80 GB or 16 x 40 GB"
    for source, model, device, devices, fits in (
        (HERD, big, "h100", 8, False),
        (HERD, big, "h100", 16, True),
        (stas, bloom, "a100_80gb", 8, True),
        (stas, bloom, "a100_40gb", 8, False),
        (stas, bloom, "a100_40gb", 16, True),
    ):
        yield (
            source,
            generation.Generation(
                model=model,
                accelerator=accelerators.accelerator(device),
                devices=devices,
                tensor=8,
                pipeline=devices // 8,
                precision="bf16",
                tokens_in=1024,
                tokens_out=128,
            ),
            fits,
        )


def memory() -> Iterator[str]:
    over, ran = [], []
    for row, (quality, step) in zip(accelerators.rows("llm_training"), training.measured(), strict=True):
        if quality != "exact":
            continue
        need = training.memory_bytes(step.workload) / 2**30
        if row["memory_gib"]:
            over.append(need / float(row["memory_gib"]) - 1)
        if row["recompute"]:
            ran.append(need / step.workload.accelerator.memory_gib)
    said = []
    for source, step, fits in _early():
        room = step.accelerator.memory_gib * 2**30 * layouts.ROOM
        said.append((source, training.memory_bytes(step, flash=False) / room, fits))
    for source, g, fits in _served():
        room = generation.cached_tokens(g) / (g.tokens_in + g.tokens_out)
        said.append((source, 1 / room if room > 0 else np.inf, fits))
    middle, wrong = float(np.median(over)), [s for s, need, fits in said if not fits and need <= 1]
    refused = [s for s, need, fits in said if fits and need > 1]
    yield "| memory | n | | bound | |"
    yield "|---|---|---|---|---|"
    yield (
        f"| published peaks: over-estimate, median (least to most) % | {len(over)} | {100 * middle:+.1f}"
        f" ({100 * min(over):+.1f} to {100 * max(over):+.1f}) | 15 | {'met' if middle <= _OVER else 'missed'} |"
    )
    unfit = sum(not fits for *_, fits in said)
    yield (
        f"| published as not fitting, predicted to fit | {unfit} | {len(wrong)} | 0 |"
        f" {'met' if not wrong else 'missed: ' + '; '.join(wrong)} |"
    )
    yield f"| published as fitting, refused | {len(said) - unfit} | {len(refused)} {'; '.join(refused)} | | |"
    yield (
        f"| ran, predicted above the memory of the device (above what is planned for) | {len(ran)} |"
        f" {sum(r > 1 for r in ran)} ({sum(r > layouts.ROOM for r in ran)}), most {100 * (max(ran) - 1):+.0f} % | | |"
    )


def queue() -> Iterator[str]:
    yield "| queue, cv² | settings | p99: median / p90 / worst error % | beyond 10 % | |"
    yield "|---|---|---|---|---|"
    for cs2 in (0.0, 0.1, 0.25, 0.5, 1.0):
        off = []
        for c in (1, 2, 4, 8, 32):
            for rho in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
                customers = int(200_000 * min(8.0, max(1.0, (0.2 / (1 - rho)) ** 2)))
                told = queueing.simulate(c, rho * c, 1.0, cs2, customers=customers, seed=11)
                off.append(queueing.sojourn(0.99, c, rho * c, 1.0, cs2).value / float(np.quantile(told, 0.99)) - 1)
        size = np.abs(off)
        beyond = int(np.sum(size > _QUEUE))
        yield (
            f"| {cs2:g} | {len(off)} | {100 * np.median(size):.1f} / {100 * np.quantile(size, 0.9):.1f} /"
            f" {100 * size.max():.1f} | {beyond} | {'met' if not beyond else 'missed'} |"
        )


GATES = {"decisions": decisions, "memory": memory, "queue": queue}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gate", choices=list(GATES), action="append")
    for name in parser.parse_args().gate or list(GATES):
        for line in GATES[name]():
            print(line, flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
