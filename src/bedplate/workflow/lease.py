"""One owner per shared database: machines that share a PostgreSQL hold a lease in it, which ends when its holder dies.

The file lock keeps two processes of one home apart; two homes with the same database, on two machines, each have their
own. The owner therefore also holds the lease, renewed by a thread long before it runs out. Whoever takes it over counts
its token up. Each write transaction of an owner first asks, in the database and holding the row, whether its own token
still counts: an owner that was stopped or cut off past the end of its lease writes nothing when it wakes, whatever its
clock says, and one in the middle of a transaction is waited for.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from bedplate import clock, ids
from bedplate.errors import BedplateError, FencedError, HomeError
from bedplate.settings import Home
from bedplate.store import Store, Transaction
from bedplate.store.leases import LeaseRow
from bedplate.workflow.engine import EXECUTOR

NAME = "owner"
SECONDS = 30.0
"""How long nobody else can own the database after its owner died without giving it back."""
_RENEWALS = 3
"""Times that it is renewed while it lasts: one answer may get lost, or two."""


class LeasedError(HomeError):
    """The owner of another home holds the database."""


class Lease:
    """Hold the database of a home for as long as the block runs. Once given back, ``store`` writes nothing more.

    ``previous`` is the other owner who held it before and let it run out, None if it was given back.
    """

    def __init__(self, store: Store, holder: str, seconds: float = SECONDS) -> None:
        self._store = store
        self._holder = holder
        self._seconds = seconds
        self._row: LeaseRow | None = None
        self._ended = threading.Event()
        self._when_lost: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._lost_to: str | None = None
        self.previous: str | None = None

    def __enter__(self) -> Self:
        """Take the lease, and let nothing be written without it from now on.

        Raises:
            LeasedError: somebody else holds it; the text says who, and until when.
            UnavailableError: the server is gone.
        """
        with self._store.transaction() as tx:
            before, now = tx.leases.get(NAME), tx.leases.now()
            row = tx.leases.take(NAME, self._holder, EXECUTOR, self._seconds)
            if row is None:
                before = tx.leases.get(NAME)
                assert before is not None, "a lease that cannot be taken has a holder"
                raise _leased(before, now, self._store.where)
        if before is not None and before.expires > 0 and before.holder != self._holder:
            self.previous = before.holder
        self._row = row
        self._store.fence(self._check)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back; where that cannot be said, it runs out by itself."""
        self._ended.set()
        self._thread.join(self._seconds)
        assert self._row is not None
        with contextlib.suppress(BedplateError), self._store.transaction() as tx:
            tx.leases.release(NAME, self._row)

    def when_lost(self, action: Callable[[], None]) -> None:
        """Call ``action``, in another thread, once another owner has taken over."""
        self._when_lost.append(action)

    def check_lost(self) -> None:
        """Raise if it is known that another owner has taken over; asks nobody.

        Raises:
            FencedError: so it is.
        """
        if self._lost_to is not None:
            raise FencedError(
                f"{self._lost_to} has taken this database over, since this owner did not renew its lease in time: "
                "nothing more is written here",
                where=self._store.where,
                fix="use the new owner; or stop it, then start this one again: what was finished is kept",
            )

    def _check(self, tx: Transaction) -> None:
        """The fence: refuse the transaction if another owner has taken over."""
        assert self._row is not None
        if self._lost_to is None and not tx.leases.hold(NAME, self._row, self._seconds):
            now = tx.leases.get(NAME)
            self._lost_to = now.holder if now is not None and now.holder else "another owner"
        self.check_lost()

    def _keep(self) -> None:
        """Renew it, from a thread, until the end."""
        assert self._row is not None
        while not self._ended.wait(self._seconds / _RENEWALS):
            try:
                with self._store.transaction() as tx:  # which asks the fence first
                    tx.leases.renew(NAME, self._row, self._seconds)
            except FencedError:
                for action in self._when_lost:
                    action()
                return
            except BedplateError:
                # The server does not answer: so it does not to any write either. Tried again; if nobody took the lease
                # over meanwhile, it is as good as before.
                continue


def holder_of(home: Home) -> str:
    """Who holds the lease: the home and its machine, as people know them, and a mark that no other home has.

    The mark is the lock file, in this run of the system: whoever holds its lock knows that who took the lease under the
    same mark has ended. So a home is owned again at once after kill -9, and a copy of it elsewhere is somebody else.
    """
    status = home.lock.stat()
    mark = ids.digest_of([_boot(), status.st_dev, status.st_ino]).removeprefix("sha256:")[:12]
    return f"home {home.root} on {socket.gethostname()} ({mark})"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return os.uname().nodename  # not on Linux


def _leased(row: LeaseRow, now: float, where: str) -> LeasedError:
    until = clock.text(datetime.fromtimestamp(row.expires, UTC))
    return LeasedError(
        f"{row.holder} owns this database until {until}, in {max(0.0, row.expires - now):.0f} s, and renews that while "
        "it lives",
        where=where,
        fix="stop it there: bedplate stop; if it is dead, try again when its time is over",
    )
