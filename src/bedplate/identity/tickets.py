"""Tickets: leave to send one request, signed by the home, for clients that cannot send their key along.

A ticket names the key or session that asked for it, a method, a path and a time. It is worth nothing for another
request or once that key or session has ended, and gives no more than what its principal may do when it is used.
"""

import base64
import hashlib
import hmac
import threading
from datetime import timedelta
from pathlib import Path

from bedplate import clock, files
from bedplate.errors import AuthenticationError, NotFoundError
from bedplate.identity.identity import Principal
from bedplate.store import Store

KEY_FILE = "tickets.key"
_LONGEST = 300


class Tickets:
    """Issues and accepts tickets. The key lies beside the home's other keys, so tickets outlive a restart."""

    def __init__(self, store: Store, keys: Path) -> None:
        self._store = store
        self._path = keys / KEY_FILE
        self._key = b""
        self._lock = threading.Lock()

    def issue(self, principal: Principal, method: str, path: str, lifetime: timedelta) -> str:
        """A ticket for what ``principal`` came in with.

        Raises:
            AuthenticationError: it came in with a ticket itself.
        """
        if principal.auth == "ticket":
            raise AuthenticationError("a ticket gives no tickets", fix="send your key")
        expires = str(int((clock.now() + lifetime).timestamp()))
        parts = (principal.auth, principal.credential, expires)
        return ".".join((*parts, self._sign(*parts, method, path)))

    def accept(self, ticket: str, method: str, path: str) -> Principal:
        """Whose request this is.

        Raises:
            AuthenticationError: the ticket is forged, expired or for another request, or what it was issued for ended.
        """
        parts = ticket.split(".") if len(ticket) <= _LONGEST and ticket.isascii() else []
        principal = None
        if len(parts) == 4 and hmac.compare_digest(parts[3], self._sign(*parts[:3], method, path)):
            principal = self._holder(*parts[:3])
        if principal is None:
            raise AuthenticationError("this ticket is not valid here", fix="ask for a new one, or send your key")
        return principal

    def _holder(self, auth: str, credential: str, expires: str) -> Principal | None:
        now = clock.now()
        if int(expires) <= now.timestamp():
            return None
        with self._store.read() as tx:
            kept = (tx.keys if auth == "key" else tx.sessions).get(credential)
            if kept is None or kept.ended is not None or (kept.expires is not None and kept.expires <= clock.text(now)):
                return None
            try:
                row = tx.principals.get(kept.principal)
            except NotFoundError:
                return None
        if row.disabled is not None:
            return None
        return Principal(
            id=row.id, kind=row.kind, name=row.name, groups=row.groups, auth="ticket", credential=credential
        )

    def _sign(self, *parts: str) -> str:
        text = "\0".join(("bedplate ticket", *parts))
        digest = hmac.digest(self._secret(), text.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def _secret(self) -> bytes:
        with self._lock:
            if not self._key:
                self._key = files.secret(self._path)
            return self._key
