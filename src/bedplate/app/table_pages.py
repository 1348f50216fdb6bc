"""What the pages of tables show: the catalogue, and one table with its contract, quality, versions and who may see it.

Nothing here reads a row but the sample, which goes the way of every read: decided, recorded, filtered and masked. What
is known of a table comes from its log and from evidence, so a page opens at once however many rows there are.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate.app import access, contract_changes, tables, upkeep
from bedplate.app.table_models import (
    Catalogue,
    ColumnLine,
    ContractLine,
    Kind,
    Line,
    Quality,
    Seen,
    TablePage,
    Written,
)
from bedplate.app.table_reports import AccessView, TableRows
from bedplate.app.upkeep import Standing
from bedplate.data import contract_sla
from bedplate.errors import BedplateError
from bedplate.identity import Principal, policy_principal
from bedplate.ids import Digest
from bedplate.ledger import Entry
from bedplate.policy import values as policy
from bedplate.records import FeatureSet, IngestResult, TableVersion

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.data.model import Contract, Model
    from bedplate.store import Transaction

QUARANTINE = ".quarantine"
PAGE = 50
"""Tables that one page of the catalogue lists."""
SAMPLE = 20
"""Rows of a sample."""
HISTORY = 20
"""Versions, and ingestions, that the page of a table lists."""
_ENTRIES = 200
"""How many entries of the ledger are looked through for who wrote a version."""
_MOST_PEOPLE = 200
_MADE: dict[str, Kind] = {
    "features": "features",
    "predictions": "logged predictions",
    "replay": "replayed features",
    "scores": "scores",
}
"""What the flow and its endpoints made of rows, by the second part of a table's name."""
_ERASING = ("subject.erase", "retention.expire")


def kind_of(name: str) -> tuple[Kind, str]:
    """What a table holds, as its name says, and the data set that it is of, empty for none."""
    rest = name.removeprefix(access.use_case_of(name))
    if rest.startswith("."):
        dataset = rest[1:].removesuffix(QUARANTINE)
        return ("rows set aside" if rest.endswith(QUARANTINE) else "data set"), dataset
    return _MADE.get(rest.split("/")[1] if rest else "", "rows"), ""


def _upkeep(tx: "Transaction", principal: Principal, use_cases: list[str]) -> list[Standing]:
    """How upkeep went. What it found counts rows, so it is not told to whom row policies keep some in from."""
    kept = {name for name in use_cases if access.kept_in(tx, name, principal)}
    return [
        msgspec.structs.replace(each, last=msgspec.structs.replace(each.last, found="not told to you"))
        if each.use_case in kept
        else each
        for each in upkeep.standings(tx, use_cases)
    ]


# ----------------------------------------------------------------------------------------------------------- catalogue


def catalogue(system: "System", principal: Principal, words: str, first: int = 0) -> Catalogue:
    """The tables that somebody may know of in which every word stands: in a name, a column, a tag or a description."""
    wanted = words.lower().split()
    found = []
    for version in tables.visible(system, principal):
        line = _line(system, principal, version)
        model = _model(_contract(system, version.name), line.kind, version.name)
        columns = {name: _of_column(model, name) for name in system.tables.schema(version).names}
        told = f"{line.name} {line.description} {line.kind}".lower()
        if all(word in told or any(word in text for text in columns.values()) for word in wanted):
            hits = tuple(name for name, text in columns.items() if any(w in text and w not in told for w in wanted))
            found.append(msgspec.structs.replace(line, found=hits))
    with system.store.read() as tx:
        standings = _upkeep(tx, principal, sorted({line.use_case for line in found}))
    return Catalogue(
        words=words,
        lines=tuple(found[first : first + PAGE]),
        total=len(found),
        first=first,
        failing=tuple(each for each in standings if not each.last.ok),
    )


def _line(system: "System", principal: Principal, version: TableVersion) -> Line:
    kind, _ = kind_of(version.name)
    model = _model(_contract(system, version.name), kind, version.name)
    names = system.tables.schema(version).names
    described = [c for c in model.columns if c.name in names] if model is not None else []
    return Line(
        name=version.name,
        use_case=access.use_case_of(version.name),
        kind=kind,
        version=version.version,
        rows=version.rows if tables.sees_all(system, principal, version) else None,
        columns=len(names),
        description=model.description if model is not None and kind == "data set" else "",
        marks=tuple(sorted({mark for column in described for mark in column.marks})),
    )


def _of_column(model: "Model | None", name: str) -> str:
    column = next((c for c in model.columns if c.name == name), None) if model is not None else None
    return f"{name} {column.description} {' '.join(column.marks)}".lower() if column is not None else name.lower()


# --------------------------------------------------------------------------------------------------------------- table


