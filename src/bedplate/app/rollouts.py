"""Rolling a release out, as the owner does it: start the candidate, watch, step, promote, and roll back.

What is wanted stands in the store, each change in one transaction with its ledger entry; what runs follows from it. A
killed owner therefore loses nothing: the next one finds the rollout, starts its candidate again and looks on, with the
counts that replicas left beside it.
"""

import contextlib
import math
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate import bundle as bundles
from bedplate import clock
from bedplate.app import access, endpoints
from bedplate.app.read_models import RolloutReport, RolloutStep
from bedplate.errors import BedplateError, ConflictError, InputError, NotFoundError
from bedplate.identity import Principal
from bedplate.ids import Digest, digest_of
from bedplate.policy import values as policy
from bedplate.records import Approval, GuardFinding
from bedplate.release import line, rollout
from bedplate.release.rollout import RolloutPlan
from bedplate.serve.routing import position
from bedplate.serve.spec import ReplicaSpec
from bedplate.stats.canary import Tally, Values
from bedplate.store.rollouts import RolloutRow
from bedplate.usecase import load

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.release.guards import Verdict

READY_WITHIN = 20.0
"""Seconds in which a candidate must be ready; one that is not is rolled back."""
TICK = 0.5
WATCHER = "rollout"
"""The actor of what a rollout does by itself."""


# ------------------------------------------------------------------------------------------------------- what is asked


def start(system: "System", principal: Principal, endpoint: str) -> RolloutReport:
    """Begin to roll out the newest approved release of an endpoint's use case.

    Raises:
        ConflictError: another rollout is under way, or there is no approved release but the one that is served.
        NotFoundError: there is no such endpoint.
        DeniedError: policy does not allow it.
    """
    with system.store.read() as tx:
        row = tx.endpoints.get(endpoint)
        made = tx.use_cases.get(row.use_case)
        approval = tx.facts.latest(row.use_case, "approval")
    _demand(system, principal, row.use_case)
    said = msgspec.convert(approval.body, Approval) if approval is not None else None
    if said is None or (said.state, said.environment) != ("approved", system.settings.environment):
        raise ConflictError(
            f"no release of {row.use_case} is approved for {system.settings.environment}",
            fix="run the use case, and have what it made approved",
        )
    if said.bundle == row.bundle:
        raise ConflictError(
            f"{endpoint} serves the newest approved release already",
            fix="run the use case, and have what it made approved",
        )
    assert approval is not None
    spec = msgspec.structs.replace(
        endpoints.spec_of(row),
        bundle=bundles.path_of(system.home.bundles, said.bundle),
        digest=said.bundle,
        evidence=approval.digest,
    )
    loaded = load(Path(made.folder) / made.file, check_files=False)
    return begin(system, principal, endpoint, spec, rollout.plan_of(loaded.use_case))


def begin(system: "System", principal: Principal, endpoint: str, spec: ReplicaSpec, plan: RolloutPlan) -> RolloutReport:
    """Start a candidate beside what an endpoint serves, and give it its first step. One that is not ready ends it.

    Raises:
        ConflictError: another rollout is under way, or this owner serves nothing.
        NotFoundError: there is no such endpoint.
    """
    if not system.serving:
        raise ConflictError("nothing is being served here", fix="start it: bedplate up --detach")
    with _changing(system, endpoint):
        with system.store.transaction() as tx:
            served = tx.endpoints.get(endpoint)
            latest = tx.rollouts.latest(endpoint)
            if latest is not None and latest.state in ("running", "frozen"):
                raise ConflictError(
                    f"{endpoint} is being rolled out already",
                    fix=f"wait for it, or end it: bedplate rollout roll-back {endpoint}",
                )
            row = tx.rollouts.add(
                endpoint,
                use_case=served.use_case,
                bundle=spec.digest,
                plan=msgspec.to_builtins(plan),
                spec=endpoints.as_row(spec),
                before=served.spec,
                by=principal.name,
            )
            _record(system, tx, row, "start", principal.id, {"plan": row.plan, "before": served.bundle})
        return _report(system, _run(system, row))


def report(system: "System", principal: Principal, endpoint: str) -> RolloutReport:
    """The newest rollout of an endpoint as it is now.

    Raises:
        NotFoundError: there is no such endpoint, or nothing was ever rolled out there.
        DeniedError: policy does not allow it.
    """
    row = _latest(system, endpoint)
    access.demand(system, principal, "read", policy.use_case(row.use_case))
    return _report(system, row)


