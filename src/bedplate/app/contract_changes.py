"""A contract that changes: what that breaks, and which features, models and endpoints it hits, before it is accepted.

The contract in force is the one under which the rows of the newest table came in; it is kept byte for byte with them. A
change that breaks whoever reads the table is accepted by a higher first number of the contract's version.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bedplate import usecase
from bedplate.app import access, declarations
from bedplate.app.table_reports import ContractDiff, ContractDiffReport
from bedplate.errors import ContractError
from bedplate.identity import Principal
from bedplate.records import Bundle, IngestResult
from bedplate.usecase import Loaded

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.data.model import Contract
    from bedplate.features.views import FeatureView
    from bedplate.store import Transaction

KIND = "contract"
"""The kind of the fact that keeps a contract as it was written."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``contract``: the text under which a data set came in."""

    dataset: str
    text: str


def in_force(system: "System", use_case: str, dataset: str) -> "Contract | None":
    """The contract of the newest rows of a data set; None where nothing came in yet, or before texts were kept."""
    with system.store.read() as tx:
        text = text_in_force(tx, use_case, dataset)
    return None if text is None else parsed(text, dataset)


def parsed(text: str, dataset: str) -> "Contract":
    """The contract of a data set that its rows came in under, from its text."""
    from bedplate.data import contracts

    return contracts.parse_contract(text.encode(), f"the contract of {dataset} in force")


def text_in_force(tx: "Transaction", use_case: str, dataset: str) -> str | None:
    """The text of :func:`in_force`."""
    latest = tx.stages.latest(use_case, "ingest")
    if latest is None:
        return None
    fact = tx.facts.get(latest.output).body["datasets"].get(dataset)
    for parent in () if fact is None else tx.facts.get(fact).parents:
        found = tx.facts.get(parent)
        if found.kind == KIND:
            return msgspec.convert(found.body, Kept).text
    return None


def diff(system: "System", principal: Principal, path: str) -> ContractDiffReport:
    """What the contracts of a use case, as they stand in its folder, change against those in force.

    Raises:
        DeniedError: policy does not let this person plan the use case.
        UseCaseError, ContractError: the use case or a contract cannot be used.
    """
    loaded = usecase.load(Path(path))
    name = loaded.use_case.name
    access.demand(system, principal, "plan", access.use_case_resource(loaded.use_case))
    views = declarations.views_of(system, loaded)
    found = tuple(_diff(system, loaded, dataset, views) for dataset in loaded.use_case.data)
    return ContractDiffReport(use_case=name, accepted=all(each.accepted for each in found), contracts=found)


def check(system: "System", loaded: Loaded, views: "Iterable[FeatureView]") -> None:
    """Refuse a contract that breaks readers of its table without saying so in its version.

    Raises:
        ContractError: there is one; says what it breaks, and what that hits.
    """
    known = tuple(views)
    for dataset in loaded.use_case.data:
        found = _diff(system, loaded, dataset, known)
        if found.accepted:
            continue
        lines = [
            f"  {change.column or dataset}: {change.what}" for change in found.changes if change.breaks != "source"
        ]
        hits = [("features", found.features), ("models", found.models), ("endpoints", found.endpoints)]
        lines += [f"  hits {kind}: {', '.join(names)}" for kind, names in hits if names]
        raise ContractError(
            f"the contract of {dataset} breaks whoever reads its table\n" + "\n".join(lines),
            where=str(loaded.folder / loaded.use_case.data[dataset].contract),
            fix=f"accept it by a higher first number of its version (now {found.version}), or take the change back",
        )


def _diff(system: "System", loaded: Loaded, dataset: str, views: "Iterable[FeatureView]") -> ContractDiff:
    from bedplate.data import contract_diff, contracts

    name = loaded.use_case.name
    new = contracts.load(loaded.folder / loaded.use_case.data[dataset].contract)
    old = in_force(system, name, dataset)
    if old is None or old.digest == new.digest:
        return ContractDiff(dataset=dataset, version=new.version, accepted=True)
    changes = contract_diff.compare(old.model(dataset), new.model(dataset))
    breaking = contract_diff.breaks_readers(changes)
    with system.store.read() as tx:
        bundle = tx.facts.latest(name, "bundle") if breaking else None
        endpoints = [row.name for row in tx.endpoints.list() if row.use_case == name] if breaking else []
    made = None if bundle is None else msgspec.convert(bundle.body, Bundle)
    return ContractDiff(
        dataset=dataset,
        before=old.version,
        version=new.version,
        changes=changes,
        accepted=not breaking or contract_diff.announced(old, new),
        features=tuple(v.name for v in views if dataset in v.times and _names(v, [c.column for c in breaking])),
        models=() if made is None else (f"{made.name} version {made.version}",),
        endpoints=tuple(endpoints),
    )


def _names(view: "FeatureView", columns: list[str]) -> bool:
    """Whether the SQL of a view, or its times, may speak of any of the columns; of all rows where one has no name."""
    return any(not column or view.speaks_of(column) for column in columns)


def kept(loaded: Loaded, dataset: str) -> Kept:
    """The contract of a data set as it stands in the folder.

    Raises:
        ContractError: it is no text.
    """
    path = loaded.folder / loaded.use_case.data[dataset].contract
    try:
        return Kept(dataset=dataset, text=path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ContractError("the contract is not UTF-8 text", where=str(path), fix="save it as UTF-8") from error


def same(text: Kept, result: IngestResult, where: str) -> None:
    """Refuse a contract that was written anew while its rows came in.

    Raises:
        ContractError: so it was.
    """
    from bedplate.ids import digest_bytes

    if digest_bytes(text.text.encode()) != result.contract_digest:
        raise ContractError("the contract changed while rows came in", where=where, fix="run the same command again")