def page(
    system: "System", principal: Principal, name: str, *, sample: bool = False, purpose: str | None = None
) -> TablePage:
    """Everything about one table, as somebody may know it. ``sample`` reads rows, which the ledger records.

    Raises:
        DeniedError: policy does not let them know of it.
        NotFoundError: there is no such table.
    """
    view = tables.show(system, principal, name)
    kind, dataset = kind_of(name)
    version = system.tables.version(name, view.version)
    contract = _contract(system, name)
    you = tables.seen(system, policy_principal(principal), version, purpose)
    with system.store.read() as tx:
        counted = view.rows is not None and dataset not in access.kept_in(tx, view.use_case, principal)
        quality = tuple(_quality(tx, view.use_case, dataset)) if kind == "data set" and counted else ()
        standings = tuple(_upkeep(tx, principal, [view.use_case]))
    rows, refused = _sample(system, principal, name, purpose) if sample else (None, None)
    model = _model(contract, kind, name)
    people = _others(system) if _may_ask_about_others(system, principal) else None
    return TablePage(
        view=view,
        kind=kind,
        dataset=dataset,
        counted=counted,
        columns=_columns(view.columns, you, model),
        you=you,
        versions=_versions(system, principal, name),
        description=model.description if model is not None else "",
        contract=_told(contract, dataset) if contract is not None else None,
        quality=quality,
        quarantine=_aside(system, principal, name, kind),
        everybody=None if people is None else _everybody(system, people[:_MOST_PEOPLE], version),
        unasked=0 if people is None else len(people[_MOST_PEOPLE:]),
        upkeep=standings,
        sample=rows,
        refused=refused,
    )


def _sample(
    system: "System", principal: Principal, name: str, purpose: str | None
) -> tuple[TableRows | None, BedplateError | None]:
    try:
        return tables.read(system, principal, name, limit=SAMPLE, purpose=purpose), None
    except BedplateError as error:
        return None, error


def _columns(types: Mapping[str, str], you: AccessView, model: "Model | None") -> tuple[ColumnLine, ...]:
    """The columns, each with what its contract says. Rules are told by their message, which holds no value of a row."""
    known = {column.name: column for column in model.columns} if model is not None else {}
    found = []
    for name, kind in types.items():
        mask, column = you.columns.get(name, "") if you.allowed else "", known.get(name)
        if model is None or column is None:
            found.append(ColumnLine(name=name, type=kind, mask=mask))
            continue
        rules = [rule.message for rule in model.rows if rule.column == name and rule.check != "required"]
        rules += [rule.message for rule in model.keys if name in rule.columns]
        rules += [rule.message for rule in model.sets if name in rule.columns]
        found.append(
            ColumnLine(
                name=name,
                type=kind,
                mask=mask,
                description=column.description,
                required=column.required,
                classification=column.classification,
                tags=column.tags,
                rules=tuple(dict.fromkeys(rules)),
            )
        )
    return tuple(found)


def _aside(system: "System", principal: Principal, name: str, kind: Kind) -> str:
    """The table of what was set aside from this one, if there is one that they may know of."""
    other = f"{name}{QUARANTINE}"
    if kind != "data set" or other not in system.tables.names():
        return ""
    asked = tables.resource(system, other)
    return other if system.policies.decide(policy_principal(principal), "list", asked, {}).allowed else ""


# ------------------------------------------------------------------------------------------------------------ contract


def _contract(system: "System", name: str) -> "Contract | None":
    kind, dataset = kind_of(name)
    if kind not in ("data set", "rows set aside"):
        return None
    with system.store.read() as tx:
        text = contract_changes.text_in_force(tx, access.use_case_of(name), dataset)
    return None if text is None else _parsed(text, dataset)


@lru_cache(maxsize=256)
def _parsed(text: str, dataset: str) -> "Contract":
    return contract_changes.parsed(text, dataset)


def _model(contract: "Contract | None", kind: Kind, name: str) -> "Model | None":
    if contract is None or kind not in ("data set", "rows set aside"):
        return None
    return contract.model(kind_of(name)[1])


def _told(contract: "Contract", dataset: str) -> ContractLine:
    either = ("", contract.model(dataset).name)
    promises = [f"{e.column} is {contract_sla.told(e)}" for e in contract.freshness if e.table in either]
    promises += [contract_sla.told(e) for e in contract.frequency if e.table in either]
    promises += [
        f"rows are kept for {e.days:g} days from {e.column} on" for e in contract.retention if e.table in either
    ]
    if contract.completeness is not None:
        promises.append(f"at least {contract.completeness:.2%} of the rows that are read are accepted")
    return ContractLine(
        id=contract.id,
        version=contract.version,
        status=contract.status,
        digest=contract.digest,
        promises=tuple(promises),
        text=contract.data.decode(),
    )


