"""Fairness between principals: whoever asks a lot at once does not keep others waiting for all of it.

What waits for the model is kept by principal, and is taken of each in turn. In front of that the event loop parses
and answers what has arrived one after the other, and looks for what arrived meanwhile only then. Where that goes on for
long, what is left waits as it came, and each turn of the loop answers a part: as many as take half a millisecond, by
what the last ones took. It makes smaller batches, so it is left out while only one principal asks.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Generic, TypeVar

_LONGEST, _MOST = 0.0005, 8
"""Seconds of a turn, and requests in it, after which what is left waits for the next one."""
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
    """To be used from one event loop; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._waiting = Queue[Callable[[], None]]()
        self._who, self._changed = "", 0.0
        self._had = set[str]()  # who was answered in this turn
        self._let = self._answered = 0  # requests of this turn that did not wait, and all of them
        self._began = 0.0  # when this turn did
        self._cost = 0.0  # seconds of a turn for each of its requests, in the mean of the last ones
        self.most = _MOST
        """How many requests a turn answers now."""
        self._turning = self._young = False

    def held(self, who: str) -> int:
        """How many requests of this principal wait for their turn."""
        return self._waiting.held(who)

    def take(self, who: str, now: float, answer: Callable[[], None]) -> None:
        """Call ``answer``, which must not raise, for a request that came ``now``: at once, or when it is its turn."""
        if self.granted(who, now):
            answer()
        else:
            self.wait(who, answer)

    def granted(self, who: str, now: float) -> bool:
        """Whether a request that came ``now`` is to be answered at once: this turn is young, or nobody but others waits
        and this one was not answered in it. Otherwise it has to :meth:`wait`."""
        if who != self._who:
            self._who, self._changed = who, now
        if now - self._changed > _ALONE and not self._waiting:
            return True
        if not self._turning:
            self._turning = self._young = True
            self._begin(now)
            asyncio.get_running_loop().call_soon(self._turn)
        next_one = not self._waiting or (who not in self._had and not self._waiting.held(who))
        if not next_one or self._let >= self.most:
            return False
        self._let += 1
        self._count(who)
        return True

    def wait(self, who: str, answer: Callable[[], None]) -> None:
        """Call ``answer``, which must not raise, when it is the turn of a request that was not granted."""
        self._waiting.add(who, answer)

    def _begin(self, now: float) -> None:
        self._began, self._let, self._answered = now, 0, 0
        self._had.clear()

    def _count(self, who: str) -> None:
        self._answered += 1
        self._had.add(who)

    def _turn(self) -> None:
        """The next turn: answer of each in turn what waits, until others of the loop are to have theirs."""
        if not self._waiting:
            self._turning = False
            return
        asyncio.get_running_loop().call_soon(self._turn)
        if self._young:  # what it let in is computed together after this: nothing more beside it
            self._young = False
            return
        now = self._clock()
        self._learn(now - self._began)
        self._begin(now)
        while self._waiting and self._answered < self.most:
            who, answer = self._waiting.next()
            self._count(who)
            answer()
            if self._clock() - now > _LONGEST:
                break

    def _learn(self, took: float) -> None:
        """How many requests fit into a turn. The time of each alone would not do: what is computed together at the end
        of a turn takes its time only then."""
        if not self._answered:
            return
        each = took / self._answered
        self._cost += (min(each, 2 * self._cost) - self._cost) / 4 if self._cost else each
        self.most = max(1, min(_MOST, int(_LONGEST / self._cost))) if self._cost else _MOST
