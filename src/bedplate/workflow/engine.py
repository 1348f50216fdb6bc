"""Durable steps: DBOS drives them, under rules that close what was found open (design: one owner, fixed executor and
version, JSON, write-ahead log).

DBOS runs a workflow in a thread of its own and records each step's result. The steps themselves run in the thread that
called :meth:`Engine.execute`, whether the workflow is new or taken up after a crash: so an interrupt reaches them, and
nothing runs that nobody asked for. Whether a *stage* is done is not DBOS's to say: the step commits that to the store,
and is idempotent.
"""

import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from bedplate import clock
from bedplate.errors import BedplateError, ConflictError, FencedError, HomeError, StorageError, UnavailableError
from bedplate.records import Event
from bedplate.settings import FORMAT
from bedplate.workflow.serializer import JsonSerializer

if TYPE_CHECKING:
    from dbos import DBOS, WorkflowHandle

Result = dict[str, Any]
OnEvent = Callable[[Event], None]

EXECUTOR = "owner"
"""The one executor id: after a crash DBOS takes up only what ran under the id it is started with."""
_POLL_SECONDS = 0.1


class Step(msgspec.Struct, frozen=True):
    """One durable step. ``run`` returns JSON data, which is kept; it may run again if a crash came before it was."""

    name: str
    run: Callable[[], Result]


class _NobodyAskedError(BaseException):
    """Leaves a workflow pending: DBOS records what derives from Exception, and this is no outcome."""


class _Call(msgspec.Struct):
    """One step on its way from the workflow's thread to the caller's and back."""

    index: int
    result: Result | None = None
    error: BaseException | None = None
    done: threading.Event = msgspec.field(default_factory=threading.Event)


class _Offer:
    """What :meth:`Engine.execute` brings: the steps, and a thread to run them in."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self.results: list[Result] | None = None
        self.failure: BaseException | None = None

    def call(self, index: int) -> Result:
        """In the workflow's thread: have the caller run a step."""
        call = _Call(index)
        self.calls.put(call)
        call.done.wait()
        if call.error is not None:
            raise call.error
        assert call.result is not None
        return call.result