def newest(system: "System", endpoint: str) -> RolloutReport | None:
    """The newest rollout of an endpoint, if there was one, for whoever was let in to see its use case."""
    with system.store.read() as tx:
        row = tx.rollouts.latest(endpoint)
    return None if row is None else _report(system, row)


def freeze(system: "System", principal: Principal, endpoint: str) -> RolloutReport:
    """Take no more steps; the candidate keeps its share, and the guards still roll it back.

    Raises:
        ConflictError: it has ended.
    """
    return _set(system, principal, endpoint, "frozen_by", "freeze")


def resume(system: "System", principal: Principal, endpoint: str) -> RolloutReport:
    """Go on with the step at which it was frozen, which begins anew.

    Raises:
        ConflictError: it is not frozen.
    """
    return _set(system, principal, endpoint, "resumed", "resume")


def roll_back(system: "System", principal: Principal, endpoint: str, reason: str = "") -> RolloutReport:
    """Have the release from before the newest rollout answer everything, at once; also after it was completed.

    Raises:
        ConflictError: it was rolled back already.
        UnavailableError: the release from before does not start; what answers now goes on.
    """
    _demand(system, principal, _latest(system, endpoint).use_case)
    with _changing(system, endpoint):
        row = _latest(system, endpoint)
        return _report(system, _roll_back(system, row, principal.id, reason or f"asked for by {principal.name}", None))


def take_outcomes(
    system: "System", principal: Principal, endpoint: str, outcomes: Sequence[tuple[str, float]]
) -> RolloutReport:
    """Count what came of answers: the split key that was asked with, and what it earned, one pair each.

    A key's outcome counts for the release that the key is assigned to now.

    Raises:
        ConflictError: nothing is being rolled out there, or its requests have no key to tell the releases apart.
        InputError: a value is no number.
    """
    if not all(math.isfinite(value) for _, value in outcomes):
        raise InputError("an outcome is no number", where="value")
    _demand(system, principal, _latest(system, endpoint).use_case)
    with _changing(system, endpoint):
        row = _latest(system, endpoint)
        plan = _plan(row)
        step = plan.steps[row.step] if row.state in ("running", "frozen") else None
        if step is None or step.mode == "shadow" or not plan.key:
            raise ConflictError(
                f"outcomes cannot be told apart at {endpoint} now",
                fix="report them while a rollout with serve.rollout.key takes its steps",
            )
        values = msgspec.convert(row.outcomes, Values)
        for key, value in outcomes:
            values.add(rollout.scaled(plan, value), on_candidate=position(row.id, key) < step.share)
        with system.store.transaction() as tx:
            row = tx.rollouts.change(row, outcomes=msgspec.to_builtins(values))
            payload = {"count": len(outcomes), "digest": digest_of(list(outcomes)), "step": row.step}
            _record(system, tx, row, "outcomes", principal.id, payload)
        return _report(system, row)


# ---------------------------------------------------------------------------------------------------------- watching


class Watcher:
    """Looks at every rollout of a home twice a second and does what follows; each in its own time.

    Starting and draining take seconds: another endpoint's guards must not wait for them.
    """

    def __init__(self, system: "System") -> None:
        self._system = system
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
                with self._system.store.read() as tx:
                    names = [row.endpoint for row in tx.rollouts.active()]
                self._looking = {name: thread for name, thread in self._looking.items() if thread.is_alive()}
                for name in names:
                    if name not in self._looking:
                        self._looking[name] = threading.Thread(target=self._look, args=(name,), name=f"rollout {name}")
                        self._looking[name].start()

    def _look(self, endpoint: str) -> None:
        with self._telling():
            look(self._system, endpoint)

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
    with _changing(system, endpoint):
        row = _latest(system, endpoint)
        if row.state in ("running", "frozen"):
            _look(system, row)


def _look(system: "System", row: RolloutRow) -> None:
    if row.id not in system.rolling:
        row = _run(system, row)  # this owner has taken over
        if row.state == "rolled_back":
            return
    verdict = _judge(system, row)
    if verdict is None and row.state == "running":
        _promote(system, row)
    elif verdict is None:
        return
    elif verdict.action == "roll_back":
        _roll_back(system, row, WATCHER, verdict.reason, verdict)
    elif verdict.action == "pass" and row.state == "running":
        _step(system, row, verdict)


