"""Waiting in line: M/G/c by Erlang C, by its mean and by its tail, and a small event simulator as arbiter.

Service times are described by their mean ``s`` and squared coefficient of variation ``cs2``; arrivals are Poisson.
Sources: Erlang (1917) for C; Cosmetatos (1976) for the mean; Asmussen (2003), Applied Probability and Queues, XIII.5,
for how fast the tail falls. Service times are gamma up to ``cs2`` of 1, where the formula holds, and log-normal above,
where the tail falls slower than any exponential and the simulator decides.
"""

import heapq
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

CUSTOMERS = 60_000
"""Simulated customers; a tenth of them warm the queue up and is left out."""


class Sojourn(NamedTuple):
    """A percentile of waiting plus service, in the unit of ``s``, and how it was found. Infinite if the queue grows."""

    value: float
    utilisation: float
    method: str


def erlang_b(c: int, a: float) -> float:
    """Share of arrivals lost with ``c`` servers, no waiting room and ``a`` erlangs offered."""
    b = 1.0
    for k in range(1, c + 1):
        b = a * b / (k + a * b)
    return b


def erlang_c(c: int, a: float) -> float:
    """Share of arrivals that wait with ``c`` servers and ``a`` erlangs offered; 1 if ``a`` is ``c`` or more."""
    if a >= c:
        return 1.0
    b = erlang_b(c, a)
    return b / (1 - a / c * (1 - b))


def mean_wait(c: int, rate: float, s: float, cs2: float) -> float:
    """Mean wait in line of M/G/c: exact for M/M/c and M/G/1, else between M/M/c and M/D/c. Infinite if the queue grows.

    Source: Cosmetatos (1976), Some Approximate Equilibrium Results for the Multi-server Queue M/G/r, for M/D/c.
    """
    a = rate * s
    if a >= c:
        return math.inf
    return erlang_c(c, a) * s / (c - a) * _steadier(c, a / c, cs2)


def _steadier(c: int, utilisation: float, cs2: float) -> float:
    """The mean wait as a share of that of M/M/c."""
    more = (1 - utilisation) * (c - 1) * (math.sqrt(4 + 5 * c) - 2) / (16 * utilisation * c)
    return cs2 + (1 - cs2) / 2 * (1 + min(more, 0.25)) if cs2 <= 1 else (1 + cs2) / 2


def _falls(c: int, utilisation: float, cs2: float) -> float:
    """How fast the wait of those who wait falls, as an exponential's rate in units of 1/s. Exact for M/M/c.

    Two exponentials are known: the one with the right mean (:func:`mean_wait`), and the one that the far tail follows,
    whose rate solves ``utilisation (E[exp(x S)] - 1) = x`` for each server. A percentile lies between the two: the
    mean of their scales is taken.
    """
    mean = c * (1 - utilisation) / _steadier(c, utilisation, cs2)
    low, high = 0.0, 2 * (1 - utilisation) / (utilisation * (1 + cs2))  # as E[exp(x S)] is above 1 + x + (1 + cs2)x²/2
    if cs2 > 1e-9:
        high = min(high, 1 / cs2)
    for _ in range(40):
        x = (low + high) / 2
        grown = math.exp(-math.log1p(-cs2 * x) / cs2) if cs2 > 1e-9 else math.exp(x)
        low, high = (x, high) if utilisation * (grown - 1) < x else (low, x)
    return 2 / (1 / mean + 1 / (c * low))


def sojourn(p: float, c: int, rate: float, s: float, cs2: float) -> Sojourn:
    """The ``p`` quantile of waiting plus service with ``c`` servers."""
    utilisation = rate * s / c
    if utilisation >= 1:
        return Sojourn(math.inf, utilisation, "the queue grows without end")
    if cs2 > 1:
        # In units of s the answer depends on c, utilisation and cs2 only; rounding up lets neighbours share it.
        steps = min(0.995, math.ceil(utilisation * 100) / 100)
        return Sojourn(s * _simulated(p, c, steps, round(cs2, 2)), utilisation, f"simulated, {CUSTOMERS:,} requests")
    return Sojourn(s * _together(p, c, utilisation, cs2), utilisation, "M/G/c, by mean and tail")


