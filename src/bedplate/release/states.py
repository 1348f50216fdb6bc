"""The life of a model version. What decides its state stands in this table alone, and the diagram is drawn from it.

A version never goes back: what was refused or retired stays in the record, and a better model is a new version. The one
exception is a retired version that is brought back because its successor failed.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

from bedplate.errors import ConflictError

S = TypeVar("S", bound=str)
E = TypeVar("E", bound=str)

State = Literal["candidate", "gated", "bundled", "waiting", "approved", "live", "retired", "refused"]
Event = Literal[
    "gates_passed",
    "gates_failed",
    "signed",
    "approval_asked",
    "policy_approved",
    "quorum_reached",
    "approval_refused",
    "served",
    "withdrawn",
    "superseded",
    "rolled_back",
    "restored",
]

FIRST: State = "candidate"
MEANING: dict[State, str] = {
    "candidate": "trained and evaluated",
    "gated": "every gate passed, or was waived by name",
    "bundled": "packaged, signed and verified",
    "waiting": "waits for the named approvers",
    "approved": "may be served in its environment",
    "live": "answers requests",
    "retired": "answered requests once; kept as evidence",
    "refused": "will not be served; kept as evidence",
}
TRANSITIONS: dict[tuple[State, Event], State] = {
    ("candidate", "gates_passed"): "gated",
    ("candidate", "gates_failed"): "refused",
    ("gated", "signed"): "bundled",
    ("bundled", "policy_approved"): "approved",
    ("bundled", "approval_asked"): "waiting",
    ("bundled", "approval_refused"): "refused",
    ("waiting", "quorum_reached"): "approved",
    ("waiting", "approval_refused"): "refused",
    ("approved", "served"): "live",
    ("approved", "withdrawn"): "refused",
    ("approved", "superseded"): "retired",
    ("live", "superseded"): "retired",
    ("live", "rolled_back"): "retired",
    ("live", "withdrawn"): "retired",
    ("retired", "restored"): "live",
}


def follow(state: State, event: Event) -> State:
    """The state after ``event``.

    Raises:
        ConflictError: ``event`` cannot happen in ``state``.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        possible = sorted(e for s, e in TRANSITIONS if s == state)
        raise ConflictError(
            f"a version that is {state} cannot be {event.replace('_', ' ')}",
            fix=f"what can happen now: {', '.join(possible) or 'nothing'}",
        ) from None


def replay(events: Iterable[Event]) -> State:
    """The state of a version that lived through ``events``.

    Raises:
        ConflictError: they cannot have happened in this order.
    """
    state = FIRST
    for event in events:
        state = follow(state, event)
    return state


def mermaid() -> str:
    """The table as a Mermaid state diagram; ``docs/explain/release.md`` holds it, and a test compares."""
    return diagram(FIRST, TRANSITIONS)


def diagram(first: S, transitions: Mapping[tuple[S, E], S]) -> str:
    """A table of transitions as a Mermaid state diagram; it ends where nothing leads on."""
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {before} --> {after}: {event.replace('_', ' ')}" for (before, event), after in transitions.items()]
    ends = sorted(set(transitions.values()) - {before for before, _ in transitions})
    return "\n".join([*lines, *(f"    {state} --> [*]" for state in ends)])
