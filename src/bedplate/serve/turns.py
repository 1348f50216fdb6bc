"""Fairness between principals: whoever asks a lot at once does not keep others waiting for all of it.

The event loop answers what has arrived one after the other, and looks for what arrived meanwhile only then. Where that
goes on for long, what is left waits here, and each turn of the loop answers a part, of each principal in turn. It makes
smaller batches, so it is left out while only one principal asks.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter

_LONGEST = 0.002  # seconds of a turn, after which what is left waits for the next one
_ALONE = 1.0  # seconds in which nobody else asked, and there is nobody to be fair to
_PAUSE = 0.0001  # seconds without an answer after which it is another turn


class Turns:
    """To be used from one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Callable[[], None]]] = {}
        self._who = ""
        self._changed = self._since = self._last = 0.0

    def take(self, who: str, now: float, answer: Callable[[], None]) -> None:
        """Call ``answer``, which must not raise, for a request that came ``now``: at once, if this turn is young and
        nobody waits, else when it is the turn of ``who``."""
        if who != self._who:
            self._who, self._changed = who, now
        waiting = self._waiting
        if not waiting:
            if now - self._changed > _ALONE:
                answer()
                return
            if now - self._last > _PAUSE:
                self._since = now
            if now - self._since <= _LONGEST:
                answer()
                self._last = perf_counter()
                return
            asyncio.get_running_loop().call_soon(self._turn)
        mine = waiting.get(who)
        if mine is None:
            mine = waiting[who] = deque()
        mine.append(answer)

    def _turn(self) -> None:
        """Answer of each in turn, until all is answered or others of the loop are to have theirs."""
        waiting, until = self._waiting, perf_counter() + _LONGEST
        while waiting:
            who = next(iter(waiting))
            mine = waiting.pop(who)
            answer = mine.popleft()
            if mine:
                waiting[who] = mine  # behind all others
            answer()
            if perf_counter() > until and waiting:
                asyncio.get_running_loop().call_soon(self._turn)
                return
