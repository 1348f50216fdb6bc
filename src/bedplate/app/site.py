"""What API and pages ask of the owner's process: who somebody is, what they may see, and the changes they make.

A change goes the way of every command: it is carried out by the owner's operation of that name, which authenticates the
same token, asks policy with all it knows about the resource, and records both in the ledger.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bedplate.app import access, queries, tables, workspaces
from bedplate.app.queries import Live
from bedplate.app.read_models import UseCaseStatus
from bedplate.errors import InternalError
from bedplate.http import ResourceRef
from bedplate.identity import Principal, policy_principal
from bedplate.ids import Digest
from bedplate.policy import values as policy
from bedplate.policy.values import Decision, Resource
from bedplate.records import Event, Fact

if TYPE_CHECKING:
    from bedplate.app.system import System

CarryOut = Callable[[str, dict[str, Any], str, Callable[[Event], None]], Any]

LEFT_TO_THE_OPERATION = ("approve", "waive", "release")
"""Actions on a bundle: whether they are allowed depends on its gates and approvers, which the operation looks up."""


def _quiet(event: Event) -> None:
    """Show no progress."""


class Site:
    """One home as its API and pages see it. Made by the owner's process, handed to the control plane."""

    def __init__(self, system: "System", carry_out: CarryOut, live: Callable[[], Live] = dict) -> None:
        self.system = system
        self.store = system.store
        self.settings = system.settings
        self.appends = system.appends
        self.models = system.models
        self.artifacts = system.artifacts
        self.uploads = system.uploads
        self.tickets = system.tickets
        self.live = live
        self._carry_out = carry_out

    def authenticate(self, token: str) -> Principal:
        """Whose key or session this is.

        Raises:
            AuthenticationError: nobody's.
        """
        return self.system.identity.authenticate(token)

    def authorise(self, principal: Principal, action: str, reference: ResourceRef) -> Decision:
        """Whether the principal may; a denial is an entry of the ledger.

        Raises:
            DeniedError: policy does not allow it.
            NotFoundError: it is a workspace that is not there, and the principal may know that.
        """
        asked = "read" if action in LEFT_TO_THE_OPERATION else action
        if reference.type == "Workspace":
            return workspaces.demand(self.system, principal, asked, reference.id)
        return access.demand(self.system, principal, asked, self._resource(reference))

    def allows(self, principal: Principal, action: str, reference: ResourceRef) -> bool:
        """Whether the principal may: for what a page offers, never as the guard of what it does."""
        is_workspace = reference.type == "Workspace"
        known = self.system.workspaces.resource(reference.id) if is_workspace else self._resource(reference)
        who = policy_principal(principal)
        return known is not None and self.system.policies.decide(who, action, known).allowed

    def redeem(self, link: str) -> str:
        """Use a login link up; returns the token of the session it began.

        Raises:
            AuthenticationError: it is unknown, expired or used.
        """
        return self.system.identity.redeem_link(link)

    def sign_out(self, principal: Principal) -> None:
        """End the session that the principal came with."""
        if principal.auth == "session":
            self.system.identity.end_session(principal.credential, actor=principal.id)

    def change(self, operation: str, token: str, **arguments: Any) -> Any:
        """Carry out an operation for the holder of ``token``.

        Raises:
            BedplateError: whatever the operation raises.
        """
        return self._carry_out(operation, arguments, token, _quiet)

    def workspaces(self, principal: Principal) -> tuple[str, ...]:
        """The workspaces that the principal may read, by name."""
        with self.store.read() as tx:
            names = [row.name for row in tx.workspaces.list()]
        return tuple(name for name in names if self.allows(principal, "read", ResourceRef("Workspace", name)))

    def evidence(self, principal: Principal, digest: Digest) -> Fact:
        """One fact, to whom its use case and all rows that it counts are open.

        Raises:
            DeniedError: they are not.
            NotFoundError: there is no such fact.
        """
        found = queries.fact(self.store, digest)
        self.authorise(principal, "read", ResourceRef("UseCase", found.use_case))
        queries.counted(self.store, found, principal)
        return found

    def visible(self, principal: Principal) -> tuple[UseCaseStatus, ...]:
        """The use cases that the principal may read: a list shows no more than its items would."""
        rows = queries.use_cases(self.store)
        return tuple(row for row in rows if self.allows(principal, "read", ResourceRef("UseCase", row.name)))

    def _resource(self, reference: ResourceRef) -> Resource:
        if reference.type == "Table":
            return tables.resource(self.system, reference.id)
        if reference.type == "UseCase":
            return policy.use_case(reference.id)
        if reference.type == "Endpoint":  # it has the name of its use case
            return policy.endpoint(reference.id, use_case=reference.id)
        if reference.type == "Ledger":
            return policy.LEDGER
        if reference.type == "Home":
            return policy.HOME
        raise InternalError(f"a route is about a {reference.type}, and nobody here knows what decides about it")
