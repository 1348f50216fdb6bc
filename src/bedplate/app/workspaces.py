"""Workspaces: what experiments, models and artifacts belong to, and who may see and change which.

Policy decides about a workspace as about any other resource: *shared* ones are open to whoever has rights in the home,
the others to administrators and to the groups that they name. A stranger cannot tell one that is closed from one that
is not there.
"""

import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from bedplate.app import access
from bedplate.app.people_models import Workspace
from bedplate.errors import InputError, NotFoundError
from bedplate.identity import Principal, group_names, policy_principal
from bedplate.policy import values as policy
from bedplate.policy.policies import Policies
from bedplate.policy.values import Decision, Resource
from bedplate.store import Store, Transaction
from bedplate.store.workspaces import DEFAULT, WorkspaceRow

if TYPE_CHECKING:
    from bedplate.app.system import System

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])")
_RESERVED = ("api", "ajax-api", "static-files", "workspaces")
"""Names that MLflow keeps for its addresses."""
_LONGEST = 5000
_MOST_REMEMBERED = 4096


class Known:
    """Every workspace as policy knows it, remembered until one changes: a home has one owner, who sees each change.

    ``allowed`` is for :func:`demand`: what was allowed about a workspace, good as long as it and the policies are the
    same objects. Clients log a thousand times a second, and each call asks.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._changes = 0
        self._known: dict[str, Resource] | None = None
        self.allowed: dict[tuple[str, tuple[str, ...], str, str], tuple[Resource, Policies, Decision]] = {}

    def resource(self, name: str) -> Resource | None:
        """The workspace of this name; None if there is none."""
        known = self._known
        return (self._read() if known is None else known).get(name)

    def forget(self) -> None:
        """Look again at the next request: something changed."""
        with self._lock:
            self._changes += 1
            self._known = None

    def _read(self) -> dict[str, Resource]:
        changes = self._changes
        with self._store.read() as tx:
            found = {row.name: resource_of(row) for row in tx.workspaces.list()}
        with self._lock:
            if changes == self._changes:  # else this may be what there was before
                self._known = found
        return found


def resource_of(row: WorkspaceRow) -> Resource:
    """A workspace as policy knows it."""
    return policy.workspace(row.name, shared=row.shared, readers=row.readers, writers=row.writers)


def demand(system: "System", principal: Principal, action: str, name: str) -> Decision:
    """What policy says about an action in a workspace; one that is not there is decided about as if it were closed.

    Raises:
        DeniedError: policy does not allow it. The same for a workspace that is closed and for one that is not there.
        InputError: no workspace can have this name.
        NotFoundError: it would be allowed, but there is no such workspace.
    """
    found, policies, allowed = system.workspaces.resource(name), system.policies.now, system.workspaces.allowed
    asked = (principal.id, principal.groups, action, name)
    known = allowed.get(asked)
    if known is not None and known[0] is found and known[1] is policies:
        return known[2]
    decision = access.demand(system, principal, action, found or policy.workspace(name, shared=False))
    if found is None:
        check_name(name)
        raise NotFoundError(f"no workspace {name}", fix="see: bedplate workspace list")
    if len(allowed) >= _MOST_REMEMBERED:
        allowed.clear()
    if policies is system.policies.now:  # else this may have been decided by the ones before
        allowed[asked] = (found, policies, decision)
    return decision


def check_name(name: str) -> None:
    """Accept the name of a workspace: MLflow's rule, which is that of a Kubernetes namespace.

    Raises:
        InputError: it cannot name one.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise InputError(
            f"{name[:80]!r} cannot name a workspace",
            where="workspace",
            fix=f"use 2 to 63 of a-z, 0-9 and - between them; {', '.join(_RESERVED)} are taken",
        )


# --------------------------------------------------------------------------------------------------------- operations


def visible(system: "System", principal: Principal) -> tuple[Workspace, ...]:
    """The workspaces that the principal may read, by name: a list shows no more than its items would."""
    with system.store.read() as tx:
        rows = tx.workspaces.list()
    who = policy_principal(principal)
    return tuple(_shown(row) for row in rows if system.policies.decide(who, "read", resource_of(row)).allowed)


