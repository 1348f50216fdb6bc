"""Drift between a reference and what is served now: an effect that matters, and evidence that may be looked at daily.

For each feature two-sample tests give p-values, a calibrator turns them into e-values, and a Shiryaev-Roberts detector
gathers them over time. The average of the features' detectors is a detector itself, under any dependence, and loses
nothing to features that stay as they are. An alarm needs both: the detector at ``1 / alpha``
(with nothing wrong that happens once in ``1 / alpha`` windows or less often) and an effect above the declared minimum.

Three corrections keep the evidence honest.
- *Finite reference*: its own error does not shrink as windows go by, so a window is compared with the closest
  distribution that the reference leaves possible (Dvoretzky-Kiefer-Wolfowitz band; its analogue for chi-squared).
- *Rows that resemble their neighbours, and seasons*: given the reference in blocks, such as its weeks, the spread
  between the blocks is measured against what independent rows would show (Rao & Scott 1984), and the test statistic
  is divided by it; that the spread is itself estimated makes the tail that of an F distribution.
- *Ties*: columns of few values are tested as categories, rare cells merged.

`docs/explain/statistics.md` derives each step; its figures are asserted in the tests.
"""

import math
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import special, stats

from bedplate.records import DriftFinding, Estimate
from bedplate.stats.evalues import Detector, calibrate, e_bh
from bedplate.stats.sketches import Histogram

Array = npt.NDArray[np.float64]
BINS = 256
REFERENCE_ERROR = 0.01
"""Probability with which a reference may lie outside the band that is drawn around it."""
LEAST_EXPECTED = 5.0
"""Cells that expect fewer rows in a window are merged: below it chi-squared is not chi-squared."""
SMALL = 200
"""Below so many rows the tests are exact (numbers) or by permutation (categories)."""
PERMUTATIONS = 1999
MISSING_WEIGHT = 0.1
"""Share of a feature's evidence that listens to missing values."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as drift. ``alpha`` bounds false alarms: at most one in 1 / alpha windows on average."""

    alpha: float = 0.001
    minimum_sd: float = 0.1
    minimum_share: float = 0.05
    attribution: float = 0.1
    level: float = 0.95


class FeatureReference(msgspec.Struct, frozen=True, kw_only=True):
    """One feature in the reference. ``cells`` are inner edges (numbers) or names (categories, one more cell: others).

    ``dispersion`` is how many times more blocks of the reference differ than independent rows would (1 or more), known
    from ``freedom`` degrees of freedom (0: no blocks were given, rows are taken as independent), and
    ``block_rows`` how many rows such a block had.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    cells: tuple[Any, ...]
    histogram: Histogram
    dispersion: float = 1.0
    freedom: int = 0
    block_rows: float = 0.0


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one window says about one feature."""

    feature: str
    p_value: float
    e_value: float
    effect: Estimate
    unit: str
    minimum: float


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One detector per feature across windows. JSON-able; the caller keeps it between windows."""

    features: dict[str, Detector] = {}

    @property
    def evidence(self) -> float:
        """The average of the detectors."""
        return float(np.mean([d.value for d in self.features.values()])) if self.features else 0.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The state after a window, with what it means: ``evidence`` is the detector, ``alarm`` needs an effect too."""

    state: State
    findings: tuple[DriftFinding, ...]
    evidence: float
    alarm: bool


def describe(
    name: str,
    kind: Literal["numeric", "categorical"],
    cells: tuple[Any, ...],
    blocks: tuple[Histogram, ...],
) -> FeatureReference:
    """The reference of one feature from the histograms of its blocks; one block means that rows are independent."""
    whole = blocks[0]
    for block in blocks[1:]:
        whole = whole.merge(block)
    used = [block for block in blocks if block.n]
    if len(used) < 2:
        return FeatureReference(name=name, kind=kind, cells=cells, histogram=whole)
    table = np.array([block.counts for block in used], dtype=np.float64)
    return FeatureReference(
        name=name,
        kind=kind,
        cells=cells,
        histogram=whole,
        dispersion=max(1.0, _dispersion(table, kind)),
        freedom=len(used) - 1,
        block_rows=float(table.sum() / len(used)),
    )