def _quality(tx: "Transaction", use_case: str, dataset: str) -> list[Quality]:
    """The newest ingestions of a data set, newest first."""
    found = []
    for fact in tx.facts.list(use_case, "dataset", _ENTRIES):
        if fact.body["dataset"] != dataset:
            continue
        result = msgspec.convert(fact.body, IngestResult)
        found.append(
            Quality(
                digest=fact.digest,
                created=fact.created,
                version=result.table.version,
                read=result.read,
                accepted=result.accepted,
                rejected=result.rejected,
                broken=tuple((outcome.message, outcome.failed) for outcome in result.outcomes if outcome.failed),
            )
        )
    return found[:HISTORY]


# ------------------------------------------------------------------------------------------------------------ versions


def _versions(system: "System", principal: Principal, name: str) -> tuple[Written, ...]:
    """The newest versions, newest first, each with who made it and why."""
    changes = tables.history(system, principal, name, HISTORY)
    with system.store.read() as tx:
        people = {row.id: row.name for row in tx.principals.list()}
        made = _made(tx, system, name)
        about = _entries(tx, f"use_case/{access.use_case_of(name)}")
        erasures = [e for e in about if e.action in _ERASING and name in _payload(tx, e).get("rows", {})]
    found = []
    for change in changes:
        entry, why = made.get(change.version, (None, ""))
        if change.what == "erase" and entry is None:
            # An erasure is recorded once its versions are made: the first entry after this one is its own.
            entry = min((e for e in erasures if e.time >= change.time[:19]), key=lambda e: e.index, default=None)
            why = "" if entry is None else entry.action
        by = "" if entry is None else people.get(entry.actor, entry.actor)
        found.append(Written(change=change, by=by, why=why, entry=None if entry is None else entry.index))
    return tuple(found)


def _made(tx: "Transaction", system: "System", name: str) -> "dict[int, tuple[Entry, str]]":
    """By version, the entry of the ledger that says how it came to be, and in words why."""
    found: dict[int, tuple[Entry, str]] = {}
    for entry in _entries(tx, f"use_case/{access.use_case_of(name)}"):
        if entry.action not in ("flow.ingest", "flow.features"):
            continue
        for version in _made_by_flow(tx, _payload(tx, entry).get("output"), entry.action):
            if version.name == name:
                found.setdefault(version.version, (entry, f"stage {entry.action.removeprefix('flow.')} of a run"))
    for entry in _entries(tx, f"table/{name}"):
        told = _payload(tx, entry)
        if isinstance(told.get("version"), int):
            found[told["version"]] = (entry, entry.action.removeprefix("table."))
    return found


def _made_by_flow(tx: "Transaction", output: Any, action: str) -> list[TableVersion]:
    fact = tx.facts.find(Digest(output)) if isinstance(output, str) else None
    if fact is None:
        return []
    if action == "flow.features":
        return [*msgspec.convert(fact.body, FeatureSet).views.values()]
    came_in = [msgspec.convert(tx.facts.get(d).body, IngestResult) for d in fact.body.get("datasets", {}).values()]
    return [each for one in came_in for each in (one.table, one.quarantine) if each is not None]


def _entries(tx: "Transaction", resource: str) -> list[Entry]:
    return [msgspec.json.decode(row.entry, type=Entry) for row in tx.ledger.recent(_ENTRIES, resource=resource)]


def _payload(tx: "Transaction", entry: Entry) -> dict[str, Any]:
    kept = tx.ledger.payload(entry.index)
    return {} if kept is None else msgspec.json.decode(kept[1], type=dict[str, Any])


# -------------------------------------------------------------------------------------------------------- who may see


def _may_ask_about_others(system: "System", principal: Principal) -> bool:
    return system.policies.decide(policy_principal(principal), "administer", policy.HOME, {}).allowed


def _others(system: "System") -> list[policy.Principal]:
    with system.store.read() as tx:
        return [policy_principal(row) for row in tx.principals.list() if row.disabled is None]


def _everybody(system: "System", people: "Sequence[policy.Principal]", version: TableVersion) -> tuple[Seen, ...]:
    """Who sees what of a version: those together who see the same for the same reasons, the most first."""
    groups: dict[bytes, list[AccessView]] = {}
    for somebody in people:
        view = tables.seen(system, somebody, version)
        groups.setdefault(msgspec.json.encode(msgspec.structs.replace(view, who="")), []).append(view)
    found = [Seen(people=tuple(view.who for view in alike), view=alike[0]) for alike in groups.values()]
    return tuple(sorted(found, key=lambda each: (not each.view.allowed, -len(each.people))))


def names(system: "System", principal: Principal) -> Sequence[str]:
    """The names of the tables that somebody may know of."""
    return [version.name for version in tables.visible(system, principal)]


def people(system: "System") -> Sequence[str]:
    """Who can come in, and the flow."""
    return [policy.FLOW.name, *(somebody.name for somebody in _others(system))]
