"""What a profile shows, on the command line and as a page."""

import msgspec

from bedplate.plan.bottlenecks import Finding


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One stack of a profile, from its root, and its share of the time."""

    stack: tuple[str, ...]
    share: float


class RoofPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a model under the roof of a machine: operations a byte, and 10^9 operations a second."""

    name: str
    intensity: float
    gflops: float


class ProfileReport(msgspec.Struct, frozen=True, kw_only=True):
    """What holds a model, a program or an endpoint back.

    ``step_ms`` is what was measured, ``cost_ms`` the part of it that the bottleneck takes; ``usd_per_million`` and
    ``grams_per_million`` (of CO2 equivalents) are what a million such steps cost on this machine, None where steps are
    not known. ``verify`` is the command that shows whether a remedy helped.
    """

    target: str
    what: str
    finding: Finding
    step_ms: float
    cost_ms: float
    usd_per_million: float | None
    grams_per_million: float | None
    machine: str
    by_rows: tuple[tuple[int, float], ...] = ()
    """Rows of a call, and milliseconds."""
    frames: tuple[Frame, ...] = ()
    points: tuple[RoofPoint, ...] = ()
    roof_gflops: float | None = None
    roof_gbps: float | None = None
    overhead: float
    """What the profiler itself took, as a share."""
    warnings: tuple[str, ...] = ()
    counted: str = ""
    """What the processor's own counters say, or why they say nothing; empty where they were not asked."""
    verify: str

    @property
    def price(self) -> str:
        """What a million steps cost, in words; empty where steps are not known."""
        if self.usd_per_million is None:
            return ""
        carbon = f" and {self.grams_per_million:,.2f} g of CO2" if self.grams_per_million is not None else ""
        return f"{self.usd_per_million:,.4f} USD{carbon} for a million, as owned hardware and its grid are assumed"
