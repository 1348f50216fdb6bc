"""Whether a candidate release is worse than the stable one, looked at as often as one likes.

Traffic is split at random, so if both releases fail alike each failure falls on the candidate with its share of the
traffic, no matter how many failures there are or what else causes them: an exact test that needs no rate and no period.
Source: the conditional test of two Poisson rates (Przyborowski & Wilenski, 1940) as a mixture of likelihood ratios
(Robbins, 1970). Nothing here loads SciPy, since replicas count with it.
"""

import math
import operator

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.stats.evalues import LARGEST

Array = npt.NDArray[np.float64]

# Most of the weight lies where a release would be stopped by hand as well, at several times as many failures. A weight
# split among ratios near each other is evidence lost: of 1 % to 5 % errors, 10 % of traffic, 1 % false alarms allowed,
# this finds 93.9 % within 3,400 requests by the exact law, five ratios from 1.5 to 50 found 92.9 %, and a test with one
# look at the end finds 95 %. Ten times and twice as many are found as fast as by weights that lie wider.
_RATIOS = np.array([2.0, 4.0, 10.0, 50.0])
_WEIGHTS = np.array([0.08, 0.81, 0.08, 0.03])
_USUAL = 0.02
"""The share of a first second's requests that may be events without being a burst: nothing is known yet."""
_DEVIATIONS = 3.0
"""How many standard deviations above what went before make a second's events a burst."""


class Events(msgspec.Struct, kw_only=True):
    """Events of one kind (failures, slow answers), counted second by second for :func:`e_values`.

    Events that share a cause on one side, such as a process that hangs, come in bursts and are no independent evidence.
    A second with more events than those before it make plausible is therefore counted as one event, which falls on the
    candidate as far as the burst did: the geometric mean of its factors, which a fair split keeps at 1 or below however
    its events depend on each other. What a burst is depends on the number of events alone, never on their side.
    """

    on_candidate: float = 0.0
    counted: float = 0.0
    seen: float = 0.0
    requests: int = 0

    def second(self, on_candidate: int, events: int, requests: int) -> None:
        """After one more second with ``events`` in ``requests``, ``on_candidate`` of them on the candidate."""
        known = (self.seen + 0.5) / self.requests if self.requests else max(_USUAL, 0.5 / max(1, requests))
        expected = requests * known
        most = expected + _DEVIATIONS * math.sqrt(expected) + 1
        if events > most:
            self.on_candidate += on_candidate / events
            self.counted += 1
        else:
            self.on_candidate += on_candidate
            self.counted += events
        self.seen += min(events, 2 * most)  # a long outage becomes what is usual, but not at once
        self.requests += requests

    def e_value(self, share: float) -> float:
        """The evidence so far that the candidate has more than its share; stop the release at ``1 / alpha``."""
        return float(e_values(self.on_candidate, self.counted, share))


_BETS = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.8])


class Values(msgspec.Struct, kw_only=True):
    """Values in [0, 1] that both releases earn, such as a KPI; more is better. Evidence that the candidate earns less.

    Each value of the candidate is held against the mean of those that the stable release earned since the one before.
    If the candidate is as good, the difference is at most 0 on average whatever came before, so that betting a part of
    a fortune on it makes none: the e-value is the mean fortune over several parts (Waudby-Smith & Ramdas 2024).
    """

    stable: int = 0
    candidate: int = 0
    stable_sum: float = 0.0
    candidate_sum: float = 0.0
    squares: float = 0.0
    since: int = 0
    since_sum: float = 0.0
    logs: tuple[float, ...] = tuple([0.0] * 6)

    def add(self, value: float, *, on_candidate: bool) -> None:
        """Take one value in.

        Raises:
            ValueError: it is outside [0, 1].
        """
        if not 0 <= value <= 1:
            raise ValueError(f"value {value} must lie between 0 and 1")
        self.squares += value * value
        if not on_candidate:
            self.stable, self.stable_sum = self.stable + 1, self.stable_sum + value
            self.since, self.since_sum = self.since + 1, self.since_sum + value
            return
        self.candidate, self.candidate_sum = self.candidate + 1, self.candidate_sum + value
        if self.since:
            gain = self.since_sum / self.since - value
            self.logs = tuple((np.array(self.logs) + np.log1p(_BETS * gain)).tolist())
            self.since, self.since_sum = 0, 0.0

    @property
    def e_value(self) -> float:
        """The evidence so far; stop the release at ``1 / alpha``."""
        return float(_mixture(np.array(self.logs), np.full(_BETS.size, 1 / _BETS.size)))


