"""Seconds of a batch of images through a vision model, to predict or to train, from multiply-adds and activations."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache

import msgspec

from bedplate.plan.accelerators import Accelerator, accelerator, rows
from bedplate.plan.calibration import Calibrated, Constant, Constants, Estimated, Level, Measured, Model, restore
from bedplate.plan.graphs import GraphCount


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of images on each of ``devices``. Counts are of one image, as :mod:`bedplate.plan.graphs` makes them."""

    accelerator: Accelerator
    devices: int = 1
    precision: str
    channels_last: bool = False
    compiled: bool = False
    training: bool = False
    batch: int
    parameters: float
    macs: float
    activations: float


_CONSTANTS = {
    "matmul": Constant(0.8, 0.2, 0.2),  # share of peak, were there power for it
    "energy": Constant(0.25, 0.3),  # what 10^12 operations a second take of that for each watt
    "processor": Constant(0.5, 0.5),  # of both shares, that a general processor reaches
    "stream": Constant(8.0, 0.3, 0.2),  # times each activation is read or written, eager
    "compiled": Constant(0.5, 0.3),  # of those, once steps are fused
    "last": Constant(0.8, 0.2),
    "backward": Constant(2.0, 0.15),  # work of the backward pass, in forward passes
    "launch": Constant(0.010, 0.3, 0.2),  # seconds a batch that the host needs, eager
    "parallel": Constant(0.97, 0.03),
}
_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}


def _seconds(c: Constants, w: Images) -> float:
    a = w.accelerator
    fused = c("compiled") if w.compiled else 1.0
    peak, bandwidth = a.peak(w.precision), a.memory_gbps * 1e9
    general = c("processor") if a.generation == "cpu" else 1.0
    rate = peak * general * min(1.0, c("matmul", f"{a.name} {w.precision}") / (1 + c("energy") * a.load(w.precision)))
    moved = w.activations * _BYTES[w.precision] * c("stream", a.name) * fused * (c("last") if w.channels_last else 1.0)
    passes = 1 + (c("backward") if w.training else 0.0)
    device = passes * w.batch * (2 * w.macs / rate + moved / (bandwidth * general))
    host = c("launch", a.name) * fused**2 * passes
    update = 28.0 * w.parameters / bandwidth if w.training else 0.0
    return (math.hypot(device, host) + update) / (c("parallel") if w.devices > 1 else 1.0)


def _names(w: Images) -> Mapping[str, Sequence[str]]:
    a = w.accelerator
    return {"matmul": [f"{a.name} {w.precision}"], "stream": [a.name], "launch": [a.name]}


MODEL = Model(
    _seconds,
    _CONSTANTS,
    _names,
    {
        "source": Level(0.08),
        "setting": Level(0.10),
        "family": Level(0.12),
        "model": Level(0.12),
        "device": Level(0.12),
        "work": Level(0.10, near=True),
        "near": Level(0.10, near=True),
    },
    0.05,
    apart=("pair", "model", "source"),
    like="use",
)


def groups(w: Images, source: str, model: str) -> dict[str, str]:
    """What a batch shares with measurements. The family of a model is how its name begins."""
    a = w.accelerator
    setting = f"{source} {a.name} {w.precision} {w.channels_last} {w.compiled} {w.training}"
    family = re.split(r"[\d_]", model.removeprefix("tf_").removeprefix("wide_"))[0]
    return {
        "source": source,
        "setting": setting,
        "family": family,
        "model": model,
        "device": f"{model} {'processor' if a.generation == 'cpu' else 'accelerator'}",
        "pair": f"{model} {a.name}",
        "use": f"{w.training}",
        "work": f"{w.training}",
        "near": setting,
    }


def at(w: Images) -> tuple[float, ...]:
    """Where it lies among others: work, and activations beside the work."""
    return (
        0.5 * math.log(w.macs),
        1.5 * math.log(w.activations / w.macs),
        0.4 * math.log(w.batch),
        0.5 * math.log(w.parameters),
    )


@cache
def measured() -> tuple[tuple[str, Measured[Images]], ...]:
    """All published batches, each with its quality."""
    return tuple((row["quality"], _measured(row)) for row in rows("images"))


def _measured(row: Mapping[str, str]) -> Measured[Images]:
    w = Images(
        accelerator=accelerator(row["accelerator"]),
        devices=int(row["devices"]),
        precision=row["precision"],
        channels_last=row["layout"] == "nhwc",
        compiled=row["compiled"] == "yes",
        training=row["training"] == "yes",
        batch=int(row["batch"]),
        parameters=float(row["parameters_m"]) * 1e6,
        macs=float(row["gmacs"]) * 1e9,
        activations=float(row["mactivations"]) * 1e6,
    )
    seconds = w.batch * w.devices / float(row["images_per_second"])
    return Measured(w, seconds, groups(w, row["source"], row["model"]), at(w))


@cache
def published() -> Mapping[str, GraphCount]:
    """Counts of the models that measurements were published of, by name; of several sizes of picture, a training's."""
    found: dict[str, GraphCount] = {}
    for row in sorted(rows("images"), key=lambda row: (row["training"] != "yes", row["pixels"])):
        found.setdefault(
            row["model"],
            GraphCount(
                parameters=round(float(row["parameters_m"]) * 1e6),
                macs=round(float(row["gmacs"]) * 1e9),
                activations=round(float(row["mactivations"]) * 1e6),
            ),
        )
    return found


@cache
def calibrated() -> Calibrated[Images]:
    """The model with all measurements as anchors."""
    return restore("images", MODEL, [row for quality, row in measured() if quality == "exact"])


def batch(w: Images, model: str = "yours") -> Estimated:
    """Seconds of a batch with a 90 % interval; ``model`` names it if it was published.

    Raises:
        InputError: the accelerator has no rate at this precision.
    """
    return calibrated().estimate(w, groups(w, "yours", model), at(w))
