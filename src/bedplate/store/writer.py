"""Group commit: what many threads want to write goes into one synced transaction, and each is answered after it.

One thread writes. It takes what waits, runs each piece of work in a savepoint of its own, so that one that fails undoes
nothing but itself, commits once, and only then answers. A sync costs as much for a hundred pieces as for one, and
nobody waits for a lock.

What the coroutines of an event loop append in small pieces, their loop commits itself where the database is a file: a
commit is done sooner than a thread is told of it and tells the loop back. What arrives meanwhile is the next
transaction, so the group commit stays. The loop never waits: while anybody writes, and on a disk that turned out to be
slow, the pieces go to the thread.
"""

import asyncio
import contextlib
import queue
import threading
import time
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

CLOSING = "this home is being closed"
SLOW, AGAIN = 0.02, 1.0
"""A commit in an event loop that took so many seconds leaves the next ones to the thread, for so many seconds."""

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
    """The one thread that writes, and its place in event loops. The thread is started by the first piece for it."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._pieces: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._turn = threading.Lock()
        """Held by whoever commits: the thread, or an event loop."""
        self._connection: Connection | None = None
        self._soon: dict[asyncio.AbstractEventLoop, list[_Piece]] = {}
        self._slow_until = 0.0

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

    async def submitted(self, work: "Callable[[Transaction], T]", *, small: bool = False) -> T:
        """:meth:`submit`, for coroutines; their event loop may do what is ``small`` itself."""
        loop = asyncio.get_running_loop()
        found: T = await self._put_soon(_Piece(work, _Alone, loop), loop, small=small)
        return found

    async def appended(self, batch: Batch, item: Any, *, small: bool = False) -> Any:
        """:meth:`append`, for coroutines; their event loop may commit what is ``small`` itself."""
        loop = asyncio.get_running_loop()
        return await self._put_soon(_Piece(batch, item, loop), loop, small=small)

    def close(self) -> None:
        """Write what waits, then stop. Doing it twice is fine."""
        with self._guard:
            closed, self._closed = self._closed, True
            thread = self._thread
        if thread is not None:
            if not closed:
                self._pieces.put(None)
            thread.join()
        with self._turn:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _put_soon(self, piece: _Piece, loop: asyncio.AbstractEventLoop, *, small: bool) -> Any:
        if not small or self._store.postgresql or self._closed:
            return self._put(piece)
        soon = self._soon.setdefault(loop, [])
        soon.append(piece)
        if len(soon) == 1:
            loop.call_soon(self._commit_here, loop)  # after every request that is ready now has come this far
        return piece.future

    def _put(self, piece: _Piece) -> Any:
        with self._guard:
            if self._closed:
                raise UnavailableError(CLOSING, fix="try again when it is up")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
                self._thread.start()
            self._pieces.put(piece)
        return piece.future

    def _run(self) -> None:
        open_ = True
        while open_:
            pieces, open_ = self._gather()
            if pieces:
                with self._turn:
                    answers = self._commit(pieces)
                _answer(answers)

    def _commit_here(self, loop: asyncio.AbstractEventLoop) -> None:
        """Commit in the event loop what its coroutines appended, or leave it to the thread."""
        pieces = self._soon.pop(loop)
        begun = time.monotonic()
        if begun < self._slow_until or self._store.writing or not self._turn.acquire(blocking=False):
            for piece in pieces:
                self._hand_over(piece)
            return
        try:
            if self._closed:  # nobody would close the connection
                answers = [(piece, UnavailableError(CLOSING, fix="try again when it is up")) for piece in pieces]
            else:
                answers = self._commit(pieces)
        finally:
            self._turn.release()
        now = time.monotonic()
        if now - begun > SLOW:
            self._slow_until = now + AGAIN
        _settle_all(answers)

    def _hand_over(self, piece: _Piece) -> None:
        try:
            self._put(piece)
        except UnavailableError as error:
            _settle(piece, error)

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

    def _commit(self, pieces: list[_Piece]) -> list[tuple[_Piece, Any]]:
        answers: list[tuple[_Piece, Any]] = []
        try:
            if self._connection is None:
                self._connection = self._store.connect()
            with self._store.transaction(self._connection) as tx:
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
