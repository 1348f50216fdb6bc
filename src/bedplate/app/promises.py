"""What contracts promise of tables over time, freshness, frequency and completeness, and whether that holds now."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate import clock, usecase
from bedplate.app import access
from bedplate.app.table_reports import Promise, PromiseReport
from bedplate.data import contract_sla
from bedplate.identity import Principal, policy_principal
from bedplate.records import IngestResult
from bedplate.words import span

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.data.model import Contract


def check(system: "System", principal: Principal, path: str) -> PromiseReport:
    """Hold the newest tables of a use case against the SLA properties of its contracts.

    Times are read as this person may see them: a masked one, or rows that are kept in, make nothing look fresher.

    Raises:
        DeniedError: policy does not let this person plan the use case.
        UseCaseError, ContractError: the use case or a contract cannot be used.
    """
    from bedplate.data import contracts

    loaded = usecase.load(Path(path), check_files=False)
    access.demand(system, principal, "plan", access.use_case_resource(loaded.use_case))
    found: list[Promise] = []
    for name, data in loaded.use_case.data.items():
        contract = contracts.load(loaded.folder / data.contract)
        came_in = _newest(system, loaded.use_case.name, name)
        found += _promises(name, contract, came_in, partial(_newest_in, system, principal, came_in))
        found += _frequency(name, contract, _came_in(system, came_in))
    return PromiseReport(
        use_case=loaded.use_case.name, kept=all(promise.kept for promise in found), promises=tuple(found)
    )


def _newest(system: "System", use_case: str, dataset: str) -> IngestResult | None:
    """What came in last; None where nothing did."""
    with system.store.read() as tx:
        latest = tx.stages.latest(use_case, "ingest")
        fact = None if latest is None else tx.facts.get(latest.output).body["datasets"].get(dataset)
        return None if fact is None else msgspec.convert(tx.facts.get(fact).body, IngestResult)


def _promises(
    dataset: str, contract: "Contract", came_in: IngestResult | None, newest_in: Callable[[str], datetime | None]
) -> Iterator[Promise]:
    for promised in contract.freshness:
        if promised.table not in ("", contract.model(dataset).name):
            continue
        newest, judged = newest_in(promised.column), contract_sla.due(promised.schedule, clock.now())
        since = None if newest is None else (judged - newest).total_seconds()
        when = f" at {judged:%Y-%m-%d %H:%M} UTC" if promised.schedule else ""
        yield Promise(
            dataset=dataset,
            promise=f"freshness of {promised.column}",
            wanted=contract_sla.told(promised),
            found="nothing" if since is None else f"{span(since)} old{when}",
            kept=since is not None and since <= promised.seconds,
        )
    if contract.completeness is not None:
        share = None if came_in is None or not came_in.read else came_in.accepted / came_in.read
        yield Promise(
            dataset=dataset,
            promise="completeness",
            wanted=f"at least {contract.completeness:.2%} of the rows",
            found="nothing" if share is None else f"{share:.2%}",
            kept=share is not None and share >= contract.completeness,
        )


def _frequency(dataset: str, contract: "Contract", last: datetime | None) -> Iterator[Promise]:
    for promised in contract.frequency:
        if promised.table not in ("", contract.model(dataset).name):
            continue
        judged = contract_sla.due(promised.schedule, clock.now())
        since = None if last is None else (judged - last).total_seconds()
        when = f"before {judged:%Y-%m-%d %H:%M} UTC" if promised.schedule else "ago"
        yield Promise(
            dataset=dataset,
            promise="frequency",
            wanted=contract_sla.told(promised),
            found="nothing" if since is None else f"the last came {span(since)} {when}",
            kept=since is not None and since <= promised.seconds,
        )


def _came_in(system: "System", newest: IngestResult | None) -> datetime | None:
    """When the newest version of a table was made."""
    if newest is None:
        return None
    made: float = system.tables.log(newest.table.name, 1)[0]["timestamp"]
    return datetime.fromtimestamp(made / 1000, UTC)


def _newest_in(system: "System", principal: Principal, came_in: IngestResult | None, column: str) -> datetime | None:
    """The newest time in a column; None where this person sees none."""
    import pyarrow.compute as pc

    if came_in is None:
        return None
    use_case = access.use_case_of(came_in.table.name)
    with system.store.read() as tx:
        governance = access.governance(tx, use_case)
    newest: datetime | None = None
    rows = access.reader_for(system, use_case, governance, policy_principal(principal))
    for batch in rows.read(came_in.table, [column]):
        value = _moment(pc.max(batch.column(0)).as_py())
        if value is not None and (newest is None or value > newest):
            newest = value
    return newest


def _moment(value: Any) -> datetime | None:
    """A time as one that knows its zone: UTC where it says none; a date as its end, until which it may grow."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return datetime.combine(value + timedelta(days=1), time(), UTC) if isinstance(value, date) else None
