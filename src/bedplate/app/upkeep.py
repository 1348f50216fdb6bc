"""What the control plane does to the tables of a use case by itself, as often as ``upkeep`` in its file says.

When each task was done last stands in the store, as a fact of its own, so an owner that takes over goes on where the
one before ended. A task that is killed is begun again: all of them do nothing where nothing is left to do.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from bedplate import clock, usecase
from bedplate.app import access, erase, features, promises, tables
from bedplate.app.feature_reports import SkewAlert
from bedplate.errors import BedplateError, ConflictError, NotFoundError
from bedplate.identity import Principal
from bedplate.policy.values import FLOW
from bedplate.store.use_cases import UseCaseRow
from bedplate.usecase.types import UpkeepSection

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.store import Transaction

Task = Literal["promises", "expire", "compact", "scrub", "skew"]
TASKS: tuple[Task, ...] = get_args(Task)
LOOK_EVERY = 30.0
"""Seconds between two looks at what is due."""
_AGAIN = 600.0
"""Seconds after which a task that failed is tried again, unless it is due before."""
BY_ITSELF = Principal(id=FLOW.id, kind="service", name=FLOW.name, groups=(), auth="none", credential="")
"""Who does it: the flow, which does what the file says."""


class Upkept(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``upkeep TASK``: how a task of the control plane ended. ``found`` says it in words."""

    task: Task
    started: str
    ended: str
    ok: bool
    found: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a use case and how it ended last."""

    use_case: str
    task: Task
    last: Upkept


class Upkeep:
    """Looks from time to time at what is due, and does it, one task after the other."""

    def __init__(self, system: "System", every: float = LOOK_EVERY) -> None:
        self._system, self._every = system, every
        self._files: dict[Path, tuple[int, UpkeepSection]] = {}
        self._told = ""
        self._reckoned = clock.Reckoned()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Begin nothing more, and wait until what is under way has ended."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  one look that fails must not be the last
                text = str(error) if isinstance(error, BedplateError) else f"{type(error).__name__}: {error}"
                if text != self._told:
                    sys.stderr.write(f"upkeep: {text}\n")
                self._told = text

    def look(self) -> None:
        """Do what is due."""
        now = self._reckoned.now()  # at each look: it has to see a step of the clock to tell how long it has held
        with self._system.store.read() as tx:
            rows = tx.use_cases.list()
        for row in rows:
            section = self._section(row)
            for task, interval in intervals(section):
                if not self._stopping.is_set() and due(self._system, row.name, task, interval):
                    do(self._system, row, task, now)

    def _section(self, row: UseCaseRow) -> UpkeepSection:
        """What the file says now; nothing where it cannot be read. It is read again only once it has changed."""
        path = Path(row.folder) / row.file
        try:
            changed = path.stat().st_mtime_ns
            known = self._files.get(path)
            if known is None or known[0] != changed:
                known = self._files[path] = (changed, usecase.load(path, check_files=False).use_case.upkeep)
        except (OSError, BedplateError):
            return UpkeepSection()
        return known[1]


def intervals(section: UpkeepSection) -> Iterator[tuple[Task, float]]:
    """The tasks that a file asks for, with the seconds from one time to the next."""
    for task in TASKS:
        interval: float | None = getattr(section, task)
        if interval is not None:
            yield task, interval


def due(system: "System", use_case: str, task: Task, interval: float) -> bool:
    """Whether a task is to be done now: ``interval`` seconds have passed, or, after a failure, a few minutes."""
    with system.store.read() as tx:
        last = _last(tx, use_case, task)
    if last is None:
        return True
    wait = interval if last.ok else min(interval, _AGAIN)
    # What ended in the future ended before the clock was set back: to wait for that could be to wait for years.
    return not timedelta(0) <= clock.now() - clock.parse(last.ended) < timedelta(seconds=wait)


def do(system: "System", row: UseCaseRow, task: Task, at: datetime | None = None) -> Upkept:
    """Do a task now, and record how it ended: a fact, and an entry of the ledger. Rows are as old as at ``at``."""
    started = clock.timestamp()
    try:
        ok, found = _DO[task](system, row, at)
    except BedplateError as error:
        ok, found = False, str(error)
    made = Upkept(task=task, started=started, ended=clock.timestamp(), ok=ok, found=found)
    with system.store.transaction() as tx:
        tx.facts.put(_kind(task), row.name, made)
        system.ledger.record(
            tx,
            actor=BY_ITSELF.id,
            action=f"upkeep.{task}",
            resource=f"use_case/{row.name}",
            decision="allow",
            payload=msgspec.to_builtins(made),
            auth=BY_ITSELF.auth,
        )
    return made


def standings(tx: "Transaction", use_cases: list[str]) -> list[Standing]:
    """How the tasks of these use cases ended last: those that were ever done."""
    found = ((name, task, _last(tx, name, task)) for name in use_cases for task in TASKS)
    return [Standing(use_case=name, task=task, last=last) for name, task, last in found if last is not None]


# --------------------------------------------------------------------------------------------------------------- tasks


def _promises(system: "System", row: UseCaseRow, at: datetime | None) -> tuple[bool, str]:
    report = promises.check(system, BY_ITSELF, str(Path(row.folder) / row.file))
    broken = [f"{p.dataset}: {p.promise}, {p.wanted}: {p.found}" for p in report.promises if not p.kept]
    return report.kept, "; ".join(broken) or f"{len(report.promises)} promises kept"


def _expire(system: "System", row: UseCaseRow, at: datetime | None) -> tuple[bool, str]:
    report = erase.expire(system, BY_ITSELF, row.name, at)
    gone = [f"{count:,} rows of {table}" for table, count in report.tables.items()]
    return True, f"took out {', '.join(gone)}" if gone else "nothing is older than it may be kept"


def _compact(system: "System", row: UseCaseRow, at: datetime | None) -> tuple[bool, str]:
    """Write small files together, and remove what killed writes left: neither is in any version."""
    made, left = [], 0
    for name in _tables(system, row.name):
        left += system.tables.collect(name, (at or clock.now()) - tables.UNDER_WAY)
        before = system.tables.current(name).version
        try:
            if tables.compact(system, BY_ITSELF, name).version != before:
                made.append(name)
        except ConflictError:
            continue  # somebody writes: the next time will do
    said = f"wrote together {', '.join(made)}" if made else "no table has many small files"
    return (
        True,
        f"{said}; removed {left:,} file{'' if left == 1 else 's'} of writers that were killed" if left else said,
    )


def _scrub(system: "System", row: UseCaseRow, at: datetime | None) -> tuple[bool, str]:
    names, bad = _tables(system, row.name), []
    for name in names:
        report = tables.scrub(system, BY_ITSELF, name)
        bad += [f"{name}: {path}" for path in (*report.damaged, *report.missing)]
    return not bad, f"damaged or missing: {'; '.join(bad)}" if bad else f"{len(names)} tables are as they were written"


def _tables(system: "System", use_case: str) -> list[str]:
    names = (version.name for version in tables.visible(system, BY_ITSELF))
    return [name for name in names if access.use_case_of(name) == use_case]


def _skew(system: "System", row: UseCaseRow, at: datetime | None) -> tuple[bool, str]:
    """Whether what was served since the time before is what training would have seen."""
    from bedplate.app import skew  # NumPy: only where somebody asks for it

    case = features.loaded_of(system, row.name).use_case
    since = clock.now() - timedelta(seconds=case.upkeep.skew or 0)
    try:
        report = skew.measure(system, BY_ITSELF, row.name, since=since.isoformat())
    except NotFoundError:
        return True, "no prediction of that time rests on features"
    over = [each for each in report.features if each.alarm]
    if not over:
        return True, f"{report.samples:,} predictions rest on the features that training would have seen"
    found = ", ".join(f"{each.feature} ({each.share.value:.1%} of them)" for each in over)
    said = f"of {report.samples:,} predictions these features are not what training would have seen: {found}"
    notify = tuple(alert.notify for alert in case.alerts if alert.when == "skew")
    if not notify:
        return False, said
    alert = SkewAlert(
        features=tuple(each.feature for each in over),
        samples=report.samples,
        limit=report.limit,
        accountable=f"{case.owner.accountable} of {case.owner.team}",
        notify=notify,
    )
    _fire(system, row, alert)
    remedy = f"bring them up to date (bedplate features materialize {row.name})"
    return False, f"{said}; {', '.join(filter(None, (*notify, alert.accountable)))}: {remedy}"


def _fire(system: "System", row: UseCaseRow, alert: SkewAlert) -> None:
    """Put an alert into facts and ledger, once for as long as the task fails."""
    with system.store.transaction() as tx:
        last = _last(tx, row.name, "skew")
        if last is not None and not last.ok:
            return
        fact = tx.facts.put("alert", row.name, alert)
        system.ledger.record(
            tx,
            actor=BY_ITSELF.id,
            action="features.alert",
            resource=f"use_case/{row.name}",
            decision="allow",
            payload={"alert": fact.digest, "when": "skew", **msgspec.to_builtins(alert), "limit": str(alert.limit)},
            auth=BY_ITSELF.auth,
        )


_DO: dict[Task, Callable[["System", UseCaseRow, datetime | None], tuple[bool, str]]] = {
    "promises": _promises,
    "expire": _expire,
    "compact": _compact,
    "scrub": _scrub,
    "skew": _skew,
}


def _kind(task: Task) -> str:
    return f"upkeep {task}"


def _last(tx: "Transaction", use_case: str, task: Task) -> Upkept | None:
    fact = tx.facts.latest(use_case, _kind(task))
    return None if fact is None else msgspec.convert(fact.body, Upkept)
