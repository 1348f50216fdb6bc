"""Users, services and their keys: what an administrator does so that a team can use one home.

Every change is one entry of the ledger, and replicas know of it before it is committed.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bedplate import clock
from bedplate.app import access, decisions, endpoints, row_access
from bedplate.app.people_models import Key, NewKey, User
from bedplate.errors import BedplateError, ConflictError, InputError, NotFoundError
from bedplate.identity import ADMIN_KEY, By, Principal
from bedplate.policy import values as policy
from bedplate.policy.values import Decision
from bedplate.release.checks import APPROVERS
from bedplate.store import Transaction
from bedplate.store.principals import CredentialRow, PrincipalRow
from bedplate.usecase import approvals as quorums
from bedplate.usecase import load, quantities

if TYPE_CHECKING:
    from bedplate.app.system import System

_LONGEST = timedelta(days=3650)
_GROUP = re.compile(r'\bGroup\s*::\s*"([^"]*)"')
"""A group as a policy of Cedar names it."""


def add(
    system: "System", principal: Principal, name: str, *, service: bool = False, groups: Sequence[str] = ()
) -> User:
    """Add a user, or a service, which acts by itself and never approves outside ``dev``.

    Raises:
        ConflictError: the name is taken.
        DeniedError: policy does not let this person administer the home.
        InputError: the name or a group cannot be used.
    """
    decision = _demand(system, principal)
    row = system.identity.add_principal("service" if service else "user", name, groups, **_by(principal, decision))
    return _user(row, (), _unnamed(system, row.groups))


def listed(system: "System", principal: Principal) -> tuple[User, ...]:
    """Everybody who can or could come in, by name.

    Raises:
        DeniedError: as :func:`add`.
    """
    _demand(system, principal)
    with system.store.read() as tx:
        keys = tx.keys.list()
        return tuple(_user(row, [key for key in keys if key.principal == row.id]) for row in tx.principals.list())


def set_groups(system: "System", principal: Principal, name: str, groups: Sequence[str]) -> User:
    """Put somebody into exactly these groups, from the next request on.

    Raises:
        ConflictError: the local administrator would not be an administrator any more.
        DeniedError, InputError: as :func:`add`.
        NotFoundError: there is nobody of this name.
        StateError: nobody could administer the home afterwards.
    """
    decision = _demand(system, principal)
    with system.store.read() as tx:
        row = _named(tx, name)
        keys = tx.keys.of(row.id)
    row = system.identity.set_groups(row.id, groups, **_by(principal, decision))
    return _user(row, keys, _unnamed(system, row.groups))


def disable(system: "System", principal: Principal, name: str) -> User:
    """Shut somebody out, with every key and session, from the next request on. The name stays taken.

    Raises:
        ConflictError: it is the local administrator, or somebody who is shut out already.
        DeniedError, NotFoundError, StateError: as :func:`set_groups`.
    """
    decision = _demand(system, principal)
    with system.store.read() as tx:
        row = _named(tx, name)
        keys = tx.keys.of(row.id)
    if row.disabled is not None:
        raise ConflictError(f"{name} is shut out already", where="user", fix="see: bedplate user list")
    return _user(system.identity.disable(row.id, **_by(principal, decision)), keys)


def create_key(
    system: "System", principal: Principal, name: str, *, label: str = "", expires: str | None = None
) -> NewKey:
    """Make a key for somebody. Its text is in the answer and nowhere else. ``expires`` is a time such as ``90 d``.

    Raises:
        ConflictError: they are shut out.
        DeniedError, NotFoundError: as :func:`set_groups`.
        InputError: the label or the time cannot be used.
    """
    decision, lifetime = _demand(system, principal), None if expires is None else _lifetime(expires)
    with system.store.read() as tx:
        row = _named(tx, name)
    made = system.identity.create_key(row.id, label=label, lifetime=lifetime, **_by(principal, decision))
    with system.store.read() as tx:
        (kept,) = (key for key in tx.keys.of(row.id) if key.id == made.split("_", 2)[1])
    return NewKey(id=kept.id, user=name, label=label, created=kept.created, expires=kept.expires, key=made)


def keys(system: "System", principal: Principal, name: str | None = None) -> tuple[Key, ...]:
    """The keys of somebody, or of everybody: what is public about them.

    Raises:
        DeniedError, NotFoundError: as :func:`set_groups`.
    """
    _demand(system, principal)
    with system.store.read() as tx:
        rows = [_named(tx, name)] if name is not None else tx.principals.list()
        names = {row.id: row.name for row in rows}
        return tuple(_key(key, names[key.principal]) for key in tx.keys.list() if key.principal in names)


def revoke_key(system: "System", principal: Principal, key: str) -> Key:
    """End a key, from the next request on. That of the local administrator is replaced at once, in its file.

    Raises:
        DeniedError: as :func:`add`.
        NotFoundError: there is no such key in force.
        StateError: nobody could administer the home afterwards.
    """
    decision = _demand(system, principal)
    system.identity.revoke_key(key, **_by(principal, decision))
    with system.store.read() as tx:
        kept = tx.keys.get(key)
        assert kept is not None, "it was revoked just now"
        owner = tx.principals.get(kept.principal)
    if kept.label == ADMIN_KEY and owner.name == system.identity.authenticate(_renewed(system)).name:
        endpoints.publish_access(system)
    return _key(kept, owner.name)


def _renewed(system: "System") -> str:
    system.token = system.identity.administrator_key()
    return system.token


def _demand(system: "System", principal: Principal) -> Decision:
    return access.demand(system, principal, "administer", policy.HOME)


def _by(principal: Principal, decision: Decision) -> By:
    return By(actor=principal.id, auth=principal.auth, policies=decision.policies)


def _named(tx: Transaction, name: str) -> PrincipalRow:
    row = tx.principals.named(name)
    if row is None:
        raise NotFoundError(f"no user or service {name!r}", fix="see: bedplate user list, or add it: bedplate user add")
    return row


def _lifetime(text: str) -> timedelta:
    try:
        seconds = quantities.parse(text, "duration")
    except quantities.QuantityError as error:
        meant = f"; did you mean {error.suggestion}?" if error.suggestion else ""
        raise InputError(f"{error}", where="expires", fix=f"give {error.allowed}{meant}") from error
    if not 1 <= seconds <= _LONGEST.total_seconds():
        raise InputError(
            f"{text!r} is no lifetime of a key", where="expires", fix=f"give 1 s to {_LONGEST.days} d, or none"
        )
    return timedelta(seconds=seconds)


def _unnamed(system: "System", groups: Sequence[str]) -> tuple[str, ...]:
    """Those of ``groups`` that nothing names: most often a slip of the pen, and never an error, as rules come later."""
    if not groups:
        return ()
    texts, named = [system.policies.now.text], set[str]()
    with system.store.read() as tx:
        for workspace in tx.workspaces.list():
            named.update(workspace.readers, workspace.writers)
        named.update(*(quorums.parse(rule).of for rule in tx.models.tagged(APPROVERS)))
        named.update(quota.holder for quota in tx.quotas.list() if quota.kind == "group")
        files = [Path(row.folder) / row.file for row in tx.use_cases.list()]
    for file in files:
        try:
            loaded = load(file, check_files=False)
            texts += [rule.text for rule in row_access.read(loaded).values()]
        except BedplateError:  # somebody is at work on it; whoever runs it is told what is wrong
            continue
        for environment in loaded.use_case.release.approvals:
            named.update(decisions.approvers(loaded.use_case, environment))
    named.update(name for text in texts for name in _GROUP.findall(text))
    return tuple(group for group in groups if group not in named)


def _user(row: PrincipalRow, keys: Sequence[CredentialRow], unnamed: tuple[str, ...] = ()) -> User:
    return User(
        id=row.id,
        name=row.name,
        kind=row.kind,
        groups=row.groups,
        created=row.created,
        disabled=row.disabled,
        keys=sum(_state(key) == "in force" for key in keys),
        unnamed=unnamed,
    )


def _key(row: CredentialRow, user: str) -> Key:
    return Key(
        id=row.id,
        user=user,
        label=row.label,
        created=row.created,
        expires=row.expires,
        revoked=row.ended,
        state=_state(row),
    )


def _state(row: CredentialRow) -> Literal["in force", "expired", "revoked"]:
    if row.ended is not None:
        return "revoked"
    return "expired" if row.expires is not None and row.expires <= clock.timestamp() else "in force"
