"""Bring rows in outside of a run: a range again, or what was set aside, after its contract was corrected."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bedplate import clock, usecase
from bedplate.app import access, contract_changes, deidentified, inputs, residency, tables
from bedplate.app.table_reports import BatchReport, ReplayReport
from bedplate.data.parsing.template import TEMPLATE
from bedplate.errors import InputError, NotFoundError
from bedplate.identity import Principal
from bedplate.policy import values as policy
from bedplate.usecase import Loaded
from bedplate.usecase.types import DataSet

if TYPE_CHECKING:
    from bedplate.app.system import System


class Rate:
    """Tells how far an ingestion is: rows, bytes, and rows a second since it began."""

    def __init__(self, dataset: str, tell: Callable[[str, float | None, float | None], object]) -> None:
        self._dataset, self._tell, self._began = dataset, tell, clock.monotonic()

    def __call__(self, done: int, total: int | None, size: int) -> None:
        """``done`` rows of ``total``, which have ``size`` bytes."""
        seconds = max(clock.monotonic() - self._began, 1e-9)
        text = f"{self._dataset} {done:,} rows, {size / 1e6:,.1f} MB, {done / seconds:,.0f} rows/s"
        self._tell(text, done, total)


def backfill(
    system: "System", principal: Principal, path: str, dataset: str, since: str | None, until: str | None
) -> BatchReport:
    """Bring in the rows of a range, of whatever age; those that are there stay as they are. The ledger says so.

    Raises:
        ContractError: the contract is wrong, or a rule of severity ``error`` is broken.
        DeniedError: policy does not let this person operate the use case, or its rows may not lie here.
        InputError: the data set is read whole each time, or the range is none.
        NotFoundError: there is no such data set.
    """
    TEMPLATE.warm()  # while this process loads its half
    from bedplate.data import contracts, incremental
    from bedplate.data.ingest import ingest

    loaded, data, policies = _asked(system, principal, path, dataset, "table.ingest")
    if data.incremental is None:
        raise InputError(f"{dataset} is read whole each time", where=f"data.{dataset}", fix="bedplate run")
    model = contracts.load(loaded.folder / data.contract).model(dataset)
    contract_changes.check(system, loaded, ())

    result = ingest(
        system.tables,
        use_case=loaded.use_case.name,
        dataset=dataset,
        spec=data,
        folder=loaded.folder,
        key="",
        sensitive=loaded.use_case.governance.sensitive,
        reach=inputs.reach(system.settings, loaded.use_case),
        window=incremental.window(model, data.incremental, since, until),
        pseudonyms=deidentified.begin(system, loaded),
        safe_harbor=loaded.use_case.governance.deidentify != "none",
    )
    report = BatchReport(
        dataset=dataset,
        table=result.table.name,
        version=result.table.version,
        read=result.read,
        accepted=result.accepted,
        rejected=result.rejected,
        known=result.known,
        outside=result.outside,
        unconfined=result.unconfined,
    )
    told = {**msgspec.to_builtins(report), "from": since, "to": until, "digest": result.table.digest}
    tables.record(system, principal, "table.ingest", report.table, policies, told)
    return report


def replay(system: "System", principal: Principal, path: str, dataset: str) -> ReplayReport:
    """Bring in the rows of a quarantine that keep the contract as it is now. The ledger says so.

    Raises: as :func:`backfill`; NotFoundError where nothing was set aside.
    """
    from bedplate.data.replay import replay as bring_in

    loaded, data, policies = _asked(system, principal, path, dataset, "table.replay")
    if deidentified.methods(loaded)[dataset]:
        raise InputError(
            f"{dataset} is de-identified: what was set aside is not kept as it came, and cannot be judged again",
            where=f"data.{dataset}", fix="correct the source and run the use case again",
        )  # fmt: skip
    contract_changes.check(system, loaded, ())
    deidentified.begin(system, loaded)
    found = bring_in(
        system.tables,
        use_case=loaded.use_case.name,
        dataset=dataset,
        spec=data,
        folder=loaded.folder,
        sensitive=loaded.use_case.governance.sensitive,
    )
    report = ReplayReport(
        dataset=dataset,
        table=found.table.name,
        version=found.table.version,
        read=found.read,
        accepted=found.accepted,
        known=found.known,
        left=found.left,
    )
    told = {**msgspec.to_builtins(report), "digest": found.table.digest}
    tables.record(system, principal, "table.replay", report.table, policies, told)
    return report


def _asked(
    system: "System", principal: Principal, path: str, dataset: str, action: str
) -> tuple[Loaded, DataSet, tuple[str, ...]]:
    loaded = usecase.load(Path(path))
    decision = access.demand(system, principal, "operate", policy.use_case(loaded.use_case.name))
    if dataset not in loaded.use_case.data:
        known = ", ".join(loaded.use_case.data)
        raise NotFoundError(f"there is no data set {dataset!r}", where=str(loaded.path), fix=f"use one of {known}")
    residency.demand(
        system, principal.id, action, loaded.use_case.name, loaded.use_case.requirements.residency,
        residency.of_use_case(system.settings, loaded.use_case),
    )  # fmt: skip
    return loaded, loaded.use_case.data[dataset], decision.policies
