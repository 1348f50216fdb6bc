"""How a rollout is carried out: start the candidate, look, step, promote, and undo.

What is wanted stands in the store, each change in one transaction with its ledger entry; what runs follows from it. A
killed owner therefore loses nothing: the next one finds the rollout, starts its candidate again and looks on, with the
counts that replicas left beside it.
"""

import contextlib
import shutil
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate import clock
from bedplate.app import burning, endpoints, rollout_views
from bedplate.app.burning import Burning, Burns
from bedplate.errors import BedplateError, NotFoundError
from bedplate.identity import Principal
from bedplate.ids import Digest
from bedplate.release import line, rollout
from bedplate.serve.scaling import Scale
from bedplate.serve.spec import ReplicaSpec
from bedplate.store import Transaction
from bedplate.store.rollouts import RolloutRow

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.release.guards import Verdict

READY_WITHIN = 20.0
"""Seconds in which a candidate must be ready; one that is not is rolled back."""
TICK = 0.5
WATCHER = "rollout"
"""The actor of what a rollout does by itself."""


class Watcher:
    """Looks at every rollout of a home twice a second and does what follows; each in its own time.

    Starting and draining take seconds: another endpoint's guards must not wait for them. What burns the budget of an
    endpoint whose file says so is undone, also after its rollout was completed.
    """

    def __init__(self, system: "System", burns: Burns | None = None) -> None:
        self._system = system
        self._burns = burns or Burns()
        self._refused: set[str] = set()
        self._stopping = threading.Event()
        self._looking: dict[str, threading.Thread] = {}
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more, once what is under way has ended."""
        self._stopping.set()
        self._thread.join()
        for looking in self._looking.values():
            looking.join()

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        with self._telling():
            _sweep(self._system)
        while not self._stopping.wait(TICK):
            with self._telling():
                alerts = self._alerts()
                with self._system.store.read() as tx:
                    names = {*alerts, *(row.endpoint for row in tx.rollouts.active())}
                self._looking = {name: thread for name, thread in self._looking.items() if thread.is_alive()}
                for name in names:
                    if name not in self._looking:
                        self._looking[name] = threading.Thread(
                            target=self._look, args=(name, alerts.get(name)), name=f"rollout {name}"
                        )
                        self._looking[name].start()

    def _look(self, endpoint: str, alert: Burning | None) -> None:
        with self._telling():
            if alert is None:
                look(self._system, endpoint)
            elif not heed(self._system, alert):
                self._refused.add(alert.rollout)

    def _alerts(self) -> dict[str, Burning]:
        """The alerts that a release is to be undone for, by endpoint; one that cannot be is told of once."""
        now = clock.now().timestamp()
        if not self._burns.due(now):
            return {}
        self._burns.take(now, {status.name: status.took for status in self._system.supervisor.status()})
        found = {}
        with self._system.store.read() as tx:
            newest = {row.name: tx.rollouts.latest(row.name) for row in tx.endpoints.list()}
        for name, row in newest.items():
            objectives = rollout_views.plan_of(row).objectives if row is not None else None
            if row is None or objectives is None or row.id in self._refused:
                continue
            alert = burning.look(self._system, self._burns, row, objectives)
            if alert is not None:
                found[name] = alert
        return found

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Say once what went wrong, and go on: one look that fails must not be the last, or nobody would roll back."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever it is
            text = str(error) if isinstance(error, BedplateError) else f"{type(error).__name__}: {error}"
            if text != self._told:
                sys.stderr.write(f"rollouts: {text}\n")
            self._told = text


def _sweep(system: "System") -> None:
    """Remove what a killed owner left of rollouts that have ended."""
    with system.store.read() as tx:
        active = {row.id for row in tx.rollouts.active()}
    for folder in (system.home.run / "rollouts").glob("roll_*"):
        if folder.name not in active:
            shutil.rmtree(folder, ignore_errors=True)
    for socket in system.home.run.glob("roll_*.sock"):
        if socket.stem not in active:
            socket.unlink(missing_ok=True)


def look(system: "System", endpoint: str) -> None:
    """Look at the rollout of an endpoint once, and do what follows."""
    with changing(system, endpoint):
        row = latest(system, endpoint)
        if row.state in ("running", "frozen"):
            _look(system, row)


def _look(system: "System", row: RolloutRow) -> None:
    if row.id not in system.rolling:
        row = run(system, row)  # this owner has taken over
        if row.state == "rolled_back":
            return
    verdict = rollout_views.judge(system, row)
    if verdict is None and row.state == "running":
        _promote(system, row)
    elif verdict is None:
        return
    elif verdict.action == "roll_back":
        undo(system, row, None, verdict.reason, verdict)
    elif verdict.action == "pass" and row.state == "running":
        _step(system, row, verdict)


def heed(system: "System", alert: Burning) -> bool:
    """Roll back what an alert fired for, and keep the alert as a fact; whether that may be.

    It may not where the release from before was rolled back itself.
    """
    with changing(system, alert.endpoint):
        row = latest(system, alert.endpoint)
        if row.id != alert.rollout or row.state == "rolled_back":
            return True
        with system.store.transaction() as tx:
            fact = tx.facts.put("alert", row.use_case, alert)
            refused = burning.refusal(tx.rollouts.list(row.endpoint, 1000), row)
            if refused:
                record(system, tx, row, "alert", None, {"alert": fact.digest, "reason": alert.reason, "kept": refused})
        if not refused:
            undo(system, row, None, alert.reason, None, alert=fact.digest)
        return not refused


def run(system: "System", row: RolloutRow) -> RolloutRow:
    """Have the candidate of a rollout up, and its present step in force."""
    endpoints.tallies_of(system, row).mkdir(mode=0o700, parents=True, exist_ok=True)
    if row.step >= len(rollout_views.plan_of(row).steps):
        return row
    try:
        spec = msgspec.structs.replace(
            endpoints.here(system, endpoints.spec_from(row.spec)),
            name=_candidate(row),
            port=0,
            scale=Scale(),
            drain=0.5,  # it has no caller of its own to wait for
            socket=system.home.run / f"{row.id}.sock",
        )
        system.supervisor.start(spec, READY_WITHIN)
    except BedplateError as error:
        return undo(system, row, None, f"the candidate is not ready: {error.message}", None)
    system.rolling.add(row.id)
    endpoints.publish_access(system)
    return row


def _step(system: "System", row: RolloutRow, verdict: "Verdict") -> None:
    """The present step passed: the next one, or the end."""
    plan = rollout_views.plan_of(row)
    rollout.follow(row.state, "step_passed")
    seen = [*row.evidence, rollout_views.seen(system, row, verdict)]
    with system.store.transaction() as tx:
        moved = tx.rollouts.change(row, step=row.step + 1, stepped=clock.timestamp(), evidence=seen, outcomes={})
        share = plan.steps[moved.step].share if moved.step < len(plan.steps) else 1.0
        record(system, tx, row, "step", None, {"share": share, "evidence": seen[-1]})
    if moved.step < len(plan.steps):
        endpoints.publish_access(system)
    else:
        _promote(system, moved)


def _promote(system: "System", row: RolloutRow) -> None:
    """Every step passed: the candidate becomes what the endpoint's own replica runs."""
    spec = endpoints.spec_from(row.spec)
    try:
        endpoints.start(system, spec)
    except BedplateError as error:
        undo(system, row, None, f"the candidate did not start as the stable release: {error.message}", None)
        return
    state = rollout.follow("running", "all_passed")
    reason = row.evidence[-1]["reason"] if row.evidence else "no steps were asked for"
    with system.store.transaction() as tx:
        _serve(system, tx, row, spec, None)
        done = tx.rollouts.change(row, state=state, reason=reason)
        record(system, tx, done, "complete", None, {"reason": reason, "steps": row.evidence})
    _end(system, done)