def _dispersion(table: Array, kind: str) -> float:
    """Variance between rows of ``table`` (blocks x cells) over that of independent draws, averaged."""
    sizes = table.sum(axis=1)
    share = table.sum(axis=0) / sizes.sum()
    if kind == "categorical":
        kept = share > 0
        squares = (table[:, kept] - np.outer(sizes, share[kept])) ** 2 / np.outer(sizes, share[kept])
        return float(squares.sum() / ((len(sizes) - 1) * max(1, int(kept.sum()) - 1)))
    # Of numbers the distribution function is tested, so its variance counts, at the inner nine tenths.
    function = np.cumsum(share)[:-1]
    kept = (function > 0.05) & (function < 0.95)
    if not kept.any():
        return 1.0
    ours = (np.cumsum(table, axis=1)[:, :-1] / sizes[:, None])[:, kept]
    squares = sizes[:, None] * (ours - function[kept]) ** 2 / (function[kept] * (1 - function[kept]))
    return float(squares.sum(axis=0).mean() / (len(sizes) - 1))


def weigh(reference: FeatureReference, window: Histogram) -> tuple[float, float]:
    """P-value and e-value of one window of one feature, if it were drawn from its reference.

    Raises:
        ValueError: the window was counted in other cells than the reference.
    """
    before, now = _counts(reference, window)
    spread = _spread_at(reference, float(now.sum()))
    tests = [1.0]
    if before.any() and now.any() and reference.kind == "numeric":
        tests = [p_value(before, now, spread, reference.freedom) for p_value in (_kolmogorov_smirnov, _mean_score)]
    elif before.any() and now.any():
        tests = [_chi_squared(before, now, spread, reference.freedom)]
    gone_before, gone_now = _missing(reference.histogram), _missing(window)
    some = gone_now.any() and (gone_before[1] or gone_now[1])
    p_missing = _chi_squared(gone_before, gone_now, spread, reference.freedom) if some else 1.0
    e = calibrate([*tests, p_missing])
    return (
        min(1.0, min(*tests, p_missing) * (len(tests) + 1)),
        (1 - MISSING_WEIGHT) * float(e[:-1].mean()) + MISSING_WEIGHT * float(e[-1]),
    )


def compare(reference: FeatureReference, window: Histogram, settings: Settings = Settings()) -> Evidence:  # noqa: B008
    """:func:`weigh` one window of one feature, and measure how far it moved.

    Raises:
        ValueError: the window was counted in other cells than the reference.
    """
    before, now = _counts(reference, window)
    p, e = weigh(reference, window)
    spread = _spread_at(reference, float(now.sum()))
    if reference.kind == "numeric":
        effect, unit, minimum = _shift(before, now, spread, settings.level), "sd", settings.minimum_sd
    else:
        effect, unit, minimum = _total_variation(before, now, spread, settings.level), "share", settings.minimum_share
    missing = _total_variation(_missing(reference.histogram), _missing(window), spread, settings.level)
    if missing.value / settings.minimum_share > effect.value / minimum:
        effect, unit, minimum = missing, "share missing", settings.minimum_share
    return Evidence(
        feature=reference.name,
        p_value=p,
        e_value=e,
        effect=effect,
        unit=unit,
        minimum=minimum,
    )


def step(state: State, window: tuple[Evidence, ...], settings: Settings = Settings()) -> Verdict:  # noqa: B008
    """The detectors after one window, and whether they alarm.

    Which features drifted is told by e-BH at ``settings.attribution``: of those named, at most that share on average is
    named wrongly. A feature alarms when it is named, its effect exceeds the minimum, and the average of the detectors
    has reached its limit.
    """
    if not window:
        return Verdict(state=state, findings=(), evidence=state.evidence, alarm=False)
    features = dict(state.features)
    for item in window:
        features[item.feature] = features.get(item.feature, Detector()).update(item.e_value)
    after = State(features=features)
    reached = after.evidence >= 1 / settings.alpha
    named = e_bh([features[item.feature].e_value for item in window], settings.attribution)
    findings = tuple(
        DriftFinding(
            feature=item.feature,
            effect=item.effect,
            effect_unit=item.unit,
            minimum_effect=item.minimum,
            e_value=features[item.feature].e_value,
            alarm=bool(reached and is_named and item.effect.value >= item.minimum),
        )
        for item, is_named in zip(window, named, strict=True)
    )
    return Verdict(
        state=after,
        findings=findings,
        evidence=after.evidence,
        alarm=any(finding.alarm for finding in findings),
    )


