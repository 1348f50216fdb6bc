"""The tables of a home: asked for, looked after, and shown as whoever asks may see them."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate import clock
from bedplate.app import access, policies
from bedplate.app.table_reports import AccessView, TableChange, TableLine, TableRows, TableScrub, TableView
from bedplate.errors import InputError, NotFoundError
from bedplate.identity import Principal, policy_principal
from bedplate.policy import values as policy
from bedplate.records import Governance, TableVersion

if TYPE_CHECKING:
    from bedplate.app.system import System

UNDER_WAY = timedelta(days=7)
"""No write takes as long: what no version holds after it was left by one that was killed."""
MOST_ROWS = 1000
"""Most rows that one look at a table shows; whoever wants all of them opens the table."""
MOST_CHANGES = 500
_LOOK = 5.0
"""Seconds in which rows to show are looked for, where policy lets few of a large table out."""


def listed(system: "System", principal: Principal) -> tuple[TableLine, ...]:
    """The tables that policy lets this person know of, by name."""
    return tuple(
        TableLine(
            name=version.name,
            use_case=access.use_case_of(version.name),
            version=version.version,
            rows=version.rows if sees_all(system, principal, version) else None,
        )
        for version in visible(system, principal)
    )


def visible(system: "System", principal: Principal) -> Iterator[TableVersion]:
    """The newest versions of the tables that policy lets this person know of, by name."""
    for name in system.tables.names():
        if system.policies.decide(policy_principal(principal), "list", resource(system, name), {}).allowed:
            try:
                yield system.tables.current(name)
            except NotFoundError:
                continue  # its first write has not ended, or never will


def resource(system: "System", name: str) -> policy.Resource:
    """A table as policy knows it, whether it is there or not."""
    use_case = access.use_case_of(name)
    return access.table_resource(name, use_case, _governance(system, use_case))


def show(system: "System", principal: Principal, name: str) -> TableView:
    """The newest version of a table.

    Raises:
        DeniedError: policy does not let this person know of it.
        NotFoundError: there is no such table.
    """
    _demand_list(system, principal, name)
    return _view(system, principal, system.tables.current(name))


def history(system: "System", principal: Principal, name: str, limit: int = 20) -> tuple[TableChange, ...]:
    """The newest versions of a table, newest first. Raises as :func:`show`, and InputError for such a limit."""
    from bedplate.data import upkeep

    _demand_list(system, principal, name)
    changes = upkeep.history(system.tables, name, _bounded(limit, MOST_CHANGES))
    return tuple(
        TableChange(
            version=change.version,
            time=change.time,
            what=change.what,
            rows=change.rows if sees_all(system, principal, system.tables.version(name, change.version)) else None,
            files=change.files,
        )
        for change in changes
    )


def read(
    system: "System",
    principal: Principal,
    name: str,
    *,
    version: int | None = None,
    as_of: str | None = None,
    columns: Sequence[str] = (),
    limit: int = 20,
    purpose: str | None = None,
) -> TableRows:
    """Some rows, as policy lets this person see them for the purpose; the read is in the ledger.

    Raises:
        DeniedError: policy does not let this person read it for that purpose.
        InputError: no such column, limit or time.
        NotFoundError: no such table, version, or none at that time.
    """
    count = _bounded(limit, MOST_ROWS)
    governance = _known_governance(system, name)
    _demand_list(system, principal, name)  # who may not know of a table is not told which versions it has
    chosen = _version(system, name, version, as_of)
    reader = access.reader_for(system, access.use_case_of(name), governance, policy_principal(principal), purpose)
    stream = reader.read(chosen, list(dict.fromkeys(columns)) or None, few=True)
    found: list[tuple[str | int | float | bool | None, ...]] = []
    until, late = clock.monotonic() + _LOOK, False
    for batch in stream:  # where policy lets few rows out, there may be batch after batch without one
        columns_ = (column.to_pylist() for column in batch.slice(0, count + 1 - len(found)).columns)
        found += (tuple(map(_plain, row)) for row in zip(*columns_, strict=True))
        late = clock.monotonic() > until
        if late or len(found) > count:
            break
    return TableRows(
        name=name,
        version=chosen.version,
        columns=tuple(stream.schema.names),
        rows=tuple(found[:count]),
        more=late or len(found) > count,
    )


def scrub(system: "System", principal: Principal, name: str) -> TableScrub:
    """Hash every data file again. Raises as :func:`compact`."""
    policies_ = _demand_operate(system, principal, name)
    found = system.tables.verify(name)
    report = TableScrub(
        name=name,
        files=found.files,
        size=found.size,
        damaged=found.damaged,
        missing=found.missing,
        sound=found.sound,
    )
    record(system, principal, "table.scrub", name, policies_, {"damaged": report.damaged, "missing": report.missing})
    return report


def compact(system: "System", principal: Principal, name: str) -> TableView:
    """Write small files together.

    Raises:
        ConflictError: somebody wrote meanwhile.
        DeniedError: policy does not let this person operate the use case.
        NotFoundError: there is no such table.
    """
    from bedplate.data import upkeep

    policies_ = _demand_operate(system, principal, name)
    before = system.tables.current(name)
    made = upkeep.compact(system.tables, name)
    if made != before:
        record(system, principal, "table.compact", name, policies_, {"version": made.version, "digest": made.digest})
    return _view(system, principal, made)


def restore(system: "System", principal: Principal, name: str, version: int) -> TableView:
    """Make an older version the newest again. Raises as :func:`compact`."""
    from bedplate.data import upkeep

    policies_ = _demand_operate(system, principal, name)
    made = upkeep.restore(system.tables, system.tables.version(name, version))
    payload = {"from": version, "version": made.version, "digest": made.digest}
    record(system, principal, "table.restore", name, policies_, payload)
    return _view(system, principal, made)


def explain(system: "System", principal: Principal, who: str, name: str, purpose: str | None = None) -> AccessView:
    """What somebody would see of a table, and why; no row is read.

    Raises:
        DeniedError: policy does not let the asking person administer the home.
        NotFoundError: there is no such table, or nobody of this name.
    """
    access.demand(system, principal, "administer", policy.HOME)
    with system.store.read() as tx:
        somebody = policies.who_is(tx, who)
    _known_governance(system, name)
    return seen(system, somebody, system.tables.current(name), purpose)


def seen(system: "System", somebody: policy.Principal, version: TableVersion, purpose: str | None = None) -> AccessView:
    """What somebody would see of a version, and why; no row is read, and nobody is asked whether that may be told."""
    from bedplate.data import predicates

    use_case = access.use_case_of(version.name)
    governance = _governance(system, use_case)
    chosen = governance.purpose if purpose is None else purpose
    view = access.reader_for(system, use_case, governance, somebody, chosen).explain(version)
    return AccessView(
        who=somebody.name,
        table=version.name,
        version=version.version,
        purpose=chosen,
        allowed=view.allowed,
        columns=view.columns,
        rows="" if view.rows is None else predicates.words(view.rows.condition),
        policies=view.policies,
        row_policies=() if view.rows is None else view.rows.policies,
        reasons=view.reasons,
    )


# ------------------------------------------------------------------------------------------------------------ internal


def _governance(system: "System", use_case: str) -> Governance:
    """What is known of the use of its rows: for no purpose at all where it was never checked."""
    with system.store.read() as tx:
        try:
            return access.governance(tx, use_case)
        except InputError:
            return Governance(purpose="", sensitive=())


def sees_all(system: "System", principal: Principal, version: TableVersion) -> bool:
    """Whether row policies keep nothing in from this person, so that they may know how much there is."""
    use_case = access.use_case_of(version.name)
    governance = _governance(system, use_case)
    if not governance.rows:
        return True
    view = access.reader_for(system, use_case, governance, policy_principal(principal)).explain(version)
    return view.allowed and (view.rows is None or view.rows.everything)


def _known_governance(system: "System", name: str) -> Governance:
    if name not in system.tables.names():
        raise NotFoundError(f"there is no table {name!r}", fix="see: bedplate table list")
    with system.store.read() as tx:
        return access.governance(tx, access.use_case_of(name))


def _demand_list(system: "System", principal: Principal, name: str) -> None:
    access.demand(system, principal, "list", resource(system, name))


def _demand_operate(system: "System", principal: Principal, name: str) -> tuple[str, ...]:
    return access.demand(system, principal, "operate", policy.use_case(access.use_case_of(name))).policies


def record(
    system: "System", principal: Principal, action: str, name: str, policies_: tuple[str, ...], payload: dict[str, Any]
) -> None:
    """Have the ledger say what was done to a table, by whom, and by which policies it was allowed."""
    with system.store.transaction() as tx:
        system.ledger.record(
            tx,
            actor=principal.id,
            action=action,
            resource=f"table/{name}",
            decision="allow",
            payload=msgspec.to_builtins(payload),
            auth=principal.auth,
            policies=policies_,
        )


def _view(system: "System", principal: Principal, version: TableVersion) -> TableView:
    files = system.tables.files(version)
    use_case = access.use_case_of(version.name)
    governance = _governance(system, use_case)
    countable = sees_all(system, principal, version)
    return TableView(
        name=version.name,
        use_case=use_case,
        purpose=governance.purpose,
        version=version.version,
        digest=version.digest,
        rows=version.rows if countable else None,
        files=len(files),
        size=sum(file.size for file in files) if countable else None,
        columns={field.name: str(field.type) for field in system.tables.schema(version)},
    )


def _version(system: "System", name: str, version: int | None, as_of: str | None) -> TableVersion:
    from bedplate.data import upkeep

    if version is not None and as_of is not None:
        raise InputError("a version and a moment are two answers to one question", fix="name one of them")
    if version is not None:
        return system.tables.version(name, version)
    if as_of is None:
        return system.tables.current(name)
    try:
        moment = datetime.fromisoformat(as_of)
    except ValueError as error:
        raise InputError(f"{as_of!r} is no time", where="--as-of", fix="write 2026-01-31T10:00 (UTC)") from error
    return upkeep.as_of(system.tables, name, moment)


def _bounded(limit: int, most: int) -> int:
    if not 1 <= limit <= most:
        raise InputError(f"the limit is {limit}", where="--limit", fix=f"use 1 to {most}")
    return limit


def _plain(value: Any) -> Any:
    """A value as JSON can bear it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value)
