"""Who may do what, asked in one place: the flow's own rights, governed reads, and the ledger entry of every read."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bedplate import identifiers
from bedplate.app import residency, row_access
from bedplate.errors import DeniedError, InputError
from bedplate.identity import Principal, policy_principal
from bedplate.ids import Digest
from bedplate.policy import derived
from bedplate.policy import values as policy
from bedplate.policy.values import Decision, Resource
from bedplate.records import FeatureSet, Governance, TableVersion, ViewRecord
from bedplate.serve.state import AS_OF, SEEN
from bedplate.store import Transaction, facts
from bedplate.usecase import Loaded
from bedplate.usecase.types import UseCase

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.data.masks import Masks
    from bedplate.data.reads import Protection, Reader, ReadRecord
    from bedplate.policy.policies import InForce, Policies

GOVERNANCE = "governance"
"""The kind of the fact that says what rows of a use case are for."""
LOGGED = ("inputs", "features", "outputs")
"""The columns of a logged prediction that hold values by name, as JSON."""


def use_case_resource(use_case: UseCase) -> Resource:
    """A use case, as policy knows it."""
    return policy.use_case(
        use_case.name, purpose=use_case.governance.purpose, risk=use_case.risk.level, team=use_case.owner.team
    )


def table_name(use_case: str, *parts: str) -> str:
    """The name of a table of a use case."""
    return "/".join((use_case, *parts))


def demand(system: "System", principal: Principal, action: str, resource: Resource, **context: object) -> Decision:
    """What policy says; a denial is recorded and raised.

    Raises:
        DeniedError: it does not allow it.
    """
    asked = {key: value for key, value in context.items() if value is not None}
    decision = system.policies.decide(policy_principal(principal), action, resource, asked)
    if not decision.allowed:
        with system.store.transaction() as tx:
            system.ledger.record(
                tx,
                actor=principal.id,
                action=action,
                resource=f"{resource.kind.lower()}/{resource.id}",
                decision="deny",
                payload={"reasons": list(decision.reasons)},
                auth=principal.auth,
                policies=decision.policies,
            )
        raise DeniedError(
            f"{principal.name} may not {action} {_called(resource)}: {'; '.join(decision.reasons)}",
            fix="ask an administrator for the right",
        )
    return decision


def _called(resource: Resource) -> str:
    words = {"Home": "the home", "Ledger": "the ledger", "UseCase": f"use case {resource.id}"}
    return words.get(resource.kind, f"{resource.kind.lower()} {resource.id}")


def governance_of(loaded: Loaded) -> Governance:
    """What the file, and the row policies that it names, say about the use of its rows.

    Raises:
        ContractError, InputError: a contract or a file of row policies cannot be read.
    """
    said = loaded.use_case.governance
    return Governance(
        purpose=said.purpose,
        sensitive=said.sensitive,
        rows=row_access.read(loaded),
        masks=said.masks,
        tagged=_tagged(loaded),
        privacy_budget=said.privacy_budget,
        residency=loaded.use_case.requirements.residency,
    )


def _tagged(loaded: Loaded) -> dict[str, tuple[str, ...]]:
    """The tags, of those that the file has masks for, that any of its contracts puts on a column, by column."""
    from bedplate.data import contracts

    masks, found = loaded.use_case.governance.masks, dict[str, set[str]]()
    for data in loaded.use_case.data.values() if masks else ():
        for model in contracts.load(loaded.folder / data.contract).models:
            for column in model.columns:
                if tags := masks.keys() & set(column.marks):
                    found.setdefault(column.name, set()).update(tags)
    return {name: tuple(sorted(tags)) for name, tags in sorted(found.items())}


def governance_digest(loaded: Loaded) -> Digest:
    """The digest of the fact that says it. Raises as :func:`governance_of`."""
    return facts.digest_of(GOVERNANCE, loaded.use_case.name, (), msgspec.to_builtins(governance_of(loaded)))


def governance(tx: Transaction, use_case: str) -> Governance:
    """What the file said about the use of its rows when it was last checked.

    Raises:
        InputError: it was never checked, or by a version of Bedplate that did not write this down.
    """
    checked = tx.stages.latest(use_case, "check")
    digest = checked.inputs.get(GOVERNANCE) if checked is not None else None
    if digest is None:
        raise InputError(f"what the rows of {use_case} are for is not known yet", fix="run the use case")
    return msgspec.convert(tx.facts.get(Digest(digest)).body, Governance)


def residency_of(tx: Transaction, use_case: str) -> tuple[str, ...]:
    """Where rows of a use case have to stay, by its last check; nowhere in particular where it never was checked."""
    try:
        return governance(tx, use_case).residency
    except InputError:
        return ()  # nothing of it was taken in


def kept_in(tx: Transaction, use_case: str, principal: Principal) -> tuple[str, ...]:
    """The data sets whose rows may not be counted for somebody: row policies keep some of them in."""
    try:
        governed = governance(tx, use_case)
    except InputError:
        return ()  # nothing of it was taken in
    return row_access.keeps_in(governed, policy_principal(principal))


def table_resource(name: str, use_case: str, governance: Governance) -> Resource:
    """A table of a use case, as policy knows it."""
    return derived.resource_of(name, use_case, governance)


def predictions_table(use_case: str) -> str:
    """The table that predictions of a use case are shipped to."""
    return table_name(use_case, "predictions")


def use_case_of(table: str) -> str:
    """The use case that a table belongs to: how its name begins."""
    return re.split(r"[./]", table, maxsplit=1)[0]


def reader(system: "System", use_case: UseCase) -> "Reader":
    """The flow's governed reads of the tables of its use case, for the purpose that the file named when checked."""
    with system.store.read() as tx:
        governed = governance(tx, use_case.name)
    return reader_for(system, use_case.name, governed, policy.FLOW)


