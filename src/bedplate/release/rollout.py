"""The life of a rollout: what the file asks for, its states, and what leads from one to the next."""

from typing import Literal

import msgspec

from bedplate.errors import ConflictError
from bedplate.records import Guard
from bedplate.records import RolloutState as State
from bedplate.release.states import diagram
from bedplate.usecase.types import UseCase

Event = Literal["step_passed", "frozen_by", "resumed", "all_passed", "rolled_back"]

FIRST: State = "running"
MEANING: dict[State, str] = {
    "running": "takes its steps while the guards are quiet",
    "frozen": "keeps its share; guards still roll it back",
    "completed": "the candidate answers everything",
    "rolled_back": "the stable release answers everything",
}
TRANSITIONS: dict[tuple[State, Event], State] = {
    ("running", "step_passed"): "running",
    ("running", "frozen_by"): "frozen",
    ("running", "all_passed"): "completed",
    ("running", "rolled_back"): "rolled_back",
    ("frozen", "resumed"): "running",
    ("frozen", "rolled_back"): "rolled_back",
    ("completed", "rolled_back"): "rolled_back",
}
"""What can happen when; the diagram in ``docs/explain/rollout.md`` is drawn from it."""

ALPHA = 0.05
"""The chance that a release as good as the stable one is rolled back, over all guards and steps of a rollout."""
_PATIENCE, _SHORTEST, _SLACK = 4.0, 0.1, 0.1
"""A candidate's time to answer, in limits of p99 and at least in seconds; what is not called slow, in limits."""


class Step(msgspec.Struct, frozen=True):
    """One step: a share of the requests, for the candidate to answer or only to be compared on."""

    mode: Literal["shadow", "split"]
    share: float
    hold: float


class Objectives(msgspec.Struct, frozen=True, kw_only=True):
    """What must be kept, or the release is rolled back: shares of requests that are answered, and answered in time."""

    answered: float
    in_time: float = 0.99


class RolloutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as the file wants it. After its last step the candidate becomes the stable release."""

    steps: tuple[Step, ...]
    guards: tuple[Guard, ...]
    least: int
    patience: float
    slack: float
    key: str = ""
    differ: float | None = None
    between: tuple[float, float] = (0.0, 1.0)
    up: bool = True
    objectives: Objectives | None = None

    @property
    def limit(self) -> float:
        """The e-value at which one guard in one step rolls back."""
        return len(self.guards) * len(self.steps) / ALPHA


def follow(state: State, event: Event) -> State:
    """The state after ``event``.

    Raises:
        ConflictError: ``event`` cannot happen in ``state``.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ConflictError(f"the rollout is {state.replace('_', ' ')}: {MEANING[state]}") from None


def mermaid() -> str:
    """The table as a Mermaid state diagram; ``docs/explain/rollout.md`` holds it, and a test compares."""
    return diagram(FIRST, TRANSITIONS)


def plan_of(use_case: UseCase) -> RolloutPlan:
    """The rollout that a file asks for; without steps, the candidate becomes the stable release at once."""
    wanted, limit = use_case.serve.rollout, use_case.requirements.p99
    shares = [share for share in wanted.steps if share < 1]
    steps = [Step("split", share, wanted.hold) for share in shares]
    if wanted.shadow is not None:
        steps.insert(0, Step("shadow", 1.0, wanted.shadow))
    guards: list[Guard] = list(wanted.guard)
    if wanted.shadow is not None and wanted.differ is not None:
        guards.append("rows")
    return RolloutPlan(
        steps=tuple(steps),
        guards=tuple(guards),
        least=wanted.least,
        patience=max(_SHORTEST, _PATIENCE * limit),
        slack=_SLACK * limit,
        key=wanted.key or "",
        differ=wanted.differ,
        between=wanted.between,
        up=use_case.objective.kpi.direction == "up",
        objectives=_objectives(use_case),
    )


def _objectives(use_case: UseCase) -> Objectives | None:
    """Those whose burn rolls back, if the file says that it does; of answers in time, its p99 says how many."""
    if not any(alert.when == "slo_burn" and alert.then == "roll_back" for alert in use_case.alerts):
        return None
    return Objectives(answered=use_case.requirements.availability)


def scaled(plan: RolloutPlan, value: float) -> float:
    """A reported value as ``stats.canary.Values`` wants it: in [0, 1], more is better; what lies beyond is cut."""
    low, high = plan.between
    part = min(1.0, max(0.0, (value - low) / (high - low)))
    return part if plan.up else 1 - part
