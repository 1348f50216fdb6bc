"""Whether a release burns the error budget of its endpoint, counted from what replicas tell.

Two budgets, those of the file: of requests that get an answer, and of answers that come in time. The rules are those of
:mod:`bedplate.observe.health` that page. A release is at fault only if the budget did not burn so before it came, and
only for a day: what breaks after weeks is not broken by what was released then.
"""

from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from bedplate import clock
from bedplate.release.rollout import Objectives
from bedplate.serve.fleet import Took
from bedplate.store.rollouts import RolloutRow

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.observe.health import Rule

Objective = Literal["answered", "in_time"]

FOR = 86_400.0
"""Seconds after its end in which a rollout is undone by an alert."""
STRETCH = 5.0
"""Seconds that are counted together."""
_KEPT = 1000
"""Stretches that are kept: what the longest rule that pages looks back on, and as much before a release."""


class Burning(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that fired, and what it was measured from: the body of the fact ``alert``.

    Rates are multiples of the rate that uses the budget up over its period; ``before`` is that of the long window until
    the release came. ``seconds`` are those of the rule's long and short window.
    """

    rollout: str
    endpoint: str
    bundle: str
    objective: Objective
    target: float
    limit: float
    seconds: tuple[float, float]
    long: float
    short: float
    before: float
    requests: int
    bad: int

    @property
    def reason(self) -> str:
        """In words."""
        what = "got no answer" if self.objective == "answered" else "were answered too late"
        return (
            f"alert slo_burn: {self.bad:,} of {self.requests:,} requests of {self.seconds[0]:g} s {what}, "
            f"{self.long:.1f} times what {self.target:.4g} allows"
        )


class Burns:
    """What every endpoint did lately. To be used from one thread; ``rules`` and ``stretch`` are for tests."""

    def __init__(self, rules: "tuple[Rule, ...] | None" = None, stretch: float = STRETCH) -> None:
        self._rules, self._stretch = rules, stretch
        self._last: dict[str, Took] = {}
        self._due = 0.0
        self._counts: dict[str, deque[tuple[float, int, int, int]]] = {}

    def due(self, now: float) -> bool:
        """Whether a stretch is over at ``now``, in seconds since the epoch."""
        return now >= self._due

    def take(self, now: float, took: dict[str, Took]) -> None:
        """Count what was done since the last time, by endpoint."""
        self._due = now + self._stretch
        for name, now_took in took.items():
            before = self._last.get(name)
            if before is None or before.predictions > now_took.predictions:
                continue
            self._counts.setdefault(name, deque(maxlen=_KEPT)).append(
                (
                    now,
                    now_took.predictions - before.predictions,
                    now_took.faults - before.faults,
                    now_took.late - before.late,
                )
            )
        self._last = dict(took)
        self._counts = {name: counts for name, counts in self._counts.items() if name in took}

    def of(self, row: RolloutRow, objectives: Objectives, came: float) -> Burning | None:
        """The alert that fires at the endpoint of a rollout, if one does by the fault of what ``came`` then."""
        from bedplate.observe import health  # SciPy: not for a home where no budget is kept

        counts = list(self._counts.get(row.endpoint, ()))
        if not counts:
            return None
        now = counts[-1][0]
        tables: dict[Objective, tuple[float, list[tuple[float, int, int]]]] = {
            "answered": (objectives.answered, [(at, good, faults) for at, good, faults, _ in counts]),
            "in_time": (objectives.in_time, [(at, good - late, late) for at, good, _, late in counts]),
        }
        for objective, (target, table) in tables.items():
            for alert in health.alerts(table, target, now, self._rules or health.RULES):
                rule = alert.rule
                before = health.burn(table, target, came - rule.long, came)
                if rule.severity != "page" or before.rate >= rule.burn:
                    continue
                return Burning(
                    rollout=row.id, endpoint=row.endpoint, bundle=row.bundle, objective=objective, target=target,
                    limit=rule.burn, seconds=(rule.long, rule.short), long=alert.long.rate, short=alert.short.rate,
                    before=before.rate, requests=alert.long.requests, bad=alert.long.bad,
                )  # fmt: skip
        return None


def look(system: "System", burns: Burns, row: RolloutRow, objectives: Objectives) -> Burning | None:
    """The alert that a release is to be undone for now, if there is one."""
    # It answers everything from when its last step was passed; that it is completed is written down a while later.
    came = clock.parse(row.created if row.state in ("running", "frozen") else row.stepped).timestamp()
    if row.state == "rolled_back" or (row.state == "completed" and clock.now().timestamp() - came > FOR):
        return None
    return burns.of(row, objectives, came)


def refusal(rows: list[RolloutRow], row: RolloutRow) -> str:
    """Why the release from before a rollout must not come back by itself; empty if it may.

    ``rows`` are the rollouts of the endpoint, newest first.
    """
    before: Any = row.before["digest"]
    last = next((other for other in rows if other.bundle == before and other.id != row.id), None)
    if last is None or last.state not in ("rolled_back", "frozen"):
        return ""
    return f"the release from before is {last.state.replace('_', ' ')} itself, by rollout {last.id}"
