"""Scorings that go on by themselves: asked for, looked at, and cancelled over HTTP.

They belong to the owner's process. One that it did not live to end left no table; asked for again it is done, and what
was done is not done twice, as by command.
"""

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from bedplate import clock, ids
from bedplate.app import access, scoring
from bedplate.app.read_models import ScoreReport, Scoring, ScoringState
from bedplate.errors import BedplateError, DeniedError, NotFoundError, UnavailableError
from bedplate.identity import Principal
from bedplate.policy import values as policy

if TYPE_CHECKING:
    from bedplate.app.system import System

AT_ONCE, WAITING, KEPT = 2, 16, 1000
"""Scorings that are carried out together, that may wait for those, and whose end is remembered."""
_log = logging.getLogger(__name__)


class _CancelledError(Exception):
    """Somebody wants no more of it."""


class _Job:
    """One scoring and how far it is. Changed by its own thread, but for the wish to end it."""

    def __init__(self, scoring_id: str, by: Principal, endpoint: str, asked: scoring.Asked) -> None:
        self.id, self.by, self.endpoint, self.asked = scoring_id, by, endpoint, asked
        self.time = clock.timestamp()
        self.state: ScoringState = "waiting"
        self.done = 0
        self.report: ScoreReport | None = None
        self.error: dict[str, Any] | None = None
        self.unwanted = threading.Event()
        self.future: Future[None] | None = None

    def told(self, done: int) -> None:
        """So many rows are done."""
        self.done = done
        if self.unwanted.is_set():
            raise _CancelledError

    def now(self) -> Scoring:
        """As it is now."""
        asked = self.asked
        return Scoring(
            id=self.id, endpoint=self.endpoint, source=f"{asked.source.name}@{asked.source.version}",
            to=asked.fact.body["to"], purpose=asked.fact.body["purpose"], scoring=asked.fact.digest,
            state=self.state, by=self.by.name, asked=self.time, done=self.done, total=asked.source.rows,
            report=self.report, error=self.error,
        )  # fmt: skip


class Scorings:
    """Those of one owner; :meth:`close` cancels what goes on."""

    def __init__(self, system: "System") -> None:
        self._system = system
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="scoring")

    def start(self, principal: Principal, endpoint: str, asked: scoring.Asked) -> _Job:
        """Carry out what was let in.

        Raises:
            UnavailableError: too many wait already.
        """
        job = _Job(ids.new_id("score"), principal, endpoint, asked)
        with self._lock:
            if sum(other.state == "waiting" for other in self._jobs.values()) >= WAITING:
                raise UnavailableError(f"{WAITING} scorings wait already", fix="ask again when one of them has ended")
            ended = [other.id for other in self._jobs.values() if other.state not in ("waiting", "running")]
            for old in ended[: max(0, len(self._jobs) - KEPT + 1)]:
                del self._jobs[old]
            self._jobs[job.id] = job
            job.future = self._pool.submit(self._run, job)
        return job

    def find(self, endpoint: str, scoring_id: str) -> _Job:
        """The scoring of this id.

        Raises:
            NotFoundError: there is none, or its owner has ended.
        """
        with self._lock:
            job = self._jobs.get(scoring_id)
        if job is None or job.endpoint != endpoint:
            raise NotFoundError(f"there is no scoring {scoring_id[:100]!r}", fix="ask for it again: it is done once")
        return job

    def cancel(self, job: _Job) -> None:
        """Have it end within a batch of rows, without a table; one that has ended stays as it is."""
        job.unwanted.set()
        assert job.future is not None, "a job is submitted where it is made"
        if job.future.cancel():
            job.state = "cancelled"

    def close(self) -> None:
        """Cancel what goes on, and wait for it."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            self.cancel(job)
        self._pool.shutdown()

    def _run(self, job: _Job) -> None:
        job.state = "running"
        try:
            job.report = scoring.carry_out(self._system, job.by, job.asked, job.told)
        except Exception as error:  # noqa: BLE001  whatever it is, who asked is told, and the next one is carried out
            if job.unwanted.is_set():
                job.state = "cancelled"
                return
            if isinstance(error, BedplateError):
                job.error = error.to_dict()
            else:
                _log.exception("scoring %s", job.id)
                job.error = {"error": "internal", "message": f"something failed: {job.id}", "fix": "see the log"}
            job.state = "failed"
            return
        job.done, job.state = job.asked.source.rows, "finished"


def start(system: "System", principal: Principal, endpoint: str, **asked: Any) -> Scoring:
    """Ask for a scoring, under the policy of ``bedplate score``; returns before a row was read.

    Raises:
        DeniedError, InputError, NotFoundError: as :func:`bedplate.app.scoring.ask`.
        UnavailableError: too many wait already.
    """
    let_in = scoring.ask(system, principal, endpoint=endpoint, **asked)
    return system.scorings.start(principal, endpoint, let_in).now()


def show(system: "System", principal: Principal, endpoint: str, scoring_id: str) -> Scoring:
    """How far a scoring is, for who asked for it and for who operates the use case.

    Raises:
        NotFoundError: there is none, or not for this principal.
    """
    return _own(system, principal, endpoint, scoring_id).now()


def cancel(system: "System", principal: Principal, endpoint: str, scoring_id: str) -> Scoring:
    """End a scoring without a table, for who asked for it and for who operates the use case.

    Raises:
        NotFoundError: there is none, or not for this principal.
    """
    job = _own(system, principal, endpoint, scoring_id)
    with system.store.transaction() as tx:
        system.ledger.record(
            tx, actor=principal.id, action="table.score_cancel", resource=f"endpoint/{endpoint}",
            payload={"scoring": job.asked.fact.digest, "id": job.id}, auth=principal.auth,
        )  # fmt: skip
    system.scorings.cancel(job)
    return job.now()


def _own(system: "System", principal: Principal, endpoint: str, scoring_id: str) -> _Job:
    job = system.scorings.find(endpoint, scoring_id)
    if job.by.id != principal.id:
        try:
            access.demand(system, principal, "operate", policy.use_case(job.asked.row.use_case))
        except DeniedError:  # nobody else is told that it is there
            raise NotFoundError(f"there is no scoring {scoring_id!r}") from None
    return job
