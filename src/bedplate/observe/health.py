"""Alerts on how fast the error budget of a service objective burns, instead of thresholds on means.

With an objective of 99.9 % good requests, 0.1 % may be bad: burning at 1x uses that budget up exactly over its period,
at 14.4x it uses in an hour what is meant for 14.4 hours. A rule looks at two windows at once: the long one says that
it matters, the short one that it still goes on, which resets the alert soon after the end. Source of the method: *The
Site Reliability Workbook* (2018), chapter 5. Two things are added. What pages must also have burnt at the beginning
of the long window, so that a spike shorter than the time between both ends wakes nobody, however high. And a burn must
be shown by enough requests: one error of twenty is no outage.

Pure functions of counts: an array of shape (n, 3), sorted by time, of the end of a stretch of time in seconds, its
good and its bad requests.
"""

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import special

Array = npt.NDArray[np.float64]
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
EVIDENCE = 0.99
"""Confidence (one-sided, Clopper & Pearson) with which at least half of a rule's burn must be shown."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Alert when the budget burns at ``burn`` times its rate over both windows (seconds), and, if ``sustained``,
    did so at the beginning of the long one."""

    severity: Literal["page", "ticket"]
    burn: float
    long: float
    short: float
    sustained: bool


RULES = (
    Rule(severity="page", burn=14.4, long=5 * MINUTE, short=MINUTE, sustained=True),
    Rule(severity="page", burn=6.0, long=30 * MINUTE, short=5 * MINUTE, sustained=True),
    Rule(severity="ticket", burn=1.0, long=3 * DAY, short=6 * HOUR, sustained=False),
)


class Burn(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the budget burnt in a window: ``rate`` and the lower bound ``shown`` in multiples of the objective's."""

    rate: float
    shown: float
    requests: int
    bad: int


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that fires, with what was measured in its windows."""

    rule: Rule
    long: Burn
    short: Burn


def burn(counts: npt.ArrayLike, objective: float, start: float, end: float) -> Burn:
    """How fast the error budget burnt in (start, end]; without requests nothing burns.

    Raises:
        ValueError: an objective outside (0, 1), or counts that are no sorted (n, 3) array of numbers >= 0.
    """
    return _burn(_checked(counts, objective), objective, start, end)


def alerts(counts: npt.ArrayLike, objective: float, now: float, rules: tuple[Rule, ...] = RULES) -> tuple[Alert, ...]:
    """The rules that fire at ``now``, given ``objective``, the share of requests that must be good.

    A stretch that began before the counts did is taken as free of requests.

    Raises:
        ValueError: as :func:`burn`.
    """
    table = _checked(counts, objective)
    found = []
    for rule in rules:
        windows = [(now - rule.long, now), (now - rule.short, now)]
        if rule.sustained:
            windows.append((now - rule.long, now - rule.long + rule.short))
        seen = [_burn(table, objective, start, end) for start, end in windows]
        enough = rule.burn * (1 - 1e-9)  # a burn of exactly the limit counts, whatever division made of it
        if all(item.rate >= enough for item in seen) and seen[0].shown >= rule.burn / 2:
            found.append(Alert(rule=rule, long=seen[0], short=seen[1]))
    return tuple(found)


def budget_left(counts: npt.ArrayLike, objective: float, now: float, period: float = 30 * DAY) -> float:
    """Share of the error budget of the ``period`` (seconds) before ``now`` that is left; below 0 it is overspent.

    Raises:
        ValueError: as :func:`burn`.
    """
    return 1 - burn(counts, objective, now - period, now).rate


def _checked(counts: npt.ArrayLike, objective: float) -> Array:
    table = np.asarray(counts, dtype=np.float64)
    if table.size == 0:
        table = np.zeros((0, 3))
    if not 0 < objective < 1:
        raise ValueError(f"objective {objective} must lie between 0 and 1")
    if table.ndim != 2 or table.shape[1] != 3 or not np.isfinite(table).all() or (table[:, 1:] < 0).any():
        raise ValueError("counts must be rows of time, good and bad, finite and not negative")
    if (np.diff(table[:, 0]) < 0).any():
        raise ValueError("counts must be sorted by time")
    return table


def _burn(table: Array, objective: float, start: float, end: float) -> Burn:
    first, last = np.searchsorted(table[:, 0], [start, end], side="right")
    good, bad = table[first:last, 1:].sum(axis=0)
    if good + bad == 0:
        return Burn(rate=0.0, shown=0.0, requests=0, bad=0)
    lower = float(special.betaincinv(bad, good + 1, 1 - EVIDENCE)) if bad else 0.0
    return Burn(
        rate=float(bad / (good + bad) / (1 - objective)),
        shown=lower / (1 - objective),
        requests=int(good + bad),
        bad=int(bad),
    )