def _together(p: float, c: int, utilisation: float, cs2: float) -> float:
    """The ``p`` quantile of a wait and a service that do not depend on each other, in units of the mean service."""
    services, above, share = _services(cs2)
    # A wait of less than a hundredth of the service adds nothing; held back so that no power overflows.
    falls = min(_falls(c, utilisation, cs2), 600 / float(services[-1]))
    waits = erlang_c(c, utilisation * c)
    grown = share * np.exp(falls * (services - services[-1]))
    grown = np.cumsum(grown) - grown / 2
    # Longer than each node: the service alone is, or it ends sooner and the wait takes the rest.
    longer = above + waits * np.exp(falls * (services[-1] - services)) * grown
    if longer[-1] > 1 - p:
        return float(services[-1] + math.log(longer[-1] / (1 - p)) / falls)
    return float(np.exp(np.interp(-math.log(1 - p), -np.log(longer), np.log(services))))


@lru_cache(maxsize=64)
def _services(cs2: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Service times of mean 1 from short to long, closer where few are longer: each with the share that is longer, and
    the share that it stands for."""
    edges = np.linspace(1, 0, 401) ** 3
    above = (edges[:-1] + edges[1:]) / 2
    times = special.gammainccinv(1 / cs2, above) * cs2 if cs2 > 1e-9 else np.ones(len(above))
    return times, above, edges[:-1] - edges[1:]


def service_quantile(p: float, cs2: float) -> float:
    """The ``p`` quantile of a gamma service time of mean 1."""
    if cs2 <= 1e-9:
        return 1.0
    return float(special.gammaincinv(1 / cs2, p) * cs2)


def simulate(c: int, rate: float, s: float, cs2: float, *, customers: int = CUSTOMERS, seed: int = 1) -> np.ndarray:
    """Waiting plus service of each customer of a first-come-first-served M/G/c queue, after the warm-up."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, customers))
    service = _service(random, s, cs2, customers)
    if c == 1:
        return _one_by_one(arrivals, service)[customers // 10 :]
    free = [0.0] * c
    sojourns = np.empty(customers)
    for i, (arrival, work) in enumerate(zip(arrivals.tolist(), service.tolist(), strict=True)):
        done = max(free[0], arrival) + work
        heapq.heapreplace(free, done)
        sojourns[i] = done - arrival
    return sojourns[customers // 10 :]


def replay(rate: float, service: np.ndarray, together: Sequence[float] = (1.0,)) -> np.ndarray:
    """Waiting plus service of customers who come at even distances, as a load run sends them, to one server (D/G/1).

    Each takes as long as ``service`` says, which was measured: a distribution is not put in the place of what is known.
    ``together`` are times of 1, 2, 3 ... that are served at once, over that of one: whoever waits when the server
    becomes free is served with the first of them, as far as it goes, and all leave together.
    """
    arrivals = np.arange(1, len(service) + 1) / rate
    if len(together) == 1:
        return _one_by_one(arrivals, service)
    left = np.empty(len(service))
    comes, takes, first, free = arrivals.tolist(), service.tolist(), 0, 0.0
    while first < len(takes):
        begin = max(free, comes[first])
        count = 1
        while count < len(together) and first + count < len(takes) and comes[first + count] <= begin:
            count += 1
        free = begin + takes[first] * together[count - 1]
        left[first : first + count] = free
        first += count
    return left - arrivals


def _one_by_one(arrivals: np.ndarray, service: np.ndarray) -> np.ndarray:
    """Lindley's recursion, as a running maximum."""
    finished = np.cumsum(service)
    start = np.maximum.accumulate(arrivals - np.concatenate(([0.0], finished[:-1])))
    return np.asarray(start + finished - arrivals)


def _service(random: np.random.Generator, s: float, cs2: float, n: int) -> np.ndarray:
    if cs2 <= 1e-9:
        return np.full(n, s)
    if cs2 <= 1:
        return random.gamma(1 / cs2, s * cs2, n)
    sigma2 = math.log(1 + cs2)
    return random.lognormal(math.log(s) - sigma2 / 2, math.sqrt(sigma2), n)


@lru_cache(maxsize=4096)
def _simulated(p: float, c: int, utilisation: float, cs2: float) -> float:
    return float(np.quantile(simulate(c, utilisation * c, 1.0, cs2), p))