def get(system: "System", principal: Principal, name: str) -> Workspace:
    """One workspace.

    Raises:
        DeniedError, InputError, NotFoundError: as :func:`demand`.
    """
    demand(system, principal, "read", name)
    with system.store.read() as tx:
        return _shown(tx.workspaces.get(name))


def create(
    system: "System",
    principal: Principal,
    name: str,
    *,
    description: str = "",
    shared: bool = False,
    readers: Sequence[str] = (),
    writers: Sequence[str] = (),
) -> Workspace:
    """Make a workspace, closed unless ``shared``.

    Raises:
        ConflictError: there is one of this name.
        DeniedError: policy does not let this person administer the home.
        InputError: the name, the description or a group cannot be used.
    """
    decision = access.demand(system, principal, "administer", policy.HOME)
    if name == DEFAULT:
        raise InputError(f"the workspace {DEFAULT} is always there", where="workspace", fix="choose another name")
    check_name(name)
    wanted = _checked(description, readers, writers)
    with system.store.transaction() as tx:
        row = tx.workspaces.add(name, wanted[0], shared=shared, readers=wanted[1], writers=wanted[2])
        _record(system, tx, principal, "create", row, decision)
    return _shown(row)


def update(
    system: "System",
    principal: Principal,
    name: str,
    *,
    description: str | None = None,
    shared: bool | None = None,
    readers: Sequence[str] | None = None,
    writers: Sequence[str] | None = None,
) -> Workspace:
    """Change what is given and leave the rest.

    Raises:
        DeniedError, NotFoundError: as :func:`demand`, for ``administer``.
        InputError: nothing is given, or something that cannot be used.
    """
    decision = demand(system, principal, "administer", name)
    if description is None and shared is None and readers is None and writers is None:
        raise InputError("there is nothing to change", where="workspace", fix="give at least one thing")
    with system.store.transaction() as tx:
        row = tx.workspaces.get(name)
        checked = _checked(
            row.description if description is None else description,
            row.readers if readers is None else readers,
            row.writers if writers is None else writers,
        )
        row = msgspec.structs.replace(
            row,
            description=checked[0],
            shared=row.shared if shared is None else shared,
            readers=checked[1],
            writers=checked[2],
        )
        tx.workspaces.change(row)
        _record(system, tx, principal, "update", row, decision)
    return _shown(row)


def delete(system: "System", principal: Principal, name: str) -> Workspace:
    """Delete an empty workspace.

    Raises:
        DeniedError, NotFoundError: as :func:`demand`, for ``administer``.
        InputError: it is the one that is always there.
        StateError: something belongs to it.
    """
    decision = demand(system, principal, "administer", name)
    if name == DEFAULT:
        raise InputError(f"the workspace {DEFAULT} is always there", where="workspace", fix="name another one")
    with system.store.transaction() as tx:
        tx.ledger.head(lock=True)  # what others put into it was committed before, or finds it gone
        row = tx.workspaces.get(name)
        tx.workspaces.delete(name)
        _record(system, tx, principal, "delete", row, decision)
    return _shown(row)


def _checked(
    description: str, readers: Sequence[str], writers: Sequence[str]
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    if len(description) > _LONGEST or "\x00" in description:
        raise InputError(
            "the description cannot be kept", where="description", fix=f"use at most {_LONGEST} characters of text"
        )
    return description, group_names(readers), group_names(writers)


def _record(
    system: "System", tx: Transaction, principal: Principal, change: str, row: WorkspaceRow, decision: Decision
) -> None:
    system.ledger.record(
        tx,
        actor=principal.id,
        action=f"workspace.{change}",
        resource=f"workspace/{row.name}",
        payload={
            "description": row.description,
            "shared": row.shared,
            "readers": list(row.readers),
            "writers": list(row.writers),
        },
        auth=principal.auth,
        policies=decision.policies,
    )
    tx.after_commit(system.workspaces.forget)


def _shown(row: WorkspaceRow) -> Workspace:
    return msgspec.convert(row, Workspace, from_attributes=True)
