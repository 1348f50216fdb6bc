"""Who somebody is: keys for programs, sessions for pages, one-time links to begin a session.

An expired or revoked credential, or a principal that was shut out, is refused from the next request on: what was looked
up is remembered only until the next change, and a home has one owner, so every change passes here. Every change is
recorded in the ledger in its own transaction.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol, Required, TypedDict, Unpack

import msgspec

from bedplate import clock, files
from bedplate.errors import AuthenticationError, ConflictError, InputError, NotFoundError
from bedplate.identity import tokens
from bedplate.identity.tokens import Token
from bedplate.policy import values as policy
from bedplate.store import Store, Transaction
from bedplate.store.principals import CredentialRow, Credentials, PrincipalRow

ADMINISTRATOR = "administrator"
ADMINISTRATORS = "administrators"
ADMIN_KEY = "admin.key"
KEY, SESSION, LINK = "bp", "bs", "bl"
LINK_SECONDS = 60
SESSION_HOURS = 12
MOST_GROUPS = 100
_LONGEST = 200
_SYSTEM = "system"
_REMEMBERED = 4096


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has proved who they are. ``auth`` says how, ``credential`` is the id of the key or session.

    The home itself, which does what it was told to do from time to time, comes in by ``none``.
    """

    id: str
    kind: Literal["user", "service"]
    name: str
    groups: tuple[str, ...]
    auth: Literal["key", "session", "ticket", "none"]
    credential: str


class By(TypedDict, total=False):
    """Who changes something, how they came in, and the policies that let them: what the ledger keeps with a change."""

    actor: Required[str]
    auth: str
    policies: Sequence[str]


def policy_principal(principal: Principal | PrincipalRow) -> policy.Principal:
    """Somebody who signed in, or could, as policy knows them."""
    return policy.Principal(
        kind="User" if principal.kind == "user" else "Service",
        id=principal.id,
        name=principal.name,
        groups=principal.groups,
    )


class Recorder(Protocol):
    """Where changes are recorded: :class:`bedplate.ledger.Ledger`."""

    def record(
        self,
        tx: Transaction,
        *,
        actor: str,
        action: str,
        resource: str,
        payload: dict[str, Any] | None = None,
        auth: str = "key",
        policies: Sequence[str] = (),
    ) -> int:
        """Append one entry within ``tx``."""
        ...


