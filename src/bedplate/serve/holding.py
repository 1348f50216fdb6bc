"""Connections that outlive the replica that has them: its supervisor holds a second end of each, and gives them on.

A replica tells of every connection that it takes and ends, over a socket between the two. With its first word come the
descriptors of the memory in which its connections and its log live (:mod:`bedplate.http.places`,
:mod:`bedplate.serve.calls`, :class:`bedplate.journal.Backlog`). When it is killed another replica gets the connections,
and goes on with each where that memory and the kernel say that the first had come to; those of gRPC get a goodbye.
"""

import array
import asyncio
import logging
import os
import select
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bedplate import journal
from bedplate.errors import BedplateError, IntegrityError
from bedplate.http import places
from bedplate.http.places import Left, Places
from bedplate.http.server import Server
from bedplate.journal import Backlog, predictions
from bedplate.serve import calls
from bedplate.serve.calls import Calls

_log = logging.getLogger(__name__)
_WORD = struct.Struct("<cII")
_MEMORY, _KEPT, _LEFT, _PARTED, _DROPPED, _GIVEN = b"m", b"k", b"l", b"p", b"d", b"g"
_NOBODY = 0xFFFFFFFF
_AT_ONCE = 200
"""Connections in one message: the kernel lets there be 253 descriptors."""
_LONGEST = _WORD.size + 4 * _AT_ONCE
_CALLS = 1 << 24
"""What is added to the numbers of connections of gRPC, which have a memory of their own."""
_SPARE = 64
"""Places for connections that are only told to come again."""


class Descriptor:
    """An open descriptor, closed when nobody has this any more."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class Orphan(msgspec.Struct, frozen=True):
    """A connection whose replica has ended, or leaves it to others, and its place in the memory of that one.

    ``quiet`` says that its client waited for nothing.
    """

    memory: Descriptor
    place: int
    connection: Descriptor
    quiet: bool = False


def stirred(orphans: Sequence[Orphan]) -> tuple[list[Orphan], bool]:
    """Those whose clients are still there, and whether one of them waits for an answer by now."""
    poll = select.poll()
    for orphan in orphans:
        if orphan.quiet:
            poll.register(orphan.connection.number, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(0)}
    gone = {descriptor for descriptor in ready if not _asks(descriptor)}
    here = [orphan for orphan in orphans if orphan.connection.number not in gone]
    return here, any(not orphan.quiet or orphan.connection.number in ready for orphan in here)


def attended(connections: Sequence[Descriptor]) -> list[Descriptor]:
    """Those of connections that were ended from here whose clients have not hung up yet."""
    poll = select.poll()
    for connection in connections:
        poll.register(connection.number, 0)
    gone = {descriptor for descriptor, _ in poll.poll(0)}
    return [connection for connection in connections if connection.number not in gone]


def _asks(descriptor: int) -> bool:
    """Whether something lies there to be read, other than an end."""
    connection = socket.socket(fileno=os.dup(descriptor))
    with connection:
        try:
            return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False


class Holder:
    """The supervisor's side: what one replica has in hand. Whoever looks after the replica calls it, one at a time."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        self.ended = False
        self.parted: list[Orphan] = []
        """What it leaves to others while it ends; whoever gives them on takes them out of here."""
        self.dismissed: list[Descriptor] = []
        """Connections of gRPC on which it was ended with a goodbye, to be kept until their clients have read that."""
        self._memory: Descriptor | None = None
        self._calls: Descriptor | None = None
        self._backlog: Descriptor | None = None
        self._held: dict[int, Descriptor] = {}
        self._given: dict[int, Orphan] = {}
        self._hands = 0

    def hear(self) -> None:
        """Take in what the replica said since the last time; sets ``ended`` when it says nothing any more."""
        while not self.ended:
            try:
                data, descriptors = _receive(self.socket, _WORD.size)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if len(data) != _WORD.size:
                self.ended = True
                return
            word, place, hand = _WORD.unpack(data)
            self._take(word, place, hand, [Descriptor(number) for number in descriptors])

    def _take(self, word: bytes, place: int, hand: int, given: Sequence[Descriptor]) -> None:
        self._given.pop(hand, None)
        if word == _MEMORY and len(given) == 3:
            self._memory, self._calls, self._backlog = given
        elif word == _KEPT:
            if given:  # none where this process may open no more: that connection ends with its replica
                self._held[place] = given[0]
        elif word == _LEFT:
            self._held.pop(place, None)
        elif word == _PARTED and self._memory is not None:
            connection = given[0] if given else self._held.pop(place, None)
            if connection is not None:
                self.parted.append(Orphan(self._memory, place, connection, quiet=True))

    def give(self, orphans: list[Orphan]) -> list[Orphan]:
        """Have the replica go on with connections; those that it cannot be told of now are given back."""
        while orphans:
            memory = orphans[0].memory
            now = [orphan for orphan in orphans[:_AT_ONCE] if orphan.memory is memory]
            data = _WORD.pack(_GIVEN, len(now), self._hands) + array.array("I", [one.place for one in now]).tobytes()
            try:
                socket.send_fds(self.socket, [data], [memory.number, *(one.connection.number for one in now)])
            except OSError:
                break
            self._given.update(enumerate(now, self._hands))
            self._hands += len(now)
            orphans = [orphan for orphan in orphans if orphan not in now]
        return orphans

    def end(self, log: Path) -> list[Orphan]:
        """The connections that the replica had when it ended; predictions that it had not logged go to ``log`` here."""
        self.hear()
        self.socket.close()
        self.ended = True
        memory, called = self._memory, self._calls
        held = {place: one for place, one in self._held.items() if place < _CALLS}
        calling = {place - _CALLS: one for place, one in self._held.items() if place >= _CALLS}
        orphans = list(self._given.values())
        self._held, self._given, self._memory, self._calls = {}, {}, None, None
        if memory is None or called is None or self._backlog is None:
            return orphans
        void = {id for place in held for id in places.claims(memory.number, place)}
        void.update(id for place, one in calling.items() for id in calls.end(called.number, place, one.number))
        self.dismissed = list(calling.values())
        try:
            late = journal.rescue(log, self._backlog.number, _id_of, void)
        except (OSError, BedplateError) as error:
            _log.error("what a replica had for the prediction log is lost: %s", error)
        else:
            count = len(held) + len(calling)
            _log.info("a replica left %d connections and %d predictions for the log", count, late)
        self._backlog = None
        return orphans + [Orphan(memory, place, connection) for place, connection in held.items()]