def _run(system: "System", row: RolloutRow) -> RolloutRow:
    """Have the candidate of a rollout up, and its present step in force."""
    endpoints.tallies_of(system, row).mkdir(mode=0o700, parents=True, exist_ok=True)
    if row.step >= len(_plan(row).steps):
        return row
    spec = msgspec.structs.replace(
        endpoints.here(system, endpoints.spec_from(row.spec)),
        name=_candidate(row),
        port=0,
        drain=0.5,  # it has no caller of its own to wait for
        socket=system.home.run / f"{row.id}.sock",
    )
    try:
        system.supervisor.start(spec, READY_WITHIN)
    except BedplateError as error:
        return _roll_back(system, row, WATCHER, f"the candidate is not ready: {error.message}", None)
    system.rolling.add(row.id)
    endpoints.publish_access(system)
    return row


def _step(system: "System", row: RolloutRow, verdict: "Verdict") -> None:
    """The present step passed: the next one, or the end."""
    plan = _plan(row)
    rollout.follow(row.state, "step_passed")
    seen = [*row.evidence, _seen(system, row, verdict)]
    with system.store.transaction() as tx:
        moved = tx.rollouts.change(row, step=row.step + 1, stepped=clock.timestamp(), evidence=seen, outcomes={})
        share = plan.steps[moved.step].share if moved.step < len(plan.steps) else 1.0
        _record(system, tx, row, "step", WATCHER, {"share": share, "evidence": seen[-1]})
    if moved.step < len(plan.steps):
        endpoints.publish_access(system)
    else:
        _promote(system, moved)


def _promote(system: "System", row: RolloutRow) -> None:
    """Every step passed: the candidate becomes what the endpoint's own replica runs."""
    spec = endpoints.here(system, endpoints.spec_from(row.spec))
    try:
        endpoints.start(system, spec)
    except BedplateError as error:
        _roll_back(system, row, WATCHER, f"the candidate did not start as the stable release: {error.message}", None)
        return
    state = rollout.follow("running", "all_passed")
    reason = row.evidence[-1]["reason"] if row.evidence else "no steps were asked for"
    with system.store.transaction() as tx:
        _serve(system, tx, row, spec)
        done = tx.rollouts.change(row, state=state, reason=reason)
        _record(system, tx, done, "complete", WATCHER, {"reason": reason, "steps": row.evidence})
    _end(system, done)


def _roll_back(system: "System", row: RolloutRow, actor: str, reason: str, verdict: "Verdict | None") -> RolloutRow:
    """The release from before answers everything: within a second, or, after the end, once it is ready again."""
    state = rollout.follow(row.state, "rolled_back")
    before = endpoints.here(system, endpoints.spec_from(row.before))
    seen = row.evidence
    if row.state == "completed":
        endpoints.start(system, before)
    elif row.step < len(_plan(row).steps):
        seen = [*row.evidence, _seen(system, row, verdict, reason)]
    with system.store.transaction() as tx:
        if row.state == "completed":
            _serve(system, tx, row, before)
        back = tx.rollouts.change(row, state=state, reason=reason, evidence=seen)
        _record(system, tx, back, "roll_back", actor, {"reason": reason, "steps": seen})
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


# ------------------------------------------------------------------------------------------------------------ helpers


def _changing(system: "System", endpoint: str) -> threading.Lock:
    """The lock under which one rollout changes. Not the use case's: a run holds that for hours, a roll back cannot."""
    return system.lock(f"rollout of {endpoint}")


def _demand(system: "System", principal: Principal, use_case: str) -> None:
    access.demand(system, principal, "operate", policy.use_case(use_case))


def _latest(system: "System", endpoint: str) -> RolloutRow:
    with system.store.read() as tx:
        tx.endpoints.get(endpoint)
        row = tx.rollouts.latest(endpoint)
    if row is None:
        raise NotFoundError(f"nothing was rolled out at {endpoint} yet", fix=f"bedplate rollout start {endpoint}")
    return row