class Side(msgspec.Struct, kw_only=True):
    """What one release did; ``seconds`` is the time its model took, in all."""

    requests: int = 0
    errors: int = 0
    slow: int = 0
    seconds: float = 0.0


class Rows(msgspec.Struct, kw_only=True):
    """Rows that both releases answered: how many differ by more than is tolerated, and by how much the values do."""

    compared: int = 0
    different: int = 0
    values: int = 0
    difference: float = 0.0
    distance: float = 0.0
    largest: float = 0.0


class Tally(msgspec.Struct, kw_only=True):
    """What a candidate and the stable release beside it did in one step of a rollout.

    ``reasons`` counts the candidate's errors by kind. An error of the candidate is one that the caller did not see:
    the stable release answered in its place.
    """

    stable: Side = msgspec.field(default_factory=Side)
    candidate: Side = msgspec.field(default_factory=Side)
    errors: Events = msgspec.field(default_factory=Events)
    slow: Events = msgspec.field(default_factory=Events)
    rows: Rows = msgspec.field(default_factory=Rows)
    reasons: dict[str, int] = {}
    dropped: int = 0

    def add(self, other: "Tally") -> None:
        """Take in what another replica counted."""
        for mine, its in (
            (self.stable, other.stable),
            (self.candidate, other.candidate),
            (self.errors, other.errors),
            (self.slow, other.slow),
            (self.rows, other.rows),
        ):
            for name in its.__struct_fields__:
                joined = max if name == "largest" else operator.add
                setattr(mine, name, joined(getattr(mine, name), getattr(its, name)))
        for reason, count in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count
        self.dropped += other.dropped


def e_values(on_candidate: npt.ArrayLike, events: npt.ArrayLike, share: float) -> Array:
    """The e-process at running counts ``on_candidate`` of ``events``, vectorised over them.

    Raises:
        ValueError: a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"share {share} must lie between 0 and 1")
    k = np.asarray(on_candidate, dtype=np.float64)[..., None]
    n = np.asarray(events, dtype=np.float64)[..., None]
    alternative = share * _RATIOS / (1 - share + share * _RATIOS)
    return _mixture(k * np.log(alternative / share) + (n - k) * np.log((1 - alternative) / (1 - share)), _WEIGHTS)


def excess_e_value(events: int, n: int, allowed: float) -> float:
    """The evidence that more than ``allowed`` of all trials are events, after ``events`` of ``n`` so far.

    Raises:
        ValueError: ``allowed`` outside (0, 1).
    """
    if not 0 < allowed < 1:
        raise ValueError(f"allowed {allowed} must lie between 0 and 1")
    alternatives = allowed + (1 - allowed) * np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.95])
    logs = events * np.log(alternatives / allowed) + (n - events) * np.log((1 - alternatives) / (1 - allowed))
    return float(_mixture(logs, np.full(alternatives.size, 1 / alternatives.size)))


def _mixture(logs: Array, weights: Array) -> Array:
    """The weighted mean of likelihood ratios, given as logarithms along the last axis."""
    top = logs.max(axis=-1)
    mixed = top + np.log((np.exp(logs - top[..., None]) * weights).sum(axis=-1))
    return np.asarray(np.minimum(np.exp(np.minimum(mixed, 600)), LARGEST), dtype=np.float64)
