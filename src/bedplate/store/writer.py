"""Group commit: what many threads want to write goes into one synced transaction, and each is answered after it.

One thread writes. It takes what waits, runs each piece of work in a savepoint of its own, so that one that fails undoes
nothing but itself, commits once, and only then answers. A sync costs as much for a hundred pieces as for one, and
nobody waits for a lock.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from bedplate.errors import UnavailableError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bedplate.store.database import Store, Transaction

T = TypeVar("T")

MOST = 512
"""How many pieces go into one transaction at most, so that the first does not wait for ever."""

Batch = Callable[["Transaction", Sequence[Any]], Sequence[Any]]
"""Writes several items together and gives an answer for each: a value, or the exception that it ends with."""


class _Piece:
    """Work on its way to the writer, and who waits for its answer: a thread, or a coroutine of ``loop``."""

    __slots__ = ("future", "item", "loop", "work")

    def __init__(self, work: Any, item: Any, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.work = work
        self.item = item
        self.loop = loop
        self.future: Future[Any] | asyncio.Future[Any] = Future() if loop is None else loop.create_future()


class _Alone:
    """Marks a piece whose work is a function of the transaction."""


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
        future: Future[T] = self._put(_Piece(work, _Alone))
        return future

    def append(self, batch: Batch, item: Any) -> "Future[Any]":
        """Have ``item`` written by ``batch``, together with the items beside it that have the same ``batch``.

        Raises:
            UnavailableError: the writer is closed.
        """
        future: Future[Any] = self._put(_Piece(batch, item))
        return future

    async def submitted(self, work: "Callable[[Transaction], T]") -> T:
        """:meth:`submit`, for coroutines."""
        found: T = await self._put(_Piece(work, _Alone, asyncio.get_running_loop()))
        return found

    async def appended(self, batch: Batch, item: Any) -> Any:
        """:meth:`append`, for coroutines."""
        return await self._put(_Piece(batch, item, asyncio.get_running_loop()))

    def close(self) -> None:
        """Write what waits, then stop. Doing it twice is fine."""
        with self._guard:
            closed, self._closed = self._closed, True
            thread = self._thread
        if thread is not None:
            if not closed:
                self._pieces.put(None)
            thread.join()

    def _put(self, piece: _Piece) -> Any:
        with self._guard:
            if self._closed:
                raise UnavailableError("this home is being closed", fix="try again when it is up")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
                self._thread.start()
            self._pieces.put(piece)
        return piece.future

    def _run(self) -> None:
        with self._store.connection() as connection:
            open_ = True
            while open_:
                pieces, open_ = self._gather()
                if pieces:
                    _answer(self._commit(connection, pieces))

    def _gather(self) -> tuple[list[_Piece], bool]:
        """What waits, at least one piece; and whether more may come."""
        pieces: list[_Piece] = []
        while len(pieces) < MOST:
            try:
                piece = self._pieces.get() if not pieces else self._pieces.get_nowait()
            except queue.Empty:
                break
            if piece is None:
                return pieces, False
            if piece.loop is not None or piece.future.set_running_or_notify_cancel():  # type: ignore[union-attr]
                pieces.append(piece)
        return pieces, True

    def _commit(self, connection: "Connection", pieces: list[_Piece]) -> list[tuple[_Piece, Any]]:
        answers: list[tuple[_Piece, Any]] = []
        try:
            with self._store.transaction(connection) as tx:
                start = 0
                while start < len(pieces):
                    end = _run_of(pieces, start)
                    answers += self._together(tx, pieces[start:end], alone=end - start == len(pieces))
                    start = end
        except Exception as error:  # noqa: BLE001 handed to everybody who waits for this transaction
            return [(piece, error) for piece in pieces]
        return answers

    def _together(self, tx: "Transaction", pieces: list[_Piece], *, alone: bool) -> list[tuple[_Piece, Any]]:
        work = pieces[0].work
        if alone:  # the transaction is savepoint enough
            return list(zip(pieces, _do(tx, work, pieces), strict=True))
        try:
            with self._store.translated(), tx.savepoint():
                found = _do(tx, work, pieces)
        except Exception as error:
            if tx.lost:
                raise  # nothing of this transaction will be there, so nobody may be told otherwise
            found = [error] * len(pieces)
        return list(zip(pieces, found, strict=True))


def _do(tx: "Transaction", work: Any, pieces: list[_Piece]) -> Sequence[Any]:
    return [work(tx)] if pieces[0].item is _Alone else work(tx, [piece.item for piece in pieces])


def _run_of(pieces: list[_Piece], start: int) -> int:
    """Where the items end that are written together with the one at ``start``."""
    first, end = pieces[start], start + 1
    if first.item is _Alone:
        return end
    while end < len(pieces) and pieces[end].item is not _Alone and pieces[end].work == first.work:
        end += 1
    return end


def _answer(answers: list[tuple[_Piece, Any]]) -> None:
    """Answer everybody; each event loop is woken once, however many of its coroutines wait."""
    if len(answers) == 1 and answers[0][0].loop is not None:
        with contextlib.suppress(RuntimeError):  # as below
            answers[0][0].loop.call_soon_threadsafe(_settle_all, answers)
        return
    loops: dict[asyncio.AbstractEventLoop, list[tuple[_Piece, Any]]] = {}
    for piece, answer in answers:
        if piece.loop is None:
            _settle(piece, answer)
        else:
            loops.setdefault(piece.loop, []).append((piece, answer))
    for loop, waiting in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop ended, and who waited with it
            loop.call_soon_threadsafe(_settle_all, waiting)


def _settle_all(answers: list[tuple[_Piece, Any]]) -> None:
    for piece, answer in answers:
        if not piece.future.done():  # a coroutine may have been cancelled meanwhile
            _settle(piece, answer)


def _settle(piece: _Piece, answer: Any) -> None:
    if isinstance(answer, Exception):
        piece.future.set_exception(answer)
    else:
        piece.future.set_result(answer)
