"""What accelerators can do at best, and the published measurements: data that the package ships.

Every row says where it comes from, when it was published, and whether it was read (exact) or recalled (unverified).
"""

import csv
import io
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources

import msgspec

from bedplate.errors import InputError
from bedplate.plan.counts import Transformer, from_config

_WIDTHS = {"fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "fp4": 4}
"""Bits of a number; the ten bits of fraction of tf32 take the room of 32."""


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """Peak rates without sparsity (10^12 operations a second), memory, and links in one direction (10^9 bytes)."""

    name: str
    generation: str
    tflops: dict[str, float]
    """By precision; what is not there has no calibrated estimate."""
    memory_gib: float
    memory_gbps: float
    node: int
    """How many are joined by the fast link."""
    link_gbps: float
    network_gbps: float
    """Of each, between nodes."""
    watts: float

    def __hash__(self) -> int:
        return hash((self.name, self.node, self.network_gbps))  # rates by precision go with the name

    def load(self, precision: str) -> float:
        """Operations (10^12 a second, in terms of 16 bits) that each watt has to carry at the peak of a precision.

        Multiplying half as many bits takes about half the energy, so a rate counts by its width. Matrix units that are
        given more work for each watt run at a lower clock: the share of the peak that lasts falls with it.
        """
        return self.peak(precision) / 1e12 * _WIDTHS[precision] / 16 / self.watts

    def peak(self, precision: str) -> float:
        """Operations a second at a precision.

        Raises:
            InputError: no rate is known for it.
        """
        if precision not in self.tflops:
            raise InputError(
                f"{self.name} has no known rate at {precision}",
                where=precision,
                fix=f"ask for one of {', '.join(self.tflops)}, or measure it",
            )
        return self.tflops[precision] * 1e12


def rows(name: str) -> list[dict[str, str]]:
    """The rows of one table of the planner's facts."""
    text = (resources.files("bedplate.plan") / "facts" / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


@cache
def accelerators() -> Mapping[str, Accelerator]:
    """All accelerators, by name."""
    found = {}
    for row in rows("accelerators"):
        rates = {p: row[f"{p}_tflops"] for p in ("fp32", "bf16", "fp8", "fp4")} | {"fp16": row["bf16_tflops"]}
        if row["generation"] == "ampere":  # products of 32-bit numbers with 10 bits of fraction, on matrix units
            rates["tf32"] = str(float(row["bf16_tflops"]) / 2)
        found[row["accelerator"]] = Accelerator(
            name=row["accelerator"],
            generation=row["generation"],
            tflops={precision: float(rate) for precision, rate in rates.items() if rate},
            memory_gib=float(row["memory_gib"]),
            memory_gbps=float(row["memory_gbps"]),
            node=int(row["node"]),
            link_gbps=float(row["link_gbps"] or 0),
            network_gbps=float(row["network_gbps"] or 0),
            watts=float(row["watts"]),
        )
    return found


def accelerator(name: str) -> Accelerator:
    """One accelerator.

    Raises:
        InputError: nothing is known of it.
    """
    if name not in accelerators():
        raise InputError(
            f"nothing is known of accelerator {name!r}",
            where=name,
            fix=f"name one of {', '.join(accelerators())}, or measure it",
        )
    return accelerators()[name]


@cache
def models() -> Mapping[str, Transformer]:
    """The transformers that measurements were published of, by name."""
    text = (resources.files("bedplate.plan") / "facts" / "models.json").read_text(encoding="utf-8")
    return {name: from_config(config, name) for name, config in json.loads(text).items()}