class Identity:
    """The principals of one home and their credentials.

    ``change`` opens the transaction of each change of principals and keys; others who decide by them look in there
    before it is committed, and may refuse it. By default it is a transaction of the store and nothing else.
    """

    def __init__(
        self,
        store: Store,
        keys: Path,
        ledger: Recorder,
        change: Callable[[], AbstractContextManager[Transaction]] | None = None,
    ) -> None:
        self._store, self._keys, self._ledger = store, keys, ledger
        self._change = change or store.transaction
        self._lock = threading.Lock()
        self._changes = 0
        self._known: dict[bytes, tuple[Principal, str | None]] = {}
        """Principals and when their credential expires, by the hash of the token."""

    # ------------------------------------------------------------------------------------------------ who comes in

    def authenticate(self, token: str) -> Principal:
        """Whose key or session this is.

        Raises:
            AuthenticationError: it is unknown, expired or revoked, or its principal was shut out. The text does not
                say which.
        """
        name = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(name)
        if known is not None and (known[1] is None or known[1] > clock.timestamp()):
            return known[0]
        presented = tokens.parse(token, KEY) or tokens.parse(token, SESSION)
        if presented is not None:
            changes = self._changes
            with self._store.read() as tx:
                kept = _valid(_credentials(tx, presented.prefix), presented)
                principal = None if kept is None else tx.principals.get(kept.principal)
            if kept is not None and principal is not None and principal.disabled is None:
                found = Principal(
                    id=principal.id,
                    kind=principal.kind,
                    name=principal.name,
                    groups=principal.groups,
                    auth="key" if presented.prefix == KEY else "session",
                    credential=kept.id,
                )
                self._remember(name, found, kept.expires, changes)
                return found
        raise AuthenticationError(
            "this key or session is not valid", fix="use a valid key, or open a new login link: bedplate up"
        )

    def _remember(self, name: bytes, principal: Principal, expires: str | None, changes: int) -> None:
        with self._lock:
            if changes != self._changes:
                return  # something changed while it was looked up, so what was seen may be of before
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[name] = (principal, expires)

    def _forget(self) -> None:
        with self._lock:
            self._changes += 1
            self._known.clear()

    def administrator_key(self) -> str:
        """The key of the local administrator, which is made with its principal at the first start.

        It lies in ``keys/admin.key``, readable by its owner only. A lost or foreign file is replaced and the key it
        replaces revoked: whoever owns the home's folder is its administrator.
        """
        path = self._keys / ADMIN_KEY
        if path.exists():
            key = path.read_text().strip()
            try:
                if self.authenticate(key).name == ADMINISTRATOR:
                    return key
            except AuthenticationError:
                pass  # from another home, or a crash came between the file and the commit
        token, by = tokens.new(KEY), By(actor=_SYSTEM)
        with self._store.transaction() as tx:
            principal = tx.principals.named(ADMINISTRATOR)
            if principal is None:
                principal = tx.principals.add("user", ADMINISTRATOR, (ADMINISTRATORS,))
                self._note(tx, "principal.create", f"principal/{principal.id}", by, name=ADMINISTRATOR)
            for old in tx.keys.of(principal.id):
                if old.label == ADMIN_KEY and tx.keys.end(old.id):
                    self._note(tx, "key.revoke", f"key/{old.id}", by, reason="its file was lost")
            tx.keys.add(token.id, principal.id, token.hash, expires=None, label=ADMIN_KEY)
            self._note(tx, "key.create", f"key/{token.id}", by, principal=principal.id, label=ADMIN_KEY)
            # Before the commit: a file whose key was never committed is replaced at the next start.
            files.write(path, f"{token}\n".encode())
        return str(token)

    # ------------------------------------------------------------------------------------------------- principals

    def add_principal(
        self, kind: Literal["user", "service"], name: str, groups: Sequence[str] = (), **by: Unpack[By]
    ) -> PrincipalRow:
        """Add a user or a service.

        Raises:
            ConflictError: the name is taken.
            InputError: the name or a group is empty, longer than 200 characters, or not plain text on one line.
        """
        name, belongs = plain(name, "a principal"), group_names(groups)
        with self._change() as tx:
            row = tx.principals.add(kind, name, belongs)
            self._note(tx, "principal.create", f"principal/{row.id}", by, kind=kind, name=name, groups=list(belongs))
        return row

    def set_groups(self, principal: str, groups: Sequence[str], **by: Unpack[By]) -> PrincipalRow:
        """Change which groups a principal is in.

        Raises:
            ConflictError: the local administrator would not be an administrator any more.
            InputError: as in :meth:`add_principal`.
            NotFoundError: there is no such principal.
        """
        belongs = group_names(groups)
        with self._change() as tx:
            row = tx.principals.get(principal)
            if row.name == ADMINISTRATOR and ADMINISTRATORS not in belongs:
                raise _own_administrator(f"stays in the group {ADMINISTRATORS}")
            tx.principals.set_groups(principal, belongs)
            self._note(
                tx, "principal.update", f"principal/{principal}", by, groups=list(belongs), before=list(row.groups)
            )
        return msgspec.structs.replace(row, groups=belongs)

    def disable(self, principal: str, **by: Unpack[By]) -> PrincipalRow:
        """Shut a principal out, with all its keys and sessions.

        Raises:
            ConflictError: it is the local administrator.
            NotFoundError: there is no such principal, or it is shut out already.
        """
        with self._change() as tx:
            if tx.principals.get(principal).name == ADMINISTRATOR:
                raise _own_administrator("cannot be shut out")
            tx.principals.disable(principal)
            self._note(tx, "principal.disable", f"principal/{principal}", by)
            return tx.principals.get(principal)

    # ------------------------------------------------------------------------------------------------ credentials

    def create_key(
        self, principal: str, *, label: str = "", lifetime: timedelta | None = None, **by: Unpack[By]
    ) -> str:
        """A new key of a principal. This text is the only copy.

        Raises:
            ConflictError: the principal is shut out.
            InputError: the label is too long or not plain text on one line.
            NotFoundError: there is no such principal.
        """
        token, expires = tokens.new(KEY), _after(lifetime)
        label = plain(label, "a key") if label else ""
        with self._change() as tx:
            if tx.principals.get(principal).disabled is not None:
                raise ConflictError("whoever is shut out gets no new key", where="key", fix="add another user")
            tx.keys.add(token.id, principal, token.hash, expires=expires, label=label)
            self._note(tx, "key.create", f"key/{token.id}", by, principal=principal, label=label, expires=expires or "")
        return str(token)

    def revoke_key(self, key: str, **by: Unpack[By]) -> None:
        """End a key, named by its id, now.

        Raises:
            NotFoundError: there is no such key, or it was revoked already.
        """
        with self._change() as tx:
            if not tx.keys.end(key):
                raise NotFoundError(f"no key {key!r} in force", fix="bedplate key list shows the ids")
            self._note(tx, "key.revoke", f"key/{key}", by)

    def create_link(self, principal: str, *, actor: str) -> str:
        """A token that begins one session, once, within 60 seconds.

        Raises:
            NotFoundError: there is no such principal.
        """
        token = tokens.new(LINK)
        with self._store.transaction() as tx:
            tx.principals.get(principal)
            tx.links.add(token.id, principal, token.hash, expires=_after(timedelta(seconds=LINK_SECONDS)))
            self._note(tx, "link.create", f"link/{token.id}", By(actor=actor), principal=principal)
        return str(token)

    def redeem_link(self, link: str) -> str:
        """Use a link up and begin a session; returns the token of the session.

        Raises:
            AuthenticationError: the link is unknown, expired, or used: of several at once exactly one succeeds.
        """
        presented, session = tokens.parse(link, LINK), tokens.new(SESSION)
        if presented is not None:
            with self._store.transaction() as tx:
                kept = _valid(tx.links, presented)
                principal = None if kept is None else tx.principals.get(kept.principal)
                if principal is not None and principal.disabled is None and tx.links.consume(presented.id):
                    expires = _after(timedelta(hours=SESSION_HOURS))
                    tx.sessions.add(session.id, principal.id, session.hash, expires=expires)
                    by = By(actor=principal.id, auth="link")
                    self._note(tx, "session.create", f"session/{session.id}", by, link=presented.id)
                    return str(session)
        raise AuthenticationError("this login link is not valid any more", fix="print a new one: bedplate up")

    def end_session(self, session: str, *, actor: str) -> None:
        """Log out: end the session of this id.

        Raises:
            NotFoundError: there is no such session, or it ended already.
        """
        with self._store.transaction() as tx:
            if not tx.sessions.end(session):
                raise NotFoundError(f"no session {session}")
            self._note(tx, "session.end", f"session/{session}", By(actor=actor, auth="session"))

    def _note(self, tx: Transaction, action: str, resource: str, by: By, **payload: Any) -> None:
        self._ledger.record(tx, action=action, resource=resource, payload=payload, **by)
        tx.after_commit(self._forget)


