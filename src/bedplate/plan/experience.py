"""What plans got wrong before, and by how much the next one is corrected: predictions beside what then happened.

The logarithm of measured over predicted varies from case to case around a mean of the kind of workload and one of the
hardware it ran on. Both means are unknown and near none at first: few cases move them little, many as far as they say
(normal means with known spreads, Gelman et al., Bayesian Data Analysis, chapter 5). Pure: the same cases, the same
correction.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from bedplate.ids import Digest, digest_of
from bedplate.records import Estimate

_KIND, _HARDWARE = 0.5, 0.3
"""Standard deviations of logarithms: how far a kind is expected to be off, and a hardware from its kind."""
_NOISE = 0.08
"""No case repeats itself to better than that."""
_Z90, _Z99 = 1.645, 2.576
_RECENT = 5
"""Cases that are held against those before them."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction and what happened. ``predicted`` is as the models said, before any correction."""

    figure: str
    kind: str
    hardware: str
    when: str
    """RFC 3339."""
    predicted: float
    measured: float

    @property
    def off(self) -> float:
        """The logarithm of measured over predicted."""
        return math.log(self.measured / self.predicted)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure as it was planned and as it was measured. ``limit`` is what the file allows; None: nothing."""

    name: str
    unit: str
    measured: float
    predicted: Estimate | None = None
    limit: float | None = None

    @property
    def off(self) -> float | None:
        """Measured over predicted; None where nothing was predicted."""
        return self.measured / self.predicted.value if self.predicted is not None and self.predicted.value else None

    @property
    def inside(self) -> bool | None:
        """Whether it was within the interval."""
        return None if self.predicted is None else self.predicted.low <= self.measured <= self.predicted.high


class Actual(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``actual``. ``when`` is the run, bundle, day or moment that it is about; ``spent`` is what that cost.

    ``hours`` of a day were seen by an owner that was running; ``requests`` are None where nothing was served.
    """

    of: Literal["training", "failure", "release", "day"]
    when: str
    figures: tuple[Figure, ...]
    cases: tuple[Case, ...]
    currency: str
    spent: float | None = None
    hours: float | None = None
    requests: int | None = None


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned of one figure of one kind on one hardware: by what to multiply predictions of it.

    ``factor`` is the next case's, with its 90 % interval; ``cases`` were seen there, ``others`` of the same kind
    elsewhere. ``moved`` says that the newest cases are off by something else than those before: in words, or empty.
    """

    figure: str
    kind: str
    hardware: str
    factor: Estimate
    cases: int
    others: int
    moved: str = ""


class Experience(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was learned; an input of a plan like prices and probe."""

    learned: tuple[Learned, ...] = ()

    @property
    def digest(self) -> Digest:
        """Of all that it says."""
        return digest_of(self)

    def of(self, figure: str, kind: str, hardware: str) -> Learned | None:
        """What is known of a figure there; of its kind elsewhere, if nothing was seen there; or nothing."""
        known = [item for item in self.learned if (item.figure, item.kind) == (figure, kind)]
        here = next((item for item in known if item.hardware == hardware), None)
        return here or next((item for item in known if not item.hardware), None)


def learn(cases: Iterable[Case]) -> Experience:
    """What cases teach, by figure and kind: for each hardware they ran on, and for any other (under no name)."""
    groups: dict[tuple[str, str], dict[str, list[Case]]] = {}
    for case in sorted(cases, key=lambda case: (case.when, case.figure, case.predicted)):
        if case.predicted > 0 and case.measured > 0:
            groups.setdefault((case.figure, case.kind), {}).setdefault(case.hardware, []).append(case)
    found: list[Learned] = []
    for (figure, kind), places in sorted(groups.items()):
        noise = _noise(places.values())
        common = _common(places.values(), noise)
        total = sum(len(each) for each in places.values())
        for hardware, some in sorted(places.items()):
            mean, variance = _shrunk(some, common, noise)
            factor = _factor(mean, variance + noise**2, len(some))
            found.append(
                Learned(figure=figure, kind=kind, hardware=hardware, factor=factor, cases=len(some),
                        others=total - len(some), moved=_moved(some))
            )  # fmt: skip
        elsewhere = _factor(common[0], common[1] + _HARDWARE**2 + noise**2, total)
        found.append(Learned(figure=figure, kind=kind, hardware="", factor=elsewhere, cases=0, others=total))
    return Experience(learned=tuple(found))


def corrected(estimate: Estimate, learned: Learned | None) -> Estimate:
    """A prediction times what was learned; its interval never widens on either side."""
    if learned is None or estimate.value <= 0:
        return estimate
    factor = learned.factor
    value = estimate.value * factor.value
    below = min(estimate.value / estimate.low, factor.value / factor.low) if estimate.low > 0 else math.inf
    above = min(estimate.high / estimate.value, factor.high / factor.value)
    return Estimate(
        value=value, low=value / below, high=value * above, level=0.9, n=factor.n,
        method=f"{estimate.method}, corrected by {factor.n} cases",
    )  # fmt: skip


def _noise(places: Iterable[Sequence[Case]]) -> float:
    """How far cases of one place are apart."""
    squares, freedom = 0.0, 0
    for some in places:
        mean = math.fsum(case.off for case in some) / len(some)
        squares += math.fsum((case.off - mean) ** 2 for case in some)
        freedom += len(some) - 1
    return max(_NOISE, math.sqrt(squares / freedom)) if freedom else 2 * _NOISE


def _common(places: Iterable[Sequence[Case]], noise: float) -> tuple[float, float]:
    """Mean and variance of what a kind is off by, wherever it runs."""
    precision, weighted = 1 / _KIND**2, 0.0
    for some in places:
        weight = 1 / (_HARDWARE**2 + noise**2 / len(some))
        precision += weight
        weighted += weight * math.fsum(case.off for case in some) / len(some)
    return weighted / precision, 1 / precision


def _shrunk(some: Sequence[Case], common: tuple[float, float], noise: float) -> tuple[float, float]:
    """Mean and variance of what one hardware is off by, pulled to that of its kind."""
    own, prior = len(some) / noise**2, 1 / _HARDWARE**2
    mean = (prior * common[0] + math.fsum(case.off for case in some) / noise**2) / (prior + own)
    share = prior / (prior + own)
    return mean, 1 / (prior + own) + share**2 * common[1]


def _factor(mean: float, variance: float, n: int) -> Estimate:
    width = _Z90 * math.sqrt(variance)
    return Estimate(
        value=math.exp(mean), low=math.exp(mean - width), high=math.exp(mean + width), level=0.9, n=n,
        method="measured over predicted, shrunk",
    )  # fmt: skip


def _moved(some: Sequence[Case]) -> str:
    """Whether the newest cases differ from those before by more than chance explains, with 99 % confidence."""
    before, newest = some[:-_RECENT], some[-_RECENT:]
    if len(before) < _RECENT:
        return ""
    means = [math.fsum(case.off for case in part) / len(part) for part in (before, newest)]
    variances = [
        max(_NOISE**2 / 4, math.fsum((case.off - mean) ** 2 for case in part) / (len(part) - 1)) / len(part)
        for part, mean in zip((before, newest), means, strict=True)
    ]
    if abs(means[1] - means[0]) <= _Z99 * math.sqrt(sum(variances)):
        return ""
    was, now = (math.exp(mean) for mean in means)
    return f"since {newest[0].when[:10]} it is {now:.2f} times what was predicted; before, {was:.2f} times"
