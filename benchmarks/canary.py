"""Guards of a release under simulated traffic, looked at each second: false alarms, power, and a z-test beside them.

Run: python benchmarks/canary.py [runs]   (a thousand runs of each take some minutes, ten a few seconds)
"""

import math
import statistics
import sys
from collections.abc import Callable

import numpy as np

from bedplate.stats import canary
from bedplate.stats.intervals import clopper_pearson

ALPHA, SHARE, SECONDS = 0.01, 0.1, 600
RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
FOUND = 0.9
"""The share of runs in which a worse release is to be found in time."""

Counts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Each second: requests and events on the candidate, requests and events on the stable release."""


def split(rng: np.random.Generator, rate: float, seconds: int) -> tuple[np.ndarray, np.ndarray]:
    """Requests of each second, on the candidate and on the stable release."""
    requests = rng.poisson(rate, size=seconds)
    on = rng.binomial(requests, SHARE)
    return on, requests - on


def errors(
    rng: np.random.Generator, rate: float, seconds: int, stable: float, candidate: float, bursts: str = ""
) -> Counts:
    """Errors at a rate that wanders (AR(1)) where there are bursts: ten of 0.8 of what they hit, in one second each."""
    on, off = split(rng, rate, seconds)
    wander = np.ones(seconds)
    if bursts:
        steps = rng.normal(0, 0.3, size=seconds)
        level = 0.0
        for i in range(seconds):
            level = 0.9 * level + steps[i]
            wander[i] = math.exp(level)
    bad_on = rng.binomial(on, np.clip(candidate * wander, 0, 1))
    bad_off = rng.binomial(off, np.clip(stable * wander, 0, 1))
    for start in rng.integers(0, seconds, size=10) if bursts else ():
        hit = bursts == "common" or rng.random() < SHARE
        spared = bursts != "common" and hit
        if bursts == "node":
            (bad_on if hit else bad_off)[start] += 20
            continue
        bad_on[start] += hit * rng.binomial(on[start] - bad_on[start], 0.8)
        bad_off[start] += (not spared) * rng.binomial(off[start] - bad_off[start], 0.8)
    return on, bad_on, off, bad_off


def slow(rng: np.random.Generator, rate: float, seconds: int, factor: float) -> Counts:
    """Answers slower than the stable release's p95 of the 30 s before, with heavy tails and a load that wanders."""
    on, off = split(rng, rate, seconds)
    load = np.exp(0.3 * np.sin(np.arange(seconds) / 40) + rng.normal(0, 0.1, size=seconds))
    bad_on, bad_off, recent = np.zeros(seconds, int), np.zeros(seconds, int), list[np.ndarray]()
    for i in range(seconds):
        stable = load[i] * rng.lognormal(0, 0.8, size=off[i])
        candidate = factor * load[i] * rng.lognormal(0, 0.8, size=on[i])
        if recent:
            limit = np.quantile(np.concatenate(recent[-30:]), 0.95)
            bad_on[i], bad_off[i] = (candidate > limit).sum(), (stable > limit).sum()
        recent.append(stable)
    return on, bad_on, off, bad_off


def by_events(counts: Counts) -> float:
    """Requests until the guard alarms."""
    events, total = canary.Events(), 0
    for on, bad_on, off, bad_off in zip(*(column.tolist() for column in counts), strict=True):
        total += on + off
        events.second(bad_on, bad_on + bad_off, on + off)
        if (bad_on or bad_off) and events.e_value(SHARE) >= 1 / ALPHA:
            return total
    return math.inf


def by_z(counts: Counts) -> float:
    """Requests until a one-sided z-test of two shares at the same level alarms."""
    n, k, m, j = (np.cumsum(column) for column in counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (k + j) / (n + m)
        z = (k / n - j / m) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    above = np.flatnonzero((z > statistics.NormalDist().inv_cdf(1 - ALPHA)) & (n >= 20))
    return float((n + m)[above[0]]) if above.size else math.inf


def false_alarms(name: str, make: Callable[[np.random.Generator], Counts]) -> None:
    """How many runs of the same release twice alarm."""
    rng = np.random.default_rng(0)
    runs = [make(rng) for _ in range(RUNS)]
    ours, naive = (sum(math.isfinite(test(counts)) for counts in runs) for test in (by_events, by_z))
    share = clopper_pearson(ours, RUNS)
    verdict = "ok" if share.value <= 1.5 * ALPHA else "MISSED"
    print(
        f"A/A {name:34s} false alarms {share.value:6.2%} [{share.low:.2%}, {share.high:.2%}] "
        f"(nominal {ALPHA:.0%}: {verdict}); z-test {naive / RUNS:.0%}"
    )


def power(name: str, make: Callable[[np.random.Generator], Counts], within: int) -> None:
    """How many runs of a worse release alarm within so many requests."""
    rng = np.random.default_rng(1)
    stops = [by_events(make(rng)) for _ in range(RUNS)]
    found = sum(stop <= within for stop in stops) / RUNS
    verdict = "ok" if found >= FOUND else "MISSED"
    print(
        f"A/B {name:34s} found within {within:,} requests {found:6.1%} (at least {FOUND:.0%}: {verdict}); "
        f"median {statistics.median(stops):,.0f}"
    )


def main() -> None:
    """Print the two tables."""
    print(f"alpha {ALPHA:.0%}, {SHARE:.0%} of traffic, {RUNS} runs, a look each second, {SECONDS} s at 100 requests/s")
    for bursts in ("", "common", "process", "node"):
        label = f"errors 1 %, {f'bursts ({bursts})' if bursts else 'independent'}"
        false_alarms(label, lambda rng, b=bursts: errors(rng, 100, SECONDS, 0.01, 0.01, b))  # type: ignore[misc]
    false_alarms("latency, heavy tails, wandering", lambda rng: slow(rng, 100, 120, 1.0))
    for rate in (20, 50, 100, 200):
        seconds = 3400 // rate
        power(f"errors 1 % -> 5 %, {rate}/s", lambda rng, r=rate, s=seconds: errors(rng, r, s, 0.01, 0.05), 3400)  # type: ignore[misc]
    power("errors 0 -> 5 %, 100/s", lambda rng: errors(rng, 100, 30, 0.0, 0.05), 3000)
    power("latency x 2, 100/s", lambda rng: slow(rng, 100, 34, 2.0), 3400)


if __name__ == "__main__":
    main()
