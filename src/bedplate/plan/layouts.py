"""The search over layouts of language-model training: which ways to split a model fit, and which is fastest.

All layouts of a number of devices are judged by memory first, those that fit by the time of a step; only the few
fastest are then asked of the calibrated model with its anchors, which takes far longer.
"""

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache

from bedplate.errors import InputError
from bedplate.plan import training
from bedplate.plan.accelerators import Accelerator
from bedplate.plan.calibration import Constants, Estimated
from bedplate.plan.counts import Recompute
from bedplate.plan.types import LanguageTrainingSize, Layout

_ASKED = 4
"""Fastest layouts by the model alone that are asked of the anchors too."""
ROOM = 0.94
"""Share of a device's memory that may be planned for."""
_RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "half", "full")
_WIDTHS = (1, 2, 4, 8)
_STAGES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
_VIRTUAL = (1, 2, 4, 8)
_PIECES = (1, 2, 4, 8, 16)
_EXPERTS = (1, 2, 4, 8, 16, 32, 64)


def candidates(size: LanguageTrainingSize, device: Accelerator, devices: int) -> Iterator[training.Training]:
    """Every layout that divides devices, heads, layers, experts and batch."""
    m = size.model
    known = [p for p in size.precisions if p in device.tflops]
    widths = [t for t in _WIDTHS if t <= min(device.node, devices) and m.heads % t == 0]
    for tensor, pipeline in itertools.product(widths, _STAGES):
        if devices % (tensor * pipeline) or m.layers % pipeline:
            continue
        replicas = devices // (tensor * pipeline)
        if size.batch % replicas:
            continue
        spread = [e for e in _EXPERTS if e <= replicas * tensor and m.experts % e == 0] if m.experts else [1]
        each = size.batch // replicas
        pieces = [b for b in _PIECES if each % b == 0 and each // b >= pipeline]
        # Shared-out weights would be gathered anew for every micro-batch of a stage; one stage alone has no bubble.
        kinds = (1, 2, 3) if pipeline == 1 else (1,)
        virtual = [v for v in _VIRTUAL if m.layers % (pipeline * v) == 0] if pipeline > 1 else [1]
        for piece, sharding, again, expert, held, precision in itertools.product(
            pieces, kinds, _RECOMPUTE, spread, virtual, known
        ):
            yield training.Training(
                model=m, accelerator=device, devices=devices, precision=precision,
                recipe="tensorwise" if precision == "fp8" else "", sequence=size.sequence, batch=size.batch,
                micro_batch=piece, tensor=tensor, pipeline=pipeline, virtual=held, expert=expert, sharding=sharding,
                recompute=again,
            )  # fmt: skip


@lru_cache(maxsize=4096)
def fastest(size: LanguageTrainingSize, device: Accelerator, devices: int) -> tuple[Layout, Estimated] | str:
    """The layout with the shortest step of those that fit, and its step; or why there is none."""
    room = device.memory_gib * 2**30 * ROOM
    values = Constants(training.calibrated().values)
    fits: list[tuple[float, int, training.Training, float]] = []
    least, count = math.inf, 0
    for layout in candidates(size, device, devices):
        count += 1
        need = training.memory_bytes(layout)
        least = min(least, need)
        if need <= room:
            fits.append((training.MODEL.seconds(values, layout), len(fits), layout, need))
    if not count:
        return f"{devices} of {device.name} cannot share a step of {size.batch} sequences at a precision of the file"
    if not fits:
        return (
            f"needs {least / 2**30:.0f} GiB on each of {devices} at the least; {device.name} has {device.memory_gib:g}"
        )
    fits.sort(key=lambda item: item[:2])
    asked: list[tuple[Estimated, training.Training, float]] = []
    for _, _, layout, need in fits[:_ASKED]:
        try:
            asked.append((training.step(layout), layout, need))
        except InputError as error:
            return error.message
    step, best, need = min(asked, key=lambda item: item[0].seconds.value)
    return _layout(best, need), step


def _layout(t: training.Training, need: float) -> Layout:
    return Layout(
        accelerator=t.accelerator.name, devices=t.devices, precision=t.precision, batch=t.batch,
        micro_batch=t.micro_batch, tensor=t.tensor, pipeline=t.pipeline, virtual=t.virtual, context=t.context,
        expert=t.expert, sharding=t.sharding, recompute=t.recompute, memory_gib=need / 2**30,
    )  # fmt: skip