def _counts(reference: FeatureReference, window: Histogram) -> tuple[Array, Array]:
    if len(reference.histogram.counts) != len(window.counts):
        raise ValueError(f"{reference.name}: window and reference have different cells")
    return np.array(reference.histogram.counts, dtype=np.float64), np.array(window.counts, dtype=np.float64)


def _missing(histogram: Histogram) -> Array:
    """Values that were there, and values that were not."""
    return np.array([histogram.n, histogram.missing], dtype=np.float64)


def _spread_at(reference: FeatureReference, n: float) -> float:
    """The dispersion for a window of ``n`` rows: what blocks have in common grows with the rows that share it."""
    if not reference.freedom or n <= reference.block_rows:
        return reference.dispersion
    return 1 + (reference.dispersion - 1) * n / reference.block_rows


def _kolmogorov_smirnov(before: Array, now: Array, spread: float, freedom: int) -> float:
    """P-value of the distance between a window and the band around its reference. Ties only make it larger."""
    m, n = before.sum(), now.sum()
    distance = float(np.abs(np.cumsum(now)[:-1] / n - np.cumsum(before)[:-1] / m).max(initial=0.0))
    band = math.sqrt(math.log(2 / REFERENCE_ERROR) * max(1.0, spread) / (2 * m))
    beyond = distance - band
    if beyond <= 0:
        return 1.0
    if freedom:
        # Two exponentials whose rate is known as well as the dispersion is: 2 exp(-2 n d^2 / s), mixed over s.
        return min(1.0, 2 * math.pow(1 + 4 * n * beyond**2 / (spread * freedom), -freedom / 2))
    if n < SMALL:
        exact: float = stats.kstwo.sf(beyond, int(n))
        return float(exact)
    root = math.sqrt(n)
    return float(special.kolmogorov(float((root + 0.12 + 0.11 / root) * beyond)))  # Stephens' correction, finite n


def _mean_score(before: Array, now: Array, spread: float, freedom: int) -> float:
    """P-value of the mean normal score: the sharpest test of a shift (van der Waerden 1952), deaf to other changes."""
    m, n = before.sum(), now.sum()
    ends = np.cumsum(before) / m
    scores = special.ndtri(np.clip(ends - before / m / 2, 1e-6, 1 - 1e-6))
    known = math.sqrt(max(0.0, float((before * scores**2).sum() / m) - float((before * scores).sum() / m) ** 2))
    if known == 0:
        return 1.0
    distance = abs(float((now * scores).sum() / n - (before * scores).sum() / m)) / known
    band = float(special.ndtri(1 - REFERENCE_ERROR / 2)) * math.sqrt(max(1.0, spread) / m)
    z = max(0.0, distance - band) * math.sqrt(n / spread)
    return min(1.0, 2 * float(special.stdtr(freedom, -z) if freedom else special.ndtr(-z)))


def _chi_squared(before: Array, now: Array, spread: float, freedom: int) -> float:
    """P-value of chi-squared distance, rare cells merged, less what the finite reference may add."""
    m, n = before.sum(), now.sum()
    before, now = _merge_rare(before, now, LEAST_EXPECTED * (m + n) / n if n else math.inf)
    if before.size < 2:
        return 1.0
    # Half a row in each cell: a cell that the reference has never seen is unlikely, not impossible.
    share = (before + 0.5) / (before.sum() + 0.5 * before.size)
    cells = before.size - 1
    statistic = float(((now - n * share) ** 2 / (n * share)).sum())
    band = float(special.chdtri(cells, REFERENCE_ERROR)) * n / m * max(1.0, spread) if m else math.inf
    beyond = max(0.0, math.sqrt(statistic) - math.sqrt(band)) ** 2
    if beyond == 0:
        return 1.0
    if freedom:
        return float(special.fdtrc(cells, freedom * cells, beyond / cells / spread))
    p = float(special.chdtrc(cells, beyond))
    return max(p, _permutation(before, now, statistic)) if n < SMALL and p < 0.5 else p