class Engine:
    """Runs workflows of durable steps. One per process and location at a time; the home's owner opens it."""

    _open: "Engine | None" = None
    _workflow: Callable[[str], list[Result]] | None = None

    def __init__(self, location: Path | str) -> None:
        """``location`` is the path of a SQLite file, or a ``postgresql://`` address."""
        self._location = location
        self._lock = threading.Lock()
        self._launching = threading.Lock()
        self._busy: set[str] = set()
        self._offers: dict[str, _Offer] = {}
        self._turned_away: set[str] = set()
        self._dbos: DBOS | None = None

    def open(self) -> Self:
        """Make ready; DBOS itself is started by the first :meth:`execute`, when there is something to take up.

        Raises:
            HomeError: an engine is open in this process already.
        """
        if Engine._open is not None:
            raise HomeError("an engine is open in this process", where=str(self._location), fix="close it first")
        Engine._open = self
        return self

    def __enter__(self) -> Self:
        """Open, for the length of a block."""
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Stop DBOS and its threads. What is unfinished stays so, and is taken up by the next :meth:`execute`."""
        if Engine._open is not self:
            return
        Engine._open = None
        if self._dbos is not None:
            self._dbos.destroy()
            self._dbos = None

    def execute(self, workflow_id: str, steps: Sequence[Step], on_event: OnEvent | None = None) -> list[Result]:
        """Run the steps in order and return what each returned.

        A step whose result was recorded under this id, in this process or one that was killed, is not run again: its
        recorded result is returned. After a step raised, executing the id again begins with that step.

        Raises:
            ConflictError: the id was begun with other steps, or is executing now.
            StorageError: the record cannot be written.
            UnavailableError: the database that it is in does not answer.
            Exception: whatever a step raised, as it was raised.
        """
        if Engine._open is not self:
            raise HomeError("the engine is not open", where=str(self._location), fix="open it first")
        with self._lock:
            if workflow_id in self._busy:
                raise ConflictError(f"workflow {workflow_id} is executing already", where=workflow_id)
            self._busy.add(workflow_id)
        offer = _Offer(steps)
        try:
            with self._launching:
                self._launch()
            wait = self._begun(workflow_id, offer)
            results = self._serve(workflow_id, offer, on_event or _ignore)
            wait()
        finally:
            with self._lock:
                self._busy.discard(workflow_id)
                self._offers.pop(workflow_id, None)
        if offer.failure is not None:
            # If not even that could be recorded it is still pending, and nobody drives it.
            with self._lock:
                self._turned_away.add(workflow_id)
            raise _translate(offer.failure, workflow_id)
        return results

    # ---------------------------------------------------------------------------------------- in the caller's thread

    def _begun(self, workflow_id: str, offer: _Offer) -> Callable[[], None]:
        """:meth:`_begin`, with errors that a user can act on."""
        try:
            return self._begin(workflow_id, offer)
        except BedplateError:
            raise
        except Exception as error:
            raise _translate(error, str(self._location)) from error

    def _begin(self, workflow_id: str, offer: _Offer) -> Callable[[], None]:
        """Get DBOS to run the workflow: start it, resume it, or take it from where it failed.

        Returns what waits until DBOS has recorded the end.
        """
        from dbos import DBOS, SetWorkflowID

        status = DBOS.get_workflow_status(workflow_id)
        if status is None:
            self._offer(workflow_id, offer)
            assert Engine._workflow is not None
            with SetWorkflowID(workflow_id):
                started = DBOS.start_workflow(Engine._workflow, workflow_id)
            return lambda: _settle(started.get_result)
        recorded = DBOS.list_workflow_steps(workflow_id)
        names = [step["function_name"] for step in recorded]
        if names != [step.name for step in offer.steps][: len(names)]:
            raise _other_steps(workflow_id)
        if status.status == "SUCCESS":
            if len(names) != len(offer.steps):
                raise _other_steps(workflow_id)
            offer.results = DBOS.retrieve_workflow(workflow_id).get_result()
            offer.calls.put(None)
            return lambda: None
        turned_away = self._offer(workflow_id, offer)
        if status.status == "ERROR":
            failed = [step["function_id"] for step in recorded if step["error"] is not None]
            DBOS.rewind_workflow(workflow_id, start_step=failed[0] if failed else len(recorded) + 1)
        elif turned_away:
            DBOS.resume_workflow(workflow_id)
        elif status.executor_id != EXECUTOR or status.app_version != str(FORMAT):
            # Starting DBOS takes up only what is its own; the rest would stay pending in silence.
            raise HomeError(
                f"workflow {workflow_id} was begun by another format of Bedplate", where=str(self._location)
            )
        handle: WorkflowHandle[list[Result]] = DBOS.retrieve_workflow(workflow_id)
        return lambda: _settle(lambda: handle.get_result(polling_interval_sec=0.02))

    def _offer(self, workflow_id: str, offer: _Offer) -> bool:
        """Offer the steps, and say whether the workflow came by before somebody did (else it is on its way)."""
        with self._lock:
            self._offers[workflow_id] = offer
            turned_away = workflow_id in self._turned_away
            self._turned_away.discard(workflow_id)
            return turned_away

    def _serve(self, workflow_id: str, offer: _Offer, on_event: OnEvent) -> list[Result]:
        """Run the steps that the workflow asks for, until it ends."""
        asked: set[int] = set()
        while (call := offer.calls.get()) is not None:
            for index in range(call.index):
                if index not in asked:
                    self._skipped(offer.steps[index], on_event)
                    asked.add(index)
            asked.add(call.index)
            step, begun = offer.steps[call.index], clock.monotonic()
            try:
                on_event(Event(stage=step.name, state="started", message=""))
                call.result = step.run()
                seconds = clock.monotonic() - begun
                on_event(Event(stage=step.name, state="finished", message="", seconds=seconds))
            except BaseException as error:
                call.error = offer.failure = error
                if not isinstance(error, Exception) or isinstance(error, FencedError):
                    # An interrupt is no outcome of the step, nor is that another owner has taken over and may be
                    # running it: the workflow stays pending and can be taken up.
                    with self._lock:
                        self._turned_away.add(workflow_id)
                    call.error = _NobodyAskedError(workflow_id)
                    call.done.set()
                    raise
                on_event(Event(stage=step.name, state="failed", message=str(error)))
            call.done.set()
        if offer.failure is not None:
            return []
        assert offer.results is not None
        for index, step in enumerate(offer.steps):
            if index not in asked:
                self._skipped(step, on_event)
        return offer.results

    @staticmethod
    def _skipped(step: Step, on_event: OnEvent) -> None:
        on_event(Event(stage=step.name, state="skipped", message="finished before"))

    # -------------------------------------------------------------------------------------- in the workflow's thread

    def _drive(self, workflow_id: str) -> list[Result]:
        with self._lock:
            offer = self._offers.get(workflow_id)
            if offer is None:
                self._turned_away.add(workflow_id)
        if offer is None:
            raise _NobodyAskedError(workflow_id)
        try:
            offer.results = _run_steps(offer)
        except BaseException as error:
            offer.failure = offer.failure or error
            raise
        finally:
            offer.calls.put(None)
        return offer.results

    # ------------------------------------------------------------------------------------------------ starting DBOS

    def _launch(self) -> None:
        if self._dbos is not None:
            return
        logger = logging.getLogger("dbos")
        if not logger.handlers:
            # A handler that is there already keeps DBOS from adding one that writes to the console.
            logger.addHandler(logging.NullHandler())
            logger.propagate = False
        from dbos import DBOS, DBOSConfig

        postgresql = str(self._location).startswith("postgresql")
        config = DBOSConfig(
            name="bedplate",
            system_database_url=_url(self._location),
            serializer=JsonSerializer(),  # type: ignore[typeddict-item]
            executor_id=EXECUTOR,
            application_version=str(FORMAT),
            enable_otlp=False,
            log_level="CRITICAL",
            use_listen_notify=False,
            notification_listener_polling_interval_sec=_POLL_SECONDS,
            # A connection is asked whether it lives before each use; one to a file always does.
            db_engine_kwargs={"pool_size": 5, "pool_pre_ping": postgresql},
        )
        if Engine._workflow is None:
            Engine._workflow = DBOS.workflow(name="bedplate.flow", max_recovery_attempts=None)(_flow)
        try:
            self._dbos = DBOS(config=config)
            # Internal to DBOS, and tested: its own queue, by which a recovered workflow starts, is polled each second.
            self._dbos._registry.get_internal_queue()._polling_interval_sec = _POLL_SECONDS
            DBOS.launch()
            # Likewise: a database that is gone is an error of who asked, not something to wait for without a word.
            self._dbos._sys_db._retry_connection_errors = False
        except Exception as error:
            DBOS.destroy()
            self._dbos = None
            raise _translate(error, str(self._location)) from error


def _flow(workflow_id: str) -> list[Result]:
    """The one workflow that is registered with DBOS; what it does is what somebody offers for its id."""
    engine = Engine._open
    if engine is None:
        raise _NobodyAskedError(workflow_id)
    return engine._drive(workflow_id)


def _run_steps(offer: _Offer) -> list[Result]:
    from dbos import DBOS

    results: list[Result] = []
    for index, step in enumerate(offer.steps):
        results.append(DBOS.run_step({"name": step.name}, offer.call, index))
    return results


def _url(location: Path | str) -> str:
    text = str(location)
    if text.startswith(("postgresql://", "postgresql+psycopg://")):
        return text
    path = Path(location).absolute()
    try:
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        # The mode is kept in the file: a write costs one sync instead of two.
        connection = sqlite3.connect(path)
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        raise _unusable(error, text) from error
    return f"sqlite:///{path}"


def _settle(wait: Callable[[], object]) -> None:
    """Wait for the recorded end; what it was has been told by the steps already."""
    try:
        wait()
    except Exception:  # noqa: BLE001 - the workflow's own failure, raised by execute as the step raised it
        return


def _translate(error: BaseException, where: str) -> BaseException:
    if not type(error).__module__.startswith(("dbos", "sqlalchemy", "sqlite3", "psycopg")):
        return error
    return _unusable(error, where)


def _unusable(error: BaseException, where: str) -> BedplateError:
    original = getattr(error, "orig", None) or error
    line = (str(original).strip().splitlines() or [type(original).__name__])[0]
    if isinstance(original, sqlite3.Error | OSError):
        return StorageError(f"the record of steps cannot be kept: {line}", where=where, fix="check the disk, try again")
    return UnavailableError(f"the record of steps cannot be reached: {line}", where=where, fix="check the database")


def _other_steps(workflow_id: str) -> ConflictError:
    return ConflictError(
        "this workflow was begun with other steps", where=workflow_id, fix="use a new id for another list of steps"
    )


def _ignore(_event: Event) -> None:
    return None
