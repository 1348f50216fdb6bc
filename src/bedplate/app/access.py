"""Who may do what, asked in one place: the flow's own rights, governed reads, and the ledger entry of every read."""

from typing import TYPE_CHECKING

import msgspec

from bedplate.errors import DeniedError, InputError
from bedplate.identity import Principal, policy_principal
from bedplate.ids import Digest
from bedplate.policy import values as policy
from bedplate.policy.values import Decision, Resource
from bedplate.records import Governance, TableVersion
from bedplate.store import Transaction, facts
from bedplate.usecase.types import UseCase

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.data.reads import Protection, Reader, ReadRecord

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
            f"{principal.name} may not {action} {resource.kind.lower()} {resource.id}: {'; '.join(decision.reasons)}",
            fix="ask an administrator for the right",
        )
    return decision


def governance_of(use_case: UseCase) -> Governance:
    """What the file says about the use of its rows."""
    return Governance(purpose=use_case.governance.purpose, sensitive=use_case.governance.sensitive)


def governance_digest(use_case: UseCase) -> Digest:
    """The digest of the fact that says it."""
    return facts.digest_of(GOVERNANCE, use_case.name, (), msgspec.to_builtins(governance_of(use_case)))


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


def table_resource(name: str, use_case: str, governance: Governance) -> Resource:
    """A table of a use case, as policy knows it."""
    return policy.table(name, use_case=use_case, purposes=(governance.purpose,), sensitive=bool(governance.sensitive))


def predictions_table(use_case: str) -> str:
    """The table that predictions of a use case are shipped to."""
    return table_name(use_case, "predictions")


def reader(system: "System", use_case: UseCase) -> "Reader":
    """The flow's governed reads of the tables of its use case, for the purpose that the file names."""
    return reader_for(system, use_case.name, governance_of(use_case), policy.FLOW)


def reader_for(
    system: "System",
    use_case: str,
    governance: Governance,
    principal: policy.Principal,
    purpose: str | None = None,
) -> "Reader":
    """Governed reads of the tables of a use case, for its own purpose unless another one is given.

    Each scan, allowed or denied, is one ledger entry. Sensitive columns are null for whoever may not unmask them, and
    so are the values of that name inside a logged prediction.
    """
    from bedplate.data.reads import Reader

    def on_read(record: "ReadRecord") -> None:
        with system.store.transaction() as tx:
            system.ledger.record(
                tx,
                actor=record.principal,
                action="table.read",
                resource=f"table/{record.table.name}@{record.table.version}",
                decision="allow" if record.allowed else "deny",
                payload={
                    "columns": list(record.columns),
                    "reasons": list(record.reasons),
                    "table": record.table.digest,
                    "masks": msgspec.to_builtins(record.masks),
                    "row policies": list(record.row_policies),
                },
                policies=record.policies,
                purpose=record.purpose,
            )

    return Reader(
        system.tables,
        system.policies,
        principal,
        governance.purpose if purpose is None else purpose,
        on_read,
        resource_of=lambda name: table_resource(name, use_case, governance),
        protection_of=lambda version: _protection(system, use_case, governance, version),
    )


def _protection(system: "System", use_case: str, governance: Governance, version: TableVersion) -> "Protection":
    """The masks on the columns of this version that the use case calls sensitive, by name."""
    from bedplate.data.masks import Mask, Masks
    from bedplate.data.reads import Protection

    if not governance.sensitive:
        return Protection()
    columns = system.tables.schema(version).names
    # A line of a source that is no row was set aside as it stood, in ``_text``: nobody can tell what is in it.
    masks = {name: [Mask(kind="null")] for name in (*governance.sensitive, "_text") if name in columns}
    if version.name == predictions_table(use_case):
        masks |= {name: [Mask(kind="redact", members=governance.sensitive)] for name in LOGGED if name in columns}
    return Protection(masks=Masks(columns=masks))
