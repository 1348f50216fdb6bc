"""Group commit: what many threads want to write goes into one synced transaction, and each is answered after it.

One thread writes. It takes what waits, runs each piece of work in a savepoint of its own, so that one that fails undoes
nothing but itself, commits once, and only then answers. A sync costs as much for a hundred pieces as for one, and
nobody waits for a lock.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from bedplate.errors import UnavailableError

if TYPE_CHECKING:
    from bedplate.store.database import Store, Transaction

T = TypeVar("T")
Item = TypeVar("Item")

MOST = 512
"""How many pieces go into one transaction at most, so that the first does not wait for ever."""

Batch = Callable[["Transaction", Sequence[Any]], Sequence[Any]]
"""Writes several items together and gives an answer for each: a value, or the exception that it ends with."""


class _Piece:
    __slots__ = ("future", "item", "work")

    def __init__(self, work: Any, item: Any) -> None:
        self.work = work
        self.item = item
        self.future: Future[Any] = Future()


class _Alone:
    """Marks a piece that is a function of the transaction."""


class Writer:
    """The one thread that writes. Started by the first piece of work."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._pieces: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, work: "Callable[[Transaction], T]") -> "Future[T]":
        """Do ``work`` in the next transaction. The future has its result once that is on disk, or its exception.

        Raises:
            UnavailableError: the writer is closed.
        """
        return self._put(_Piece(work, _Alone))

    def append(self, batch: Batch, item: Any) -> "Future[Any]":
        """Have ``item`` written by ``batch``, together with the items beside it that have the same ``batch``.

        Raises:
            UnavailableError: the writer is closed.
        """
        return self._put(_Piece(batch, item))

    def close(self) -> None:
        """Write what waits, then stop. Doing it twice is fine."""
        with self._guard:
            closed, self._closed = self._closed, True
            thread = self._thread
        if thread is not None:
            if not closed:
                self._pieces.put(None)
            thread.join()

    def _put(self, piece: _Piece) -> "Future[Any]":
        with self._guard:
            if self._closed:
                raise UnavailableError("this home is being closed", fix="try again when it is up")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
                self._thread.start()
            self._pieces.put(piece)
        return piece.future

    def _run(self) -> None:
        open_ = True
        while open_:
            first = self._pieces.get()
            if first is None:
                return
            pieces = [first]
            while len(pieces) < MOST:
                try:
                    piece = self._pieces.get_nowait()
                except queue.Empty:
                    break
                if piece is None:
                    open_ = False
                    break
                pieces.append(piece)
            self._commit([piece for piece in pieces if piece.future.set_running_or_notify_cancel()])

    def _commit(self, pieces: list[_Piece]) -> None:
        answers: list[tuple[_Piece, Any]] = []
        try:
            with self._store.transaction() as tx:
                start = 0
                while start < len(pieces):
                    end = _run_of(pieces, start)
                    answers += self._together(tx, pieces[start:end])
                    start = end
        except Exception as error:  # noqa: BLE001 handed to everybody who waits for this transaction
            answers = [(piece, error) for piece in pieces]
        for piece, answer in answers:
            if isinstance(answer, Exception):
                piece.future.set_exception(answer)
            else:
                piece.future.set_result(answer)

    def _together(self, tx: "Transaction", pieces: list[_Piece]) -> list[tuple[_Piece, Any]]:
        work = pieces[0].work
        try:
            with self._store.translated(), tx.savepoint():
                found = [work(tx)] if pieces[0].item is _Alone else work(tx, [piece.item for piece in pieces])
        except Exception as error:
            if tx.lost:
                raise  # nothing of this transaction will be there, so nobody may be told otherwise
            found = [error] * len(pieces)
        return list(zip(pieces, found, strict=True))


def _run_of(pieces: list[_Piece], start: int) -> int:
    """Where the items end that are written together with the one at ``start``."""
    first, end = pieces[start], start + 1
    if first.item is _Alone:
        return end
    while end < len(pieces) and pieces[end].item is not _Alone and pieces[end].work == first.work:
        end += 1
    return end