def _set(system: "System", principal: Principal, endpoint: str, event: rollout.Event, action: str) -> RolloutReport:
    _demand(system, principal, _latest(system, endpoint).use_case)
    with _changing(system, endpoint):
        row = _latest(system, endpoint)
        state = rollout.follow(row.state, event)
        stepped = clock.timestamp() if event == "resumed" else row.stepped
        with system.store.transaction() as tx:
            row = tx.rollouts.change(row, state=state, stepped=stepped)
            _record(system, tx, row, action, principal.id, {"step": row.step})
        return _report(system, row)


def _serve(system: "System", tx: Any, row: RolloutRow, spec: ReplicaSpec) -> None:
    by = system.identity.authenticate(system.token)
    line.serve(system.ledger, tx, by, row.use_case, spec.digest, system.settings.environment)
    tx.endpoints.put(row.endpoint, use_case=row.use_case, bundle=spec.digest, spec=endpoints.as_row(spec))


def _record(system: "System", tx: Any, row: RolloutRow, action: str, actor: str, payload: dict[str, Any]) -> None:
    system.ledger.record(
        tx,
        actor=actor,
        action=f"rollout.{action}",
        resource=f"use_case/{row.use_case}",
        payload={"rollout": row.id, "endpoint": row.endpoint, "bundle": row.bundle, **payload},
        auth="none" if actor == WATCHER else "key",
    )


def _candidate(row: RolloutRow) -> str:
    """The supervisor's name for the candidate of a rollout."""
    return f"{row.endpoint}@{row.id}"


def _plan(row: RolloutRow) -> RolloutPlan:
    return msgspec.convert(row.plan, RolloutPlan)


def tally(system: "System", row: RolloutRow, step: int) -> Tally:
    """What all replicas counted in a step so far."""
    total = Tally()
    for path in endpoints.tallies_of(system, row).glob(f"{step}-*.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            total.add(msgspec.json.decode(path.read_bytes(), type=Tally))
    return total


def _judge(system: "System", row: RolloutRow) -> "Verdict | None":
    """The verdict on the present step; None after the last."""
    from bedplate.release import guards  # SciPy: not for a home where nothing is rolled out

    plan = _plan(row)
    if row.step >= len(plan.steps):
        return None
    held = (clock.now() - clock.parse(row.stepped)).total_seconds()
    values = msgspec.convert(row.outcomes, Values)
    return guards.judge(plan, plan.steps[row.step], tally(system, row, row.step), values, held)


def _seen(system: "System", row: RolloutRow, verdict: "Verdict | None", reason: str = "") -> dict[str, Any]:
    """What is kept of a step when it ends."""
    counts = tally(system, row, row.step)
    findings = verdict.findings if verdict is not None else ()
    if verdict is None and (looked := _judge(system, row)) is not None:
        findings = looked.findings
    return {
        "step": row.step,
        "reason": reason or (verdict.reason if verdict is not None else ""),
        "ended": clock.timestamp(),
        "counts": msgspec.to_builtins(counts),
        "findings": msgspec.to_builtins(findings),
    }


def _report(system: "System", row: RolloutRow) -> RolloutReport:
    plan = _plan(row)
    ended = {seen["step"]: seen for seen in row.evidence}
    steps = []
    for i, step in enumerate(plan.steps):
        seen = ended.get(i)
        if seen is None and i == row.step and row.state in ("running", "frozen"):
            verdict = _judge(system, row)
            seen = _seen(system, row, verdict) | {"ended": ""}
        shown = RolloutStep(mode=step.mode, share=step.share, hold=step.hold, state="to come")
        if seen is not None:
            counts = msgspec.convert(seen["counts"], Tally)
            state = "now" if i not in ended else "passed"
            if i == row.step and row.state == "rolled_back":
                state = "stopped"
            shown = msgspec.structs.replace(
                shown,
                state=state,
                stable=counts.stable.requests,
                candidate=counts.candidate.requests,
                findings=msgspec.convert(seen["findings"], tuple[GuardFinding, ...]),
                rows=counts.rows.compared,
                different=counts.rows.different,
                ended=seen["ended"],
            )
        steps.append(shown)
    return RolloutReport(
        id=row.id,
        endpoint=row.endpoint,
        use_case=row.use_case,
        state=row.state,
        bundle=row.bundle,
        before=Digest(row.before["digest"]),
        by=row.by,
        reason=row.reason,
        created=row.created,
        updated=row.updated,
        steps=tuple(steps),
    )
