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
    """The tasks of one event loop that have a deadline, and those that missed theirs."""

    __slots__ = ("__weakref__", "due", "late", "looking", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.due: dict[asyncio.Task[object], float] = {}
        self.late: set[asyncio.Task[object]] = set()
        self.looking = False

    def look(self) -> None:
        now = self.loop.time()
        for task, until in list(self.due.items()):
            if until <= now:
                del self.due[task]
                self.late.add(task)
                task.cancel()
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

    One task is in one of these at a time.
    """

    __slots__ = ("_seconds", "_task", "_watch")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        watch = _watch_of(loop)
        assert task not in watch.due, "a deadline within another"
        self._task, self._watch = task, watch
        watch.due[task] = loop.time() + self._seconds
        if not watch.looking:
            watch.looking = True
            loop.call_later(min(EVERY, self._seconds), watch.look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, watch = self._task, self._watch
        watch.due.pop(task, None)
        if watch.late and task in watch.late:
            watch.late.remove(task)
            # The cancellation was ours, unless somebody else asked for one as well.
            if task.uncancel() == 0 and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error