def plain(text: str, what: str) -> str:
    """A name of ``what`` as people may write it.

    Raises:
        InputError: it is empty, longer than 200 characters, begins or ends with a space, or is not printable.
    """
    if not text or len(text) > _LONGEST or text != text.strip() or not text.isprintable():
        raise InputError(
            f"{text[:_LONGEST]!r} cannot name {what}",
            fix=f"use 1 to {_LONGEST} printable characters, no space at either end",
        )
    return text


def group_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of groups, each once, in order.

    Raises:
        InputError: one is no name, or there are more than 100.
    """
    found = tuple(sorted({plain(name, "a group") for name in names}))
    if len(found) > MOST_GROUPS:
        raise InputError(f"{len(found)} groups are too many", fix=f"give at most {MOST_GROUPS}")
    return found


def _own_administrator(what: str) -> ConflictError:
    return ConflictError(
        f"{ADMINISTRATOR} {what}: whoever owns the home's folder is its administrator",
        fix="end the key of a person instead: bedplate key revoke",
    )


def _credentials(tx: Transaction, prefix: str) -> Credentials:
    return tx.keys if prefix == KEY else tx.sessions


def _valid(credentials: Credentials, presented: Token) -> CredentialRow | None:
    kept = credentials.get(presented.id)
    if not tokens.matches(presented, None if kept is None else kept.secret_hash):
        return None
    assert kept is not None
    expired = kept.expires is not None and kept.expires <= clock.timestamp()
    return None if expired or kept.ended is not None else kept


def _after(lifetime: timedelta | None) -> str | None:
    return None if lifetime is None else clock.text(clock.now() + lifetime)
