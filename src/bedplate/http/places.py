"""What a server has in hand of each connection, in memory that outlives it: another process can go on with it.

What arrives is received straight into this memory, and an answer lies in it before it is sent, so nothing is ever in
the process alone. How far either got the kernel counts itself (``TCP_INFO`` of tcp(7)): what was taken from a
connection and what it was given, to the byte, however the process ended. What a place says changes as a whole: a state
is written beside the one in force, and one byte then says which of the two is.
"""

import array
import ctypes
import fcntl
import mmap
import os
import socket
import struct
import termios
from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol

import msgspec

_PAGE = 4096
_SIZES = struct.Struct("<2Q")
_STATE = struct.Struct("<6Q")
_STATES = 64, 128
_CLAIM = struct.Struct("<Q40s")
_CLAIMS, _MOST_CLAIMS = 192, 8
_ARRIVED = _CLAIMS + _CLAIM.size * _MOST_CLAIMS
_STAGED = 64 << 20
"""Bytes of an answer that can be kept; a larger one is sent all the same, and lost with the process."""
PIECE = 64 << 10
"""Bytes that are received at once."""
_ENOUGH = 8 << 10
"""Bytes that may lie in a place, answered and sent, before it begins anew: doing so each time would cost more."""
_BESIDE = 256 << 10
"""Bytes that may arrive beside a body: its head, and requests that were sent before they were asked for."""
_LAST, _LOST = 1, 2
_MOST_TRIES = 2
_ESTABLISHED, _CLOSE_WAIT = 1, 8

_libc = ctypes.CDLL(None)


class Claims(Protocol):
    """A request of which a record may be."""

    def claim(self, record: str) -> None:
        """Say that a record of this id, at most 40 ASCII characters, is about it."""


_answering: ContextVar[Claims | None] = ContextVar("answering", default=None)


def answering(request: Claims) -> None:
    """What this task does from here on is about the request."""
    _answering.set(request)


def claim(record: str) -> None:
    """Say that a record of this id is about the request that this task answers.

    If the process is killed before the answer is given, the record is about an answer that nobody got.
    """
    request = _answering.get()
    if request is not None:
        request.claim(record)


class Left(msgspec.Struct, frozen=True):
    """A connection as a killed process left it.

    ``unanswered`` is what it received and did not answer, ``rest`` what it wanted to send and did not; ``received`` and
    ``written`` are the bytes that passed the connection before. ``last`` says that it ends with ``rest``. ``tries`` is
    how many processes ended with ``unanswered`` in hand; ``hand`` is what whoever gives the connection on calls it.
    """

    unanswered: bytes
    rest: bytes
    received: int
    written: int
    last: bool
    tries: int
    hand: int = 0

    @property
    def hopeless(self) -> bool:
        """Whether too many processes ended over what is unanswered for another one to try it."""
        return bool(self.unanswered) and self.tries > _MOST_TRIES


