"""Deadlines for what runs a thousand times a second: a dictionary entry each, looked at a few times a second.

A timer for each request, as ``asyncio.timeout`` sets it, costs ten times as much; what it is more exact by does not
matter for deadlines of seconds.
"""

import asyncio
from types import TracebackType
from weakref import WeakKeyDictionary

EVERY = 0.1
"""Seconds between two looks: a deadline is kept to within that."""


class _Watch:
    """The deadlines of one event loop, and those that were missed."""

    __slots__ = ("__weakref__", "due", "late", "looking", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.due: dict[Deadline, float] = {}
        self.late: set[Deadline] = set()
        self.looking = False

    def look(self) -> None:
        now = self.loop.time()
        for deadline, until in list(self.due.items()):
            if until <= now:
                del self.due[deadline]
                self.late.add(deadline)
                deadline.task.cancel()
        self.looking = bool(self.due)
        if self.looking:
            self.loop.call_later(EVERY, self.look)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()
_latest: _Watch | None = None  # a server has one loop: asked for again and again, it is found without a look-up


def _watch_of(loop: asyncio.AbstractEventLoop) -> _Watch:
    global _latest
    watch = _latest
    if watch is None or watch.loop is not loop:
        watch = _watches.get(loop)
        if watch is None:
            watch = _watches[loop] = _Watch(loop)
        _latest = watch
    return watch


class Deadline:
    """``with Deadline(seconds)``: the awaiting block is cancelled when it takes longer, and ends in ``TimeoutError``.

    One may lie within another: the one that is missed ends.
    """

    __slots__ = ("_seconds", "_watch", "task")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        watch = _watch_of(loop)
        self.task, self._watch = task, watch
        watch.due[self] = loop.time() + self._seconds
        if not watch.looking:
            watch.looking = True
            loop.call_later(min(EVERY, self._seconds), watch.look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        watch = self._watch
        watch.due.pop(self, None)
        if watch.late and self in watch.late:
            watch.late.remove(self)
            # The cancellation was ours, unless somebody else asked for one as well.
            if self.task.uncancel() == 0 and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error
