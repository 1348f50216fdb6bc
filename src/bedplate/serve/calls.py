"""How far a replica has come on each connection of gRPC, in memory that outlives it: who held it says goodbye for it.

Another process cannot go on with such a connection, whose tables and windows both sides keep. But a client asks again
by itself, on a new connection, what a goodbye says that nobody saw (RFC 9113, 6.8). So of a replica that was killed
each call of which it had sent a part is ended with a status, and the goodbye then names no call: what its client had
whole is over for it, and all else is asked again. Records of what nobody got are void.
"""

import contextlib
import mmap
import os
import socket
import struct
from collections.abc import Callable, Collection

from bedplate.http import places
from bedplate.serve.frames import ENDS, HEADERS, SETTINGS, frame, goaway
from bedplate.serve.hpack import literal

MOST = 256
"""Calls at a time on one connection."""
_PAGE = 4096
_STATE = struct.Struct("<QI")
_CALL = struct.Struct("<I")
_STATES = 0, _STATE.size + _CALL.size * MOST
_CLAIM = struct.Struct("<Q40s")
_ANSWERED = struct.Struct("<Q")
_CLAIMS = -(-2 * _STATES[1] // _CLAIM.size) * _CLAIM.size
_STRIDE = -(-(_CLAIMS + _CLAIM.size * MOST) // _PAGE) * _PAGE
_KILLED = literal(b"grpc-status", b"14") + literal(b"grpc-message", b"the replica was killed while it answered")


class Calls:
    """Memory for ``count`` connections; pages that are not used take none.

    ``kept`` is called with the number of a connection here and its descriptor, ``left`` with the number at its end.

    Raises:
        OSError: the system has no such memory.
    """

    def __init__(self, count: int, kept: Callable[[int, int], None], left: Callable[[int], None]) -> None:
        self._kept, self._left = kept, left
        self.descriptor = os.memfd_create("calls", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, count * _STRIDE)
        self.memory = mmap.mmap(self.descriptor, count * _STRIDE)
        self._free = list(range(count - 1, -1, -1))

    def take(self, descriptor: int) -> "Said | None":
        """What is said on a new connection; None where all places are taken, and it ends with this process."""
        if not self._free:
            return None
        number = self._free.pop()
        self._kept(number, descriptor)
        return Said(self, number, descriptor)

    def give(self, number: int) -> None:
        """The connection has ended."""
        self._free.append(number)
        self._left(number)


class Said:
    """What is said on one connection: how many bytes, which calls they leave answered in part, and records of calls."""

    def __init__(self, calls: Calls, number: int, descriptor: int) -> None:
        self._calls, self._number, self._descriptor = calls, number, descriptor
        self._at = number * _STRIDE
        self._now = self._claims = 0
        self._open: dict[int, int] = {}

    def say(self, size: int, partly: Collection[int]) -> None:
        """``size`` bytes in all, whole frames, are sent next; after them ``partly`` are the calls answered in part.

        The state before stays beside it: which of the two is true is for the kernel to say.
        """
        self._now = 1 - self._now
        at = self._at + _STATES[self._now]
        for place, call in enumerate(partly):
            _CALL.pack_into(self._calls.memory, at + _STATE.size + _CALL.size * place, call)
        _STATE.pack_into(self._calls.memory, at, size, len(partly))

    def claim(self, call: int, record: str) -> None:
        """A record of this id, at most 40 ASCII characters, is about what a call is answered next."""
        at = self._open[call] = self._at + _CLAIMS + _CLAIM.size * (self._claims % MOST)
        self._claims += 1
        _CLAIM.pack_into(self._calls.memory, at, 0, record.encode("ascii"))

    def answered(self, call: int, size: int) -> None:
        """What was claimed of a call is answered, in part or whole, when ``size`` bytes in all are sent."""
        at = self._open.pop(call, None)
        if at is not None:
            _ANSWERED.pack_into(self._calls.memory, at, size)

    def end(self) -> None:
        """The connection has ended, for its client as well: the place is as new."""
        places.shut_down(self._descriptor)
        used = _CLAIMS + _CLAIM.size * min(self._claims, MOST)
        self._calls.memory[self._at : self._at + used] = bytes(used)
        self._calls.give(self._number)


def end(calls: int, number: int, connection: int) -> list[str]:
    """Say goodbye on a connection whose process was killed; the ids of records about what nobody got.

    ``calls`` and ``connection`` are descriptors. The connection stays open for the client, which may send: were it
    closed, the kernel would reset it, and the client might never come to read the goodbye. Where a frame was sent in
    part nothing can be said: it is reset here, which no client takes for an end.
    """
    data = os.pread(calls, _STRIDE, number * _STRIDE)
    states = [_STATE.unpack_from(data, at) for at in _STATES]
    with socket.socket(fileno=os.dup(connection)) as client:
        counted = places.counts(client)
        if counted is None:  # its client has left: what became of the last answers nobody knows
            sent = max(size for size, _ in states)
        else:
            sent = counted[1]
            said = [(at, count) for at, (size, count) in zip(_STATES, states, strict=True) if size == sent]
            if said:
                at, count = said[0]
                _part(client, struct.unpack_from(f"<{count}I", data, at + _STATE.size), greeted=sent > 0)
            else:
                places.reset(client)
    made = _CLAIM.iter_unpack(data[_CLAIMS : _CLAIMS + _CLAIM.size * MOST])
    return [record.rstrip(b"\0").decode("ascii") for at, record in made if record[0] and not 0 < at <= sent]


def _part(client: socket.socket, partly: Collection[int], *, greeted: bool) -> None:
    """End the calls that were answered in part, and have everything else asked again.

    To a client that was not greeted, the server would seem to be down, and it would wait before it comes again.
    """
    ended = b"" if greeted else frame(SETTINGS, 0, 0, b"")
    ended += b"".join(frame(HEADERS, ENDS, call, _KILLED) for call in partly)
    client.setblocking(False)
    with contextlib.suppress(OSError):  # the client has left
        client.send(ended + goaway(0))
        client.shutdown(socket.SHUT_WR)