class Places:
    """Memory for ``count`` connections with bodies of at most ``body`` bytes; pages that are not used take none.

    ``kept`` is called with the number of a place, the descriptor of its connection, and how another process left that;
    ``left`` with the number when it is free again, ``parted`` with the number when it is for others from now on.

    Raises:
        OSError: the system has no such memory.
    """

    def __init__(
        self,
        count: int,
        body: int,
        kept: Callable[[int, int, Left | None], None],
        left: Callable[[int], None],
        parted: Callable[[int], None],
    ) -> None:
        self.kept, self.left, self.parted = kept, left, parted
        arrived = -(-(body + _BESIDE + _ARRIVED) // _PAGE) * _PAGE
        self.stride = arrived + _STAGED
        self.arrived, self.staged = arrived - _ARRIVED, arrived
        self.descriptor = os.memfd_create("places", os.MFD_CLOEXEC)
        size = _PAGE + count * self.stride
        os.ftruncate(self.descriptor, size)
        self.memory = mmap.mmap(self.descriptor, size)
        _SIZES.pack_into(self.memory, 0, self.stride, self.staged)
        self.view = memoryview(self.memory)
        self._free = list(range(count - 1, -1, -1))

    def take(self, descriptor: int, left: Left | None = None) -> "Place | None":
        """A place for a connection, new or ``left`` by another process; None when all are taken."""
        if not self._free:
            return None
        place = Place(self, self._free.pop(), descriptor, left)
        self.kept(place.number, descriptor, left)
        return place

    def give(self, place: "Place") -> None:
        """The connection has ended."""
        self._free.append(place.number)
        self.left(place.number)


class Place:
    """The memory of one connection, for the process that has it."""

    def __init__(self, places: Places, number: int, descriptor: int, left: Left | None) -> None:
        self.number = number
        self._places, self._descriptor = places, descriptor
        self._at = at = _PAGE + number * places.stride
        self._arrived = places.view[at + _ARRIVED : at + _ARRIVED + places.arrived]
        self._out = at + places.staged
        self._aside = bytearray()
        self._end = self._done = self._staged = self._claims = self._flags = self._tries = 0
        self._received = self._origin = self.written = 0
        self._ended = False
        self._now = places.memory[at]
        if left is not None:
            size = len(left.unanswered)
            if size > len(self._arrived) or len(left.rest) > _STAGED:
                self._flags = _LOST
            else:
                self._arrived[:size] = left.unanswered
                places.memory[self._out : self._out + len(left.rest)] = left.rest
            self._end, self._staged = size, len(left.rest)
            self._received, self._origin = left.received - size, left.written
            self.written = left.written + len(left.rest)
            self._tries = left.tries
            self._flags |= _LAST if left.last else 0
        self._commit()

    def room(self, most: int = PIECE) -> memoryview:
        """Where the next bytes, so many at ``most``, are to be received."""
        room = self._arrived[self._end : self._end + most]
        if room and not self._flags & _LOST:
            return room
        if not self._flags & _LOST:
            self._flags |= _LOST
            self._commit()
        self._aside = bytearray(PIECE)
        return memoryview(self._aside)

    def took(self, size: int) -> memoryview:
        """The bytes that were received just now, to be copied before more are."""
        start, self._end = self._end, self._end + size
        return memoryview(self._aside)[:size] if self._flags & _LOST else self._arrived[start : self._end]

    def claim(self, record: str) -> None:
        """See :func:`claim`. It holds until an answer is given, for it says of which bytes it is about the first."""
        if self._claims < _MOST_CLAIMS and not self._ended:
            at = self._at + _CLAIMS + self._claims * _CLAIM.size
            _CLAIM.pack_into(self._places.memory, at, self._received + self._done, record.encode("ascii"))
            self._claims += 1

    def answer(self, data: bytes, unread: int, *, last: bool) -> None:
        """Keep an answer that will be sent next, to all that arrived but the last ``unread`` bytes."""
        if self.written != self._origin + self._staged:
            self._origin, self._staged = self.written, 0
        if self._staged + len(data) > _STAGED:
            self._flags |= _LOST
        else:
            at = self._out + self._staged
            self._places.memory[at : at + len(data)] = data
        self._staged += len(data)
        self.written += len(data)
        self._flags |= _LAST if last else 0
        self._settle(unread)

    def done(self, unread: int) -> None:
        """All but the last ``unread`` bytes was answered; if in pieces, those are not kept."""
        if self.written != self._origin + self._staged:
            self._origin, self._staged = self.written, 0
            self._settle(unread)

    def _settle(self, unread: int) -> None:
        self._done, self._claims, self._tries = self._end - unread, 0, 0
        self._commit()

    @property
    def used(self) -> bool:
        """Whether so much lies here that it is worth to :meth:`rewind`."""
        return self._end > _ENOUGH or self._staged > _ENOUGH

    def rewind(self) -> None:
        """Everything was answered, and the kernel has the answers: begin anew."""
        if max(self._end, self._staged) > PIECE:
            self._trim()
        self._received += self._end
        self._origin = self.written
        self._end = self._done = self._staged = self._claims = self._flags = 0
        self._commit()

    def _trim(self) -> None:
        """Give the pages of something large back to the system."""
        start = self._at + PIECE
        self._places.memory.madvise(mmap.MADV_REMOVE, start, self._out - start)
        self._places.memory.madvise(mmap.MADV_REMOVE, self._out, _STAGED)

    def end(self) -> None:
        """The connection has ended, for its client as well; what still works for it changes nothing here."""
        shut_down(self._descriptor)
        self._ended = True
        self._arrived.release()
        self._places.give(self)

    def part(self) -> None:
        """Leave the connection, with what is said of it here, to others: nothing changes here any more."""
        self._ended = True
        self._arrived.release()
        self._places.parted(self.number)

    def _commit(self) -> None:
        now = self._now = 1 - self._now
        memory, at = self._places.memory, self._at
        _STATE.pack_into(
            memory, at + _STATES[now], self._received, self._done, self._origin, self._staged, self._flags, self._tries
        )
        memory[at] = now


def shut_down(descriptor: int) -> None:
    """End a connection for both sides, whoever else has it open: closing it here would end nothing."""
    _libc.shutdown(descriptor, socket.SHUT_RDWR)


def reset(connection: socket.socket) -> None:
    """Break a connection off, whoever else has it open, so that its client cannot take that for an end."""
    _libc.connect(connection.fileno(), bytes(16), 16)  # to no address: connect(2) of a stream that is connected


# ------------------------------------------------------------------------------------------------------ who comes after


def left(places: int, number: int, connection: socket.socket) -> Left | None:
    """The connection of a place, whose process has ended, in the memory with the descriptor ``places``.

    None where nobody can go on: it was closed, or what is missing was kept nowhere.
    """
    counted = counts(connection)
    if counted is None:
        return None
    taken, written = counted
    at, staged_at = _where(places, number)
    received, done, origin, staged, flags, tries = _state(places, at)
    rest = origin + staged - written
    unanswered = taken - received - done
    if flags & _LOST or unanswered < 0 or not 0 <= rest <= staged:
        return None
    return Left(
        os.pread(places, unanswered, at + _ARRIVED + done),
        os.pread(places, rest, at + staged_at + staged - rest),
        taken,
        written,
        bool(flags & _LAST),
        tries + 1 if unanswered else 0,
    )


def claims(places: int, number: int) -> list[str]:
    """The ids of records about the request that the connection of a place waits for."""
    at, _ = _where(places, number)
    received, done, *_ = _state(places, at)
    made = _CLAIM.iter_unpack(os.pread(places, _CLAIM.size * _MOST_CLAIMS, at + _CLAIMS))
    # Those of requests that were answered are about bytes before.
    return [
        record.rstrip(b"\0").decode("ascii") for position, record in made if record[0] and position == received + done
    ]


def _where(places: int, number: int) -> tuple[int, int]:
    """Where a place begins, and where in it the answers are."""
    stride, staged = _SIZES.unpack(os.pread(places, _SIZES.size, 0))
    return _PAGE + number * stride, staged


def _state(places: int, at: int) -> tuple[int, ...]:
    head = os.pread(places, _CLAIMS, at)
    return _STATE.unpack_from(head, _STATES[head[0]])


def counts(connection: socket.socket) -> tuple[int, int] | None:
    """The bytes that were taken from a connection, and that were given to it, ever; None when it is not open.

    Offsets are those of ``struct tcp_info`` in linux/tcp.h. An end that the other side sent counts as a byte received.
    """
    while True:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
        if len(info) < 216 or info[0] not in (_ESTABLISHED, _CLOSE_WAIT):
            return None
        (received,) = struct.unpack_from("Q", info, 128)
        (unsent,) = struct.unpack_from("I", info, 144)
        sent, again = struct.unpack_from("QQ", info, 200)
        waiting = array.array("i", [0])
        fcntl.ioctl(connection.fileno(), termios.FIONREAD, waiting)
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)[128:136] == info[128:136]:
            return received - waiting[0] - (info[0] == _CLOSE_WAIT), sent - again + unsent
