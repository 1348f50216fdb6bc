"""Who somebody is: keys for programs, sessions for pages, one-time links to begin a session.

An expired or revoked credential, or a principal that was shut out, is refused from the next request on: what was looked
up is remembered only until the next change, and a home has one owner, so every change passes here. Every change is
recorded in the ledger in its own transaction.
"""

import hashlib
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from bedplate import clock, files
from bedplate.errors import AuthenticationError, InputError, NotFoundError
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
_SYSTEM = "system"
_REMEMBERED = 4096


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has proved who they are. ``auth`` says how, ``credential`` is the id of the key or session."""

    id: str
    kind: Literal["user", "service"]
    name: str
    groups: tuple[str, ...]
    auth: Literal["key", "session", "ticket"]
    credential: str


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
    ) -> int:
        """Append one entry within ``tx``."""
        ...


class Identity:
    """The principals of one home and their credentials."""

    def __init__(self, store: Store, keys: Path, ledger: Recorder) -> None:
        self._store, self._keys, self._ledger = store, keys, ledger
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
        token = tokens.new(KEY)
        with self._store.transaction() as tx:
            principal = tx.principals.named(ADMINISTRATOR)
            if principal is None:
                principal = tx.principals.add("user", ADMINISTRATOR, (ADMINISTRATORS,))
                self._note(tx, _SYSTEM, "principal.create", f"principal/{principal.id}", name=ADMINISTRATOR)
            for old in tx.keys.of(principal.id):
                if old.label == ADMIN_KEY and tx.keys.end(old.id):
                    self._note(tx, _SYSTEM, "key.revoke", f"key/{old.id}", reason="its file was lost")
            tx.keys.add(token.id, principal.id, token.hash, expires=None, label=ADMIN_KEY)
            self._note(tx, _SYSTEM, "key.create", f"key/{token.id}", principal=principal.id, label=ADMIN_KEY)
            # Before the commit: a file whose key was never committed is replaced at the next start.
            files.write(path, f"{token}\n".encode())
        return str(token)

    # ------------------------------------------------------------------------------------------------- principals

    def add_principal(
        self, kind: Literal["user", "service"], name: str, groups: Sequence[str] = (), *, actor: str
    ) -> PrincipalRow:
        """Add a user or a service.

        Raises:
            ConflictError: the name is taken.
            InputError: the name is empty or longer than 200 characters.
        """
        if not name.strip() or len(name) > 200 or not name.isprintable():
            raise InputError(f"{name!r} cannot name a principal", fix="use 1 to 200 printable characters")
        with self._store.transaction() as tx:
            row = tx.principals.add(kind, name, tuple(groups))
            self._note(tx, actor, "principal.create", f"principal/{row.id}", name=name, groups=list(groups))
        return row

    def set_groups(self, principal: str, groups: Sequence[str], *, actor: str) -> None:
        """Change which groups a principal is in.

        Raises:
            NotFoundError: there is no such principal.
        """
        with self._store.transaction() as tx:
            tx.principals.set_groups(principal, tuple(groups))
            self._note(tx, actor, "principal.update", f"principal/{principal}", groups=list(groups))

    def disable(self, principal: str, *, actor: str) -> None:
        """Shut a principal out, with all its keys and sessions.

        Raises:
            NotFoundError: there is no such principal, or it is shut out already.
        """
        with self._store.transaction() as tx:
            tx.principals.disable(principal)
            self._note(tx, actor, "principal.disable", f"principal/{principal}")

    # ------------------------------------------------------------------------------------------------ credentials

    def create_key(self, principal: str, *, actor: str, label: str = "", lifetime: timedelta | None = None) -> str:
        """A new key of a principal. This text is the only copy.

        Raises:
            NotFoundError: there is no such principal.
        """
        token = tokens.new(KEY)
        with self._store.transaction() as tx:
            tx.principals.get(principal)
            tx.keys.add(token.id, principal, token.hash, expires=_after(lifetime), label=label)
            self._note(tx, actor, "key.create", f"key/{token.id}", principal=principal, label=label)
        return str(token)

    def revoke_key(self, key: str, *, actor: str) -> None:
        """End a key, named by its id, now.

        Raises:
            NotFoundError: there is no such key, or it was revoked already.
        """
        with self._store.transaction() as tx:
            if not tx.keys.end(key):
                raise NotFoundError(f"no key {key} in force")
            self._note(tx, actor, "key.revoke", f"key/{key}")

    def create_link(self, principal: str, *, actor: str) -> str:
        """A token that begins one session, once, within 60 seconds.

        Raises:
            NotFoundError: there is no such principal.
        """
        token = tokens.new(LINK)
        with self._store.transaction() as tx:
            tx.principals.get(principal)
            tx.links.add(token.id, principal, token.hash, expires=_after(timedelta(seconds=LINK_SECONDS)))
            self._note(tx, actor, "link.create", f"link/{token.id}", principal=principal)
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
                    self._note(
                        tx, principal.id, "session.create", f"session/{session.id}", auth="link", link=presented.id
                    )
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
            self._note(tx, actor, "session.end", f"session/{session}", auth="session")

    def _note(
        self, tx: Transaction, actor: str, action: str, resource: str, *, auth: str = "key", **payload: Any
    ) -> None:
        self._ledger.record(tx, actor=actor, action=action, resource=resource, auth=auth, payload=payload)
        tx.after_commit(self._forget)


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
