"""What a replica asks of the supervisor that holds it, and what it is told: one line of JSON each way.

A replica cannot let itself rest, nor write into the ledger. It has found out who asks and whether they may, as for a
prediction; the supervisor has its owner decide again and put it on record, and only then does it.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from bedplate import errors
from bedplate.errors import BedplateError, UnavailableError
from bedplate.serve.access import Admitted

Wish = Literal["load", "unload"]
_SECONDS = 10.0
_MOST = 16
"""Wishes that may wait for their answer at once."""
_LINES = 1 << 16


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One wish: what for the endpoint as a whole, and which principal asks. ``number`` comes back with the answer."""

    number: int
    wish: Wish
    principal: str


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a wish; ``error`` is why it was refused, as :meth:`BedplateError.to_dict` says it."""

    number: int
    error: dict[str, Any] | None = None


_told = msgspec.json.Decoder(Told)


class Wishes:
    """The replica's side. ``say`` tells the supervisor a line, ``descriptor`` gives its lines; None if nobody holds it.

    To be used from one event loop.
    """

    def __init__(self, say: Callable[..., None], descriptor: int | None) -> None:
        self._say, self._descriptor = say, descriptor
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Told]] = {}
        self._rest = b""
        self._listening = False

    async def ask(self, wish: Wish, admitted: Admitted) -> None:
        """Have the supervisor do it; returns when it is on record.

        Raises:
            UnavailableError: nobody holds this replica, or there was no answer in time.
            BedplateError: it was refused; the error is the owner's.
        """
        if self._descriptor is None or len(self._waiting) >= _MOST:
            busy = self._descriptor is not None
            raise UnavailableError(
                "too much is asked of this endpoint already" if busy else "nothing here loads and unloads replicas",
                fix="try again" if busy else "ask whatever runs this replica",
            )
        loop = asyncio.get_running_loop()
        if not self._listening:
            os.set_blocking(self._descriptor, False)
            loop.add_reader(self._descriptor, self._hear, loop, self._descriptor)
            self._listening = True
        self._number += 1
        told = self._waiting[self._number] = loop.create_future()
        try:
            asked = Asked(number=self._number, wish=wish, principal=admitted.principal.id)
            self._say("asks", asked=msgspec.to_builtins(asked))
            answer = await asyncio.wait_for(told, _SECONDS)
        except TimeoutError as error:
            raise UnavailableError("the owner of this endpoint gave no answer", fix="try again") from error
        finally:
            del self._waiting[asked.number]
        if answer.error is not None:
            raise errors.of_dict(answer.error)

    def _hear(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(descriptor, _LINES)
            if not data:
                loop.remove_reader(descriptor)  # the supervisor ended, and so will this process
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            told = _told.decode(line)
            waiting = self._waiting.get(told.number)
            if waiting is not None and not waiting.done():
                waiting.set_result(told)


def answer_to(number: int, error: BedplateError | None) -> bytes:
    """The line that tells a replica what came of its wish."""
    return msgspec.json.encode(Told(number=number, error=None if error is None else error.to_dict())) + b"\n"