def undo(
    system: "System",
    row: RolloutRow,
    by: Principal | None,
    reason: str,
    verdict: "Verdict | None",
    *,
    alert: Digest | None = None,
) -> RolloutRow:
    """The release from before answers everything: within a second, or, after the end, once it is ready again.

    ``alert`` is the fact of the alert that asked for it.
    """
    state = rollout.follow(row.state, "rolled_back")
    before = endpoints.spec_from(row.before)
    seen = row.evidence
    if row.state == "completed":
        endpoints.start(system, before)
    elif row.step < len(rollout_views.plan_of(row).steps):
        seen = [*row.evidence, rollout_views.seen(system, row, verdict, reason)]
    with system.store.transaction() as tx:
        if row.state == "completed":
            _serve(system, tx, row, before, by)
        back = tx.rollouts.change(row, state=state, reason=reason, evidence=seen)
        evidence = {"reason": reason, "steps": seen, **({} if alert is None else {"alert": alert})}
        record(system, tx, back, "roll_back", by, evidence)
    _end(system, back)
    return back


def _end(system: "System", row: RolloutRow) -> None:
    """Take the route out of force, then the candidate away: what it still answers meanwhile is answered well."""
    system.rolling.discard(row.id)
    endpoints.publish_access(system)
    with contextlib.suppress(NotFoundError):
        system.supervisor.stop(_candidate(row))
    shutil.rmtree(endpoints.tallies_of(system, row), ignore_errors=True)
    (system.home.run / f"{row.id}.sock").unlink(missing_ok=True)


def changing(system: "System", endpoint: str) -> threading.Lock:
    """The lock under which one rollout changes. Not the use case's: a run holds that for hours, a roll back cannot."""
    return system.lock(f"rollout of {endpoint}")


def latest(system: "System", endpoint: str) -> RolloutRow:
    """The newest rollout of an endpoint.

    Raises:
        NotFoundError: there is no such endpoint, or nothing was ever rolled out there.
    """
    with system.store.read() as tx:
        tx.endpoints.get(endpoint)
        row = tx.rollouts.latest(endpoint)
    if row is None:
        raise NotFoundError(f"nothing was rolled out at {endpoint} yet", fix=f"bedplate rollout start {endpoint}")
    return row


def _serve(system: "System", tx: Transaction, row: RolloutRow, spec: ReplicaSpec, by: Principal | None) -> None:
    who = by if by is not None else system.identity.authenticate(system.token)
    line.serve(system.ledger, tx, who, row.use_case, spec.digest, system.settings.environment)
    tx.endpoints.put(row.endpoint, use_case=row.use_case, bundle=spec.digest, spec=endpoints.as_row(spec))


def record(
    system: "System", tx: Transaction, row: RolloutRow, action: str, by: Principal | None, payload: dict[str, Any]
) -> None:
    """Put a change of a rollout into the ledger, within its transaction; nobody made it if it happened by itself."""
    system.ledger.record(
        tx,
        actor=WATCHER if by is None else by.id,
        action=f"rollout.{action}",
        resource=f"use_case/{row.use_case}",
        payload={"rollout": row.id, "endpoint": row.endpoint, "bundle": row.bundle, **payload},
        auth="none" if by is None else by.auth,
    )


def _candidate(row: RolloutRow) -> str:
    """The supervisor's name for the candidate of a rollout."""
    return f"{row.endpoint}@{row.id}"
