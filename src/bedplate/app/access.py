"""Who may do what, asked in one place: the flow's own rights, governed reads, and the ledger entry of every read."""

from typing import TYPE_CHECKING

import msgspec

from bedplate.errors import DeniedError
from bedplate.identity import Principal, policy_principal
from bedplate.policy import values as policy
from bedplate.policy.values import Decision, Resource
from bedplate.usecase.types import UseCase

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.data.reads import Reader, ReadRecord


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


def reader(
    system: "System", use_case: UseCase, principal: policy.Principal = policy.FLOW, purpose: str | None = None
) -> "Reader":
    """Governed reads of the tables of a use case; each scan, allowed or denied, is one ledger entry."""
    from bedplate.data.reads import Reader

    def resource_of(name: str) -> Resource:
        return policy.table(
            name,
            use_case=use_case.name,
            purposes=(use_case.governance.purpose,),
            sensitive=bool(use_case.governance.sensitive),
        )

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
        use_case.governance.purpose if purpose is None else purpose,
        on_read,
        resource_of=resource_of,
    )
