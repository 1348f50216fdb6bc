"""What a stage of the flow is: a name, what it depends on, and the work. A plan is a tuple of these."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from bedplate.identity import Principal
from bedplate.ids import Digest
from bedplate.records import Event, Fact
from bedplate.usecase import Loaded
from bedplate.usecase.types import UseCase

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.store import Transaction

T = TypeVar("T")
Emit = Callable[[Event], None]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One fact that a stage made. ``parents`` are facts of earlier stages; ``rests_on`` names kinds made beside it."""

    kind: str
    body: Any
    parents: tuple[Digest, ...] = ()
    rests_on: tuple[int, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage ends in. The last piece of evidence is the stage's output.

    ``apply`` writes state rows that must appear together with the evidence, or not at all.
    """

    evidence: tuple[Evidence, ...]
    summary: str
    apply: "Callable[[Transaction, tuple[Fact, ...]], None] | None" = None


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """Why the flow goes no further for now."""

    state: Literal["refused", "waiting"]
    reason: str


class Context:
    """What a stage works with: the system, the file, the evidence so far, and a way to tell how far it is."""

    def __init__(self, system: "System", loaded: Loaded, principal: Principal | None, emit: Emit) -> None:
        self.system = system
        self.loaded = loaded
        self.principal = principal
        """Who runs it; nobody where a run is only explained."""
        self.actor = principal.name if principal is not None else ""
        self.outputs: dict[str, Fact] = {}
        self.stage = ""
        self._emit = emit

    @property
    def use_case(self) -> UseCase:
        """The checked file."""
        return self.loaded.use_case

    def output(self, stage: str) -> Fact:
        """The fact that an earlier stage ended in."""
        return self.outputs[stage]

    def body(self, stage: str, kind: type[T]) -> T:
        """The typed body of what an earlier stage ended in."""
        return msgspec.convert(self.outputs[stage].body, kind)

    def progress(self, message: str, done: float | None = None, total: float | None = None) -> None:
        """Tell how far the stage is.

        Raises:
            FencedError: another owner has taken over meanwhile, so it need not go on.
        """
        self.system.check_owner()
        self._emit(Event(stage=self.stage, state="progress", message=message, done=done, total=total))


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One durable stage.

    ``inputs`` names everything its result depends on, each with a digest or short text; two equal sets of inputs mean
    the stage need not run again. ``needs`` are the stages that must have ended first. ``halts`` looks at the recorded
    output, on every run, and says whether the flow may go on. One that ``holds`` rows, or what is made of them, is
    held to the residency of the use case, on every run too.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    inputs: Callable[[Context], Mapping[str, str]]
    run: Callable[[Context], Outcome]
    summarise: Callable[[Context], str]
    holds: bool = True
    halts: Callable[[Context], Halt | None] = lambda context: None
    resume: Callable[[Context], None] = lambda context: None
    """Put right what a finished stage keeps running outside the store, for example its endpoint."""