def _permutation(before: Array, now: Array, statistic: float) -> float:
    """Share of random splits of all rows whose chi-squared distance is at least the seen one. Seeded by the table."""
    table = np.array([before, now], dtype=np.int64)
    rng = np.random.default_rng(table.ravel().tolist())
    n = int(table[1].sum())
    # Only the marginals of a draw of n from a large population matter: cap it, so that the draw stays exact and fast.
    drawn = rng.multivariate_hypergeometric(table.sum(axis=0), n, size=PERMUTATIONS, method="marginals").astype(float)
    rest = table.sum(axis=0) - drawn
    share = (rest + 0.5) / (rest.sum(axis=1, keepdims=True) + 0.5 * before.size)
    distances = ((drawn - n * share) ** 2 / (n * share)).sum(axis=1)
    return float((1 + np.count_nonzero(distances >= statistic * (1 - 1e-12))) / (1 + PERMUTATIONS))


def _merge_rare(before: Array, now: Array, least: float) -> tuple[Array, Array]:
    """Cells whose two rows together hold fewer than ``least``, added up into one; joins the next if rare."""
    total = before + now
    order = np.argsort(-total, kind="stable")
    kept = int(np.count_nonzero(total >= least))
    rare_before, rare_now = float(before[order[kept:]].sum()), float(now[order[kept:]].sum())
    b, c = before[order[:kept]], now[order[:kept]]
    if rare_before + rare_now > 0:
        if kept and rare_before + rare_now < least:
            b, c = b.copy(), c.copy()
            b[-1] += rare_before
            c[-1] += rare_now
        else:
            b, c = np.append(b, rare_before), np.append(c, rare_now)
    return b, c


def _shift(before: Array, now: Array, spread: float, level: float) -> Estimate:
    """How far the distribution moved, in standard deviations of the reference on its normal scale.

    The Wasserstein distance between normal scores: a shift of a normal column by k standard deviations gives k, a
    change of shape counts, and no heavy tail can dominate it.
    """
    m, n = before.sum(), now.sum()
    if not m or not n:
        return Estimate(value=0.0, low=0.0, high=0.0, level=level, n=int(n), method="normal-score distance")
    f, g = np.cumsum(before)[:-1] / m, np.cumsum(now)[:-1] / n
    # A cell stretches, on the normal scale, between the scores of the middles of its neighbours.
    middles = special.ndtri(np.clip((np.concatenate([[0.0], f]) + np.concatenate([f, [1.0]])) / 2, 1e-6, 1 - 1e-6))
    return _distance(np.diff(middles), f, g, m, n, spread, level, "normal-score distance")


def _distance(
    weights: Array, f: Array, g: Array, m: float, n: float, spread: float, level: float, method: str
) -> Estimate:
    """Sum of ``weights |g - f|`` over edges, less what chance alone adds, with a delta-method interval."""
    moved = float((weights * np.abs(g - f)).sum())
    size = spread * (1 / n + 1 / m)
    chance = float((weights * np.sqrt(2 / math.pi * f * (1 - f) * size)).sum())
    signed = weights * np.sign(g - f)
    # The signed sum is the mean over rows of a step function of the cell; its variance follows from cell shares.
    steps = np.concatenate([np.cumsum(signed[::-1])[::-1], [0.0]])
    cells = np.diff(np.concatenate([[0.0], g, [1.0]]))
    variance = float((cells * steps**2).sum() - (cells * steps).sum() ** 2)
    half = float(special.ndtri(0.5 + level / 2)) * math.sqrt(max(0.0, variance) * size)
    value = math.sqrt(max(0.0, moved**2 - chance**2))
    return Estimate(value=value, low=max(0.0, value - half), high=value + half, level=level, n=int(n), method=method)


def _total_variation(before: Array, now: Array, spread: float, level: float) -> Estimate:
    """Share of rows that would have to change category, less what chance alone adds, with a delta-method interval."""
    m, n = before.sum(), now.sum()
    if not m or not n:
        return Estimate(value=0.0, low=0.0, high=0.0, level=level, n=int(n), method="total variation")
    p, q = before / m, now / n
    size = spread * (1 / n + 1 / m)
    moved = 0.5 * float(np.abs(q - p).sum())
    chance = 0.5 * float(np.sqrt(2 / math.pi * p * (1 - p) * size).sum())
    signed = 0.5 * np.sign(q - p)
    variance = float((q * signed**2).sum() - (q * signed).sum() ** 2)
    half = float(special.ndtri(0.5 + level / 2)) * math.sqrt(max(0.0, variance) * size)
    value = math.sqrt(max(0.0, moved**2 - chance**2))
    return Estimate(
        value=value,
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        level=level,
        n=int(n),
        method="total variation",
    )
