"""Fairness between principals: whoever asks a lot at once does not keep others waiting for all of it.

What waits for the model is kept by principal, and is taken of each in turn. In front of that the event loop parses
and answers what has arrived one after the other, and looks for what arrived meanwhile only then. Where that goes on for
long, what is left waits as well, and each turn of the loop answers a part. It makes smaller batches, so it is left out
while only one principal asks.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Generic, TypeVar

_LONGEST, _MOST = 0.002, 16
"""Seconds of a turn, and requests in it, after which what is left waits for the next one. Time alone would not do: what
is computed together at the end of a turn takes its time only then."""
_ALONE = 1.0  # seconds in which nobody else asked, and there is nobody to be fair to

T = TypeVar("T")


class Queue(Generic[T]):
    """What waits, by principal: who has had a turn is behind all others that wait."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def held(self, who: str) -> int:
        """How many of this principal wait."""
        mine = self._waiting.get(who)
        return 0 if mine is None else len(mine)

    def before(self, who: str) -> tuple[int, int]:
        """How many of those that wait have their turn before one more of this principal, and how many wait in all."""
        own = self.held(who)
        counts = [len(each) for each in self._waiting.values()]
        return sum(min(count, own + 1) for count in counts), sum(counts)

    def add(self, who: str, one: T) -> None:
        """Behind all others of this principal."""
        mine = self._waiting.get(who)
        if mine is None:
            mine = self._waiting[who] = deque()
        mine.append(one)

    def next(self) -> tuple[str, T]:
        """Whose turn it is, and the oldest of that principal."""
        who = next(iter(self._waiting))
        mine = self._waiting.pop(who)
        one = mine.popleft()
        if mine:
            self._waiting[who] = mine
        return who, one

    def again(self, taken: Sequence[tuple[str, T]]) -> None:
        """Put what was taken, in that order, back in front."""
        front: dict[str, deque[T]] = {}
        for who, one in taken:
            front.setdefault(who, deque()).append(one)
        for who, mine in front.items():
            mine.extend(self._waiting.pop(who, ()))
        self._waiting = front | self._waiting


class Turns:
    """To be used from one event loop."""

    def __init__(self) -> None:
        self._waiting = Queue[Callable[[], None]]()
        self._who, self._changed = "", 0.0
        self._answered, self._until = 0, 0.0

    def held(self, who: str) -> int:
        """How many requests of this principal wait for their turn."""
        return self._waiting.held(who)

    def take(self, who: str, now: float, answer: Callable[[], None]) -> None:
        """Call ``answer``, which must not raise, for a request that came ``now``: at once, if this turn is young and
        nobody waits, else when it is the turn of ``who``."""
        if who != self._who:
            self._who, self._changed = who, now
        if self._waiting:
            self._waiting.add(who, answer)
        elif now - self._changed > _ALONE:
            answer()
        elif not self._answered:
            self._answered, self._until = 1, now + _LONGEST
            answer()
            asyncio.get_running_loop().call_soon(self._turn)
        elif self._answered < _MOST and now <= self._until:
            self._answered += 1
            answer()
        else:
            self._waiting.add(who, answer)

    def _turn(self) -> None:
        """The next turn: answer of each in turn what waits, until others of the loop are to have theirs."""
        self._answered, until = 0, perf_counter() + _LONGEST
        while self._waiting and self._answered < _MOST:
            self._answered += 1
            _, answer = self._waiting.next()
            answer()
            if perf_counter() > until:
                break
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)
        else:
            self._answered = 0