class _Identified(msgspec.Struct):
    id: str


def _id_of(record: bytes) -> str:
    try:
        return predictions.part(record, _Identified).id
    except IntegrityError:  # kept in another form, by somebody who claims nothing
        return ""


class Held:
    """The replica's side: the memory it works in, and its word to the supervisor on the socket ``descriptor``.

    Raises:
        OSError: the system has no such memory.
    """

    def __init__(self, descriptor: int, connections: int, body: int) -> None:
        self.places = Places(connections + _SPARE, body, self._kept, self._left, self._parted)
        self.calls = Calls(connections, self._called, lambda number: self._left(_CALLS + number))
        self.backlog = Backlog()
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._waiting: dict[int, tuple[bytes, int, tuple[int, ...]]] = {}
        self._adopting: set[asyncio.Task[None]] = set()
        memory = self.places.descriptor, self.calls.descriptor, self.backlog.descriptor
        self._say(_MEMORY, 0, _NOBODY, *memory)

    def start(self, server: Server) -> None:
        """Go on with the connections that come from now on."""
        self._server = server
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def _kept(self, place: int, descriptor: int, left: Left | None) -> None:
        self._say(_KEPT, place, _NOBODY if left is None else left.hand, descriptor)

    def _called(self, number: int, descriptor: int) -> None:
        self._say(_KEPT, _CALLS + number, _NOBODY, descriptor)

    def _left(self, place: int) -> None:
        self._say(_LEFT, place, _NOBODY)

    def _parted(self, place: int) -> None:
        _, _, unsaid = self._waiting.get(place, (b"", _NOBODY, ()))
        self._say(_PARTED, place, _NOBODY, *unsaid)

    async def said(self, seconds: float) -> None:
        """Wait until the supervisor was told everything, or for so long."""
        end = asyncio.get_running_loop().time() + seconds
        while self._waiting and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)

    def _say(self, word: bytes, place: int, hand: int, *descriptors: int) -> None:
        if not self._waiting and self._sent(word, place, hand, descriptors):
            return
        if not self._waiting:
            asyncio.get_running_loop().add_writer(self._socket, self._say_more)
        before = self._waiting.pop(place, None)
        if before is not None and hand == _NOBODY:
            hand = before[1]  # it was given to this replica and ended before that could be said
        self._waiting[place] = word, hand, descriptors

    def _sent(self, word: bytes, place: int, hand: int, descriptors: Sequence[int]) -> bool:
        """Whether it is said, or there is nobody to hear it."""
        data = _WORD.pack(word, place, hand)
        try:
            socket.send_fds(self._socket, [data], descriptors) if descriptors else self._socket.send(data)
        except BlockingIOError:
            return False
        except OSError as error:  # the supervisor ends, and this process with it; or too many are on their way
            _log.debug("nothing can be told to the supervisor: %s", error)
        return True

    def _say_more(self) -> None:
        for place, (word, hand, descriptors) in list(self._waiting.items()):
            if not self._sent(word, place, hand, descriptors):
                return
            del self._waiting[place]
        asyncio.get_running_loop().remove_writer(self._socket)

    def _hear(self) -> None:
        try:
            data, descriptors = _receive(self._socket, _LONGEST)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._socket)
            return
        _, count, hand = _WORD.unpack_from(data)
        memory, *connections = descriptors
        numbers = array.array("I", data[_WORD.size :])
        for place, number in zip(numbers[:count], connections, strict=False):
            self._adopt(memory, place, socket.socket(fileno=number), hand)
            hand += 1
        os.close(memory)

    def _adopt(self, memory: int, place: int, connection: socket.socket, hand: int) -> None:
        left = places.left(memory, place, connection)
        if left is None:
            places.reset(connection)
            connection.close()
            self._say(_DROPPED, _NOBODY, hand)
            return
        left = msgspec.structs.replace(left, hand=hand)
        task = asyncio.get_running_loop().create_task(self._server.adopt(connection, left))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)


def _receive(source: socket.socket, size: int) -> tuple[bytes, list[int]]:
    data, descriptors, _, _ = socket.recv_fds(source, size, _AT_ONCE + 1, socket.MSG_CMSG_CLOEXEC)
    return data, descriptors
