"""The lease of the one owner, for databases that several machines reach: it ends by itself when its holder dies."""

from typing import NamedTuple

import sqlalchemy as sa

from bedplate.store.schema import leases
from bedplate.store.sql import Repository, Upsert, param

_name = param("name_")
_GET = sa.select(leases).where(leases.c.name == _name)
_LOCK = _GET.with_for_update()
# Holding the row against whoever takes the lease over, but not against its renewal. A session that stops in the middle
# of the transaction is ended by the server, which lets the row go.
_HOLD = (
    sa.select(sa.func.set_config("idle_in_transaction_session_timeout", param("idle_"), sa.true()))
    .where(leases.c.name == _name, leases.c.token == param("token_"), leases.c.holder == param("holder_"))
    .with_for_update(read=True, key_share=True)
)
_BEGIN = Upsert(leases)
_PUT = Upsert(leases, update=("holder", "executor", "token", "expires"))
_RENEW = (
    sa.update(leases)
    .where(leases.c.name == _name, leases.c.token == param("token_"), leases.c.holder == param("holder_"))
    .values(expires=param("expires_"))
)


class LeaseRow(NamedTuple):
    """Who holds it until when (seconds of the database's clock). ``token`` counts up with every new holder."""

    holder: str
    executor: str
    token: int
    expires: float


class Leases(Repository):
    """``tx.leases``. Times are the database's, so machines with wrong clocks agree."""

    def now(self) -> float:
        """Seconds since 1970 on the database's clock."""
        text = (
            "extract(epoch from clock_timestamp())" if self._postgresql else "(julianday('now') - 2440587.5) * 86400.0"
        )
        return float(self._execute(sa.select(sa.literal_column(text))).scalar_one())

    def get(self, name: str, *, lock: bool = False) -> LeaseRow | None:
        """The lease of this name, expired or not. ``lock`` keeps others from taking it until the commit."""
        row = self._execute(_LOCK if lock and self._postgresql else _GET, name_=name).first()
        return None if row is None else LeaseRow(row.holder, row.executor, int(row.token), row.expires)

    def take(self, name: str, holder: str, executor: str, seconds: float) -> LeaseRow | None:
        """Take the lease if nobody else holds it now; None if somebody does.

        Waits for write transactions of the holder before that are under way: see :meth:`hold`.
        """
        # An expired row to lock, so that of several who find none at all one goes first.
        self._execute(_BEGIN.on(self._connection), name=name, holder="", executor="", token=0, expires=0.0)
        before, now = self.get(name, lock=True), self.now()
        assert before is not None
        if before.expires > now and before.holder != holder:
            return None
        row = LeaseRow(holder, executor, before.token + 1, now + seconds)
        self._execute(_PUT.on(self._connection), name=name, **row._asdict())
        return row

    def hold(self, name: str, lease: LeaseRow, seconds: float) -> bool:
        """Whether nobody has taken the lease over, which then nobody can before this transaction ends.

        PostgreSQL only. A transaction in which nothing is asked for ``seconds`` is undone by the server: a holder that
        stopped in the middle of one keeps nobody out for longer.
        """
        idle = str(max(1, int(seconds * 1000)))
        row = self._execute(_HOLD, name_=name, token_=lease.token, holder_=lease.holder, idle_=idle).first()
        return row is not None

    def renew(self, name: str, lease: LeaseRow, seconds: float) -> bool:
        """Hold it for longer; False if it was taken over meanwhile."""
        expires = self.now() + seconds
        result = self._execute(_RENEW, name_=name, token_=lease.token, holder_=lease.holder, expires_=expires)
        return bool(result.rowcount == 1)

    def release(self, name: str, lease: LeaseRow) -> None:
        """Give it back; the token stays, so that it goes on counting up."""
        self._execute(_RENEW, name_=name, token_=lease.token, holder_=lease.holder, expires_=0.0)