def reader_for(
    system: "System",
    use_case: str,
    governance: Governance,
    principal: policy.Principal,
    purpose: str | None = None,
    policies: "Policies | InForce | None" = None,
) -> "Reader":
    """Governed reads of the tables of a use case, for its own purpose unless another one is given.

    Each scan, allowed or denied, is one ledger entry. Sensitive columns are null for whoever may not unmask them,
    columns that bear a tag are masked as the file says for the tag, and both are null inside a logged prediction. What
    noise hides is paid for from the privacy budget; once that is spent, the read is denied. Row policies keep rows in:
    see :mod:`.row_access`. Nothing goes out in a home that lies outside of the residency which the use case asks for:
    see :mod:`.residency`. A table of another use case is denied. ``policies`` decide in the place of those in force.
    """
    from bedplate.data.reads import Protection, Reader

    chosen = governance.purpose if purpose is None else purpose

    def on_read(record: "ReadRecord") -> None:
        spent = "the privacy budget for this purpose is spent"
        with system.store.transaction() as tx:
            affordable = not record.privacy or tx.privacy.spend(
                use_case, record.principal, record.purpose, record.privacy, budget=governance.privacy_budget
            )
            system.ledger.record(
                tx,
                actor=record.principal,
                action="table.read",
                resource=f"table/{record.table.name}@{record.table.version}",
                decision="allow" if record.allowed and affordable else "deny",
                payload={
                    "columns": list(record.columns),
                    "reasons": [*record.reasons, *(() if affordable else (spent,))],
                    **({"privacy": record.privacy} if record.privacy else {}),
                    "table": record.table.digest,
                    "masks": msgspec.to_builtins(record.masks),
                    "row policies": list(record.row_policies),
                },
                policies=record.policies,
                purpose=record.purpose,
            )
        if not affordable:
            raise DeniedError(
                f"{principal.name} may not read table {record.table.name} for purpose {record.purpose!r}: {spent}",
                where=record.table.name,
                fix="leave out the columns that noise hides, or raise governance.privacy_budget",
            )

    def protection_of(who: policy.Principal, version: TableVersion) -> "Protection":
        if use_case_of(version.name) != use_case:
            return Protection(withheld=f"it is no table of {use_case}, whose rules this read goes by")
        refused = residency.withheld(system.settings, governance)
        if refused is not None:
            return Protection(withheld=refused.reason, fix=refused.fix)
        columns = system.tables.schema(version)
        rows, withheld = row_access.of(use_case, governance, who, chosen, version.name, columns)
        masks = _masks(use_case, governance, version, columns.names)
        if use_case_of(version.name) == use_case and (view := _view_of(system, use_case, version.name)) is not None:
            told = [name for name in columns.names if name not in (*view.entity, AS_OF, SEEN)]
            masks = masks.also(told if _tells(view, who) else ())
        return Protection(rows=rows, withheld=withheld, masks=masks)

    def _tells(view: ViewRecord, who: policy.Principal) -> bool:
        resource = table_resource(use_case, use_case, governance)
        force = system.policies if policies is None else policies
        return any(derived.hides(force, who, resource, chosen, governance, name) for name in view.rests_on)

    return Reader(
        system.tables,
        system.policies if policies is None else policies,
        principal,
        chosen,
        on_read,
        resource_of=lambda name: table_resource(name, use_case, governance),
        protection_of=protection_of,
        mask_key=mask_key(system, use_case),
        now=None if principal == policy.FLOW else lambda: _at_the_moment(system, principal),
    )


def _view_of(system: "System", use_case: str, table: str) -> ViewRecord | None:
    """What is written of the feature view whose table this is; None for any other table."""
    parts = table.split("/")
    if len(parts) != 3 or parts[1] not in ("features", "replay"):
        return None
    with system.store.read() as tx:
        made = tx.facts.latest(use_case, "features")
    return None if made is None else msgspec.convert(made.body, FeatureSet).declared.get(parts[2])


def _at_the_moment(system: "System", principal: policy.Principal) -> policy.Principal | None:
    """Somebody with the groups that they are in now; None once they are shut out."""
    with system.store.read() as tx:
        row = tx.principals.get(principal.id)
    return None if row.disabled is not None else policy_principal(row)


def _masks(use_case: str, governance: Governance, version: TableVersion, columns: list[str]) -> "Masks":
    """The masks on the columns of this version that the use case calls sensitive, or that bear a tag, by name."""
    from bedplate.data.masks import Mask, Masks

    bearing = {tag: tuple(name for name, tags in governance.tagged.items() if tag in tags) for tag in governance.masks}

    def within(names: tuple[str, ...], mask: Mask) -> dict[str, list[Mask]]:
        if not names:
            return {}
        found = {name: [mask] for name in names if name in columns}
        if "_text" in columns:  # a line that is no row, as it stood: nobody can tell what is in it
            found["_text"] = [Mask(kind="null")]
        if version.name == predictions_table(use_case):
            found |= {name: [Mask(kind="redact", members=names)] for name in LOGGED if name in columns}
        return found

    return Masks(
        columns=within(governance.sensitive, Mask(kind="null")),
        tags={tag: within(names, Mask.of(governance.masks[tag])) for tag, names in bearing.items()},
    )


def mask_key(system: "System", use_case: str) -> bytes:
    """What keys the codes of this use case: its own, so that codes of two use cases cannot be joined."""
    return identifiers.key_of(secret_of(system), use_case)


def secret_of(system: "System") -> Path:
    """The file that the keys of codes are derived from."""
    return system.home.keys / "masks.key"
