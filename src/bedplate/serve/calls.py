"""How far a replica has come on each connection of gRPC, in memory that outlives it: who held it says goodbye for it.

Another process cannot go on with such a connection, whose tables and windows both sides keep. But a client asks again
by itself, on a new connection, what a goodbye says that nobody saw (RFC 9113, 6.8). So the goodbye of a replica that
was killed names the last call of which it had sent something: those behind it are asked again, their records are void.
"""

import array
import mmap
import os
import socket
import struct
from collections.abc import Callable

from bedplate.http import places
from bedplate.serve.rpc import GOAWAY, frame

_PAGE = 4096
_STATE = struct.Struct("<QQ")
_CLAIM = struct.Struct("<Q40s")
_CLAIMS, _MOST_CLAIMS = 64, 256
_STRIDE = -(-(_CLAIMS + _CLAIM.size * _MOST_CLAIMS) // _PAGE) * _PAGE


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
        return Said(self, number)

    def give(self, number: int) -> None:
        """The connection has ended."""
        self._free.append(number)
        self._left(number)


class Said:
    """What is said on one connection: bytes, the last call that has a part in them, and records of calls."""

    def __init__(self, calls: Calls, number: int) -> None:
        self._calls, self._number, self._at = calls, number, number * _STRIDE
        self._bytes = self._now = self._claims = 0

    def say(self, size: int, last: int) -> None:
        """So many bytes are sent next, in whole frames; ``last`` is the last call that was answered, in part or whole.

        The state before stays beside it: which of the two is true is for the kernel to say.
        """
        self._bytes += size
        self._now = 1 - self._now
        _STATE.pack_into(self._calls.memory, self._at + _STATE.size * self._now, self._bytes, last)

    def claim(self, call: int, record: str) -> None:
        """A record of this id, at most 40 ASCII characters, is about a call."""
        at = self._at + _CLAIMS + _CLAIM.size * (self._claims % _MOST_CLAIMS)
        self._claims += 1
        _CLAIM.pack_into(self._calls.memory, at, call, record.encode("ascii"))

    def end(self) -> None:
        """The connection has ended: the place is as new."""
        used = _CLAIMS + _CLAIM.size * min(self._claims, _MOST_CLAIMS)
        self._calls.memory[self._at : self._at + used] = bytes(used)
        self._calls.give(self._number)


def end(calls: int, number: int, connection: int) -> list[str]:
    """Say goodbye on a connection whose process was killed, and end it; the ids of records about calls not answered.

    ``calls`` and ``connection`` are descriptors. Where a frame was sent in part nothing can be said: the connection is
    reset, which no client takes for an end.
    """
    data = os.pread(calls, _STRIDE, number * _STRIDE)
    states = [_STATE.unpack_from(data, _STATE.size * which) for which in (0, 1)]
    with socket.socket(fileno=os.dup(connection)) as client:
        counted = places.counts(client)
        said = [last for sent, last in states if counted is not None and sent == counted[1]]
        if said:
            _part(client, max(said))
        else:
            places.reset(client)
    answered = max(said) if said else max(last for _, last in states)
    made = _CLAIM.iter_unpack(data[_CLAIMS : _CLAIMS + _CLAIM.size * _MOST_CLAIMS])
    return [record.rstrip(b"\0").decode("ascii") for call, record in made if call > answered]


def _part(client: socket.socket, last: int) -> None:
    client.setblocking(False)
    try:
        client.send(frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + bytes(4)))
        client.shutdown(socket.SHUT_WR)
        left = array.array("B", bytes(1 << 16))
        while client.recv_into(left):  # what nobody read would make a reset of the end
            pass
    except OSError:  # nothing more is there, or the client has left
        pass
