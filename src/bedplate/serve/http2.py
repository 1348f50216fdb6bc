"""One connection of HTTP/2 (RFC 9113) as far as gRPC needs it: streams, flow control, and messages within streams.

Nothing is pushed, prioritised or encoded with a table.
"""

import asyncio
import socket
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bedplate.serve.calls import Said
from bedplate.serve.frames import (
    ACK,
    CALM,
    CLOSED,
    COMPRESSION,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENDS,
    FLOW,
    HEADERS,
    LARGEST_WINDOW,
    NO_ERROR,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL,
    PUSH,
    REFUSED,
    RST,
    SETTINGS,
    SIZE,
    WINDOW_UPDATE,
    BrokenError,
    frame,
    goaway,
)
from bedplate.serve.hpack import Decoder, HpackError
from bedplate.serve.rpc import MOST_UNSENT, Rpc

if TYPE_CHECKING:
    from bedplate.serve.http2_server import Http2Server

FIRST_WINDOW = 65_535
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = 16_384
_MOST_METADATA = 8 << 10
_MOST_RESETS = 200
"""How many calls more than it let be answered a client may cancel before it is sent away."""
_IDLE = 300.0
_LEAST_HELD = 16 << 20
"""Bytes of unfinished and waiting messages that one connection may have here at least."""
_GRPC = (b"application/grpc", b"application/grpc+proto")


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: "Http2Server", loop: asyncio.AbstractEventLoop, said: Said | None) -> None:
        self.server, self.loop = server, loop
        self.first_window = FIRST_WINDOW
        self.held = 0
        """Bytes of messages that have come and were not taken."""
        self._hpack = Decoder(_MOST_METADATA)
        self._transport: Any = None
        self._rest = _PREFACE[:0]
        self._greeted = self._leaving = self._closing = False
        self._rpcs: dict[int, Rpc] = {}
        self._last = 0
        self._block: tuple[int, int, bytearray] | None = None
        self._out: list[bytes] = []
        self._flushing = False
        self._said = said
        self._written = 0
        """Bytes for the client so far, in whole frames, sent or about to be."""
        self._partly: set[int] = set()
        """The calls that were answered in part."""
        self._out_window = FIRST_WINDOW
        self._window = max(_LEAST_HELD, 4 * server.window)
        self._in_window = self._window
        self._resets = 0
        self._used = perf_counter()
        self._who = ""
        self._waits = self._its_turn = False

    # ---------------------------------------------------------------------------------------------------- asyncio calls

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(MOST_UNSENT)
        known = transport.get_extra_info("socket")
        known.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        known.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = b"".join(
            number.to_bytes(2, "big") + value.to_bytes(4, "big")
            for number, value in ((3, self.server.streams), (4, self.server.window), (6, _MOST_METADATA))
        )
        self.write(frame(SETTINGS, 0, 0, settings))
        self.write(frame(WINDOW_UPDATE, 0, 0, (self._window - FIRST_WINDOW).to_bytes(4, "big")))
        self.server.connections.add(self)
        if self.server.draining:  # it came in the last moment
            self.goodbye(LARGEST_WINDOW)

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._waits = False
        self.server.connections.discard(self)
        for rpc in self._rpcs.values():
            rpc.close()
            rpc.cancel()
        self._rpcs.clear()
        if self._said is not None:
            self._said.end()
            self._said = None

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._closing and not self._waits:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._waits:
            self._rest += data
        else:
            self._go_on(self._rest + data if self._rest else data)

    def _turn(self) -> None:
        """It is the turn of the call that waits, if it still does."""
        if self._waits and not self._closing:
            self._waits, self._its_turn = False, True
            self._transport.resume_reading()
            self._go_on(self._rest)

    def _go_on(self, data: bytes) -> None:
        try:
            self._read(data)
        except (BrokenError, HpackError) as error:
            code = error.code if isinstance(error, BrokenError) else COMPRESSION
            self.goodbye(self._last, code, str(error))
            self.close()

    # ------------------------------------------------------------------------------------------------------- frames in

    def _read(self, data: bytes) -> None:
        at, size = 0, len(data)
        if not self._greeted:
            if not _PREFACE.startswith(data[:24]):
                raise BrokenError(PROTOCOL, "this port speaks HTTP/2")
            if size < 24:
                self._rest = data
                return
            self._greeted, at = True, 24
        while size - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > _FRAME:
                raise BrokenError(SIZE, "a frame is too large")
            start = at + 9
            end = start + length
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            number = int.from_bytes(data[at + 5 : start], "big") & LARGEST_WINDOW
            if kind == HEADERS and not self._granted():
                break
            at = end
            if self._block is not None and (kind != CONTINUATION or number != self._block[0]):
                raise BrokenError(PROTOCOL, "a header block is interrupted")
            if kind == DATA:
                self._data(number, flags, data, start, end)
            elif kind == HEADERS:
                self._headers(number, flags, data[start:end])
            else:
                self._other(kind, number, flags, data[start:end])
            if self._closing:
                return
        self._rest = data[at:]
        self.credit()

    def _granted(self) -> bool:
        """Whether a call that has come is to be looked at now; else it waits, and all behind it."""
        turns = self.server.turns
        if self._its_turn or turns.granted(self._who, perf_counter()):
            self._its_turn = False
            return True
        self._waits = True
        self._transport.pause_reading()
        turns.wait(self._who, self._turn)
        return False

    def _data(self, number: int, flags: int, data: bytes, start: int, end: int) -> None:
        size = end - start
        self._in_window -= size
        if self._in_window < 0:
            raise BrokenError(FLOW, "more was sent than the connection takes")
        if flags & PADDED:
            if size < 1 or data[start] >= size:
                raise BrokenError(PROTOCOL, "a frame is all padding")
            start, end = start + 1, end - data[start]
        rpc = self._rpcs.get(number)
        if rpc is None:
            if not number & 1 or (number > self._last and not self._leaving):
                raise BrokenError(PROTOCOL, "data for a stream that was not opened")
            return  # it was answered, or refused, already
        rpc.in_window -= end - start
        if size > end - start:  # padding takes no room
            self.write(frame(WINDOW_UPDATE, 0, number, (size - end + start).to_bytes(4, "big")))
        if rpc.in_window < 0 or rpc.ended:
            self._reset(number, rpc, CLOSED if rpc.ended else FLOW)
            return
        if end - start > self.server.room.left:
            self.server.room.refused += 1
            self.server.service.cut(rpc, "full")
            return
        self.hold(end - start)
        rpc.feed(data[start:end])
        if flags & END_STREAM:
            rpc.ended = True
        self._advance(number, rpc)

    def _advance(self, number: int, rpc: Rpc) -> None:
        """After something came for a call."""
        if rpc.closed:
            return
        if rpc.streams:
            rpc.wake()
        elif not rpc.begun() and (rpc.waits() or rpc.ended):
            rpc.start()

    def _headers(self, number: int, flags: int, block: bytes) -> None:
        if not number & 1:
            raise BrokenError(PROTOCOL, "clients open streams of odd numbers")
        end = len(block)
        start = 0
        if flags & PADDED:
            start, end = 1, end - block[0] if block else -1
        if flags & PRIORITY:
            start += 5
        if start > end:
            raise BrokenError(PROTOCOL, "a frame is all padding")
        if not flags & END_HEADERS:
            self._block = (number, flags, bytearray(block[start:end]))
            return
        self._open(number, flags, block[start:end] if flags & (PADDED | PRIORITY) else block)

    def _continuation(self, flags: int, block: bytes) -> None:
        if self._block is None:
            raise BrokenError(PROTOCOL, "a header block goes on that did not begin")
        number, first, before = self._block
        before += block
        if len(before) > 2 * _MOST_METADATA or not block:
            raise BrokenError(CALM, "a header block is too large")
        if flags & END_HEADERS:
            self._block = None
            self._open(number, first, bytes(before))

    def _open(self, number: int, flags: int, block: bytes) -> None:
        headers = self._hpack.decode(block)  # in any case: what follows may refer to it
        rpc = self._rpcs.get(number)
        if rpc is not None:  # trailers, which end a stream
            if not flags & END_STREAM or rpc.ended:
                raise BrokenError(PROTOCOL, "headers within a stream")
            rpc.ended = True
            self._advance(number, rpc)
            return
        if number <= self._last:
            raise BrokenError(CLOSED, "a stream is opened again")
        if self._leaving or len(self._rpcs) >= self.server.streams:
            self._last = number if not self._leaving else self._last
            self.write(frame(RST, 0, number, REFUSED.to_bytes(4, "big")))
            return
        self._last = number
        self._used = perf_counter()
        path, accepted, seconds = b"", False, None
        for name, value in headers:
            if name == b":path":
                path = value
            elif name == b"content-type":
                accepted = value in _GRPC
            elif name == b"grpc-timeout":
                seconds = _seconds(value)
        if not accepted or seconds == -1:
            status = b"\x08\x03" + (b"400" if accepted else b"415")
            self.write(frame(HEADERS, ENDS, number, status))
            return
        rpc = self._rpcs[number] = Rpc(self, number, path, headers)
        rpc.ended = bool(flags & END_STREAM)
        if seconds is not None:
            rpc.seconds = seconds
            rpc.arm(seconds)
        self.server.service.begin(rpc)
        self._who = rpc.who
        if rpc.closed:
            return
        if rpc.streams or rpc.ended:
            rpc.start()

    def _other(self, kind: int, number: int, flags: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            self._window_update(number, payload)
        elif kind == PING:
            if number or len(payload) != 8:
                raise BrokenError(SIZE if not number else PROTOCOL, "a ping is not one")
            if not flags & ACK:
                self.write(frame(PING, ACK, 0, payload))
        elif kind == SETTINGS:
            self._settings(number, flags, payload)
        elif kind == RST:
            rpc = self._forget(number)
            if not number or len(payload) != 4 or (number > self._last and not self._leaving):
                raise BrokenError(PROTOCOL, "a stream is reset that was not opened")
            if rpc is not None:
                self._resets += 1
                if self._resets > _MOST_RESETS:
                    raise BrokenError(CALM, "too many calls are cancelled")
                rpc.close()
                rpc.cancel()
        elif kind == CONTINUATION:
            self._continuation(flags, payload)
        elif kind == PUSH:
            raise BrokenError(PROTOCOL, "clients push nothing")
        # A goodbye of the client needs no answer: it closes when it is done. Priorities and what is not known pass.

    def _settings(self, number: int, flags: int, payload: bytes) -> None:
        if number:
            raise BrokenError(PROTOCOL, "settings are the connection's")
        if flags & ACK:
            return
        if len(payload) % 6:
            raise BrokenError(SIZE, "settings break off")
        for at in range(0, len(payload), 6):
            if int.from_bytes(payload[at : at + 2], "big") == 4:
                first = int.from_bytes(payload[at + 2 : at + 6], "big")
                change, self.first_window = first - self.first_window, first
                for rpc in self._rpcs.values():
                    rpc.out_window += change
                if max([first, *(rpc.out_window for rpc in self._rpcs.values())]) > LARGEST_WINDOW:
                    raise BrokenError(FLOW, "a window is too large")
        self.write(frame(SETTINGS, ACK, 0, b""))
        self._pump_all()

    def _window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise BrokenError(SIZE, "a window is not one")
        more = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if not more:
            raise BrokenError(PROTOCOL, "a window grows by nothing")
        if number:
            rpc = self._rpcs.get(number)
            if rpc is None:
                return
            rpc.out_window += more
            if rpc.out_window > LARGEST_WINDOW:
                self._reset(number, rpc, FLOW)
            else:
                self._pump(number, rpc)
            return
        self._out_window += more
        if self._out_window > LARGEST_WINDOW:
            raise BrokenError(FLOW, "a window is too large")
        self._pump_all()

    # ------------------------------------------------------------------------------------------------------ frames out

    def write(self, data: bytes) -> None:
        """Send bytes, with whatever else is sent in this turn of the loop."""
        self._out.append(data)
        self._written += len(data)
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            data = b"".join(out)
            if self._said is not None:
                self._said.say(self._written, self._partly)
            self._transport.write(data)

    def claim(self, number: int, record: str) -> None:
        """A record of this id is about what a call is answered next."""
        if self._said is not None:
            self._said.claim(number, record)

    def _begin(self, number: int) -> None:
        """A part of an answer was written."""
        self._partly.add(number)
        if self._said is not None:
            self._said.answered(number, self._written)

    def _forget(self, number: int) -> Rpc | None:
        """A call is over: what was written is all that its client gets."""
        self._partly.discard(number)
        if self._said is not None:
            self._said.answered(number, self._written)
        return self._rpcs.pop(number, None)

    def send(self, number: int, rpc: Rpc, head: bytes, data: bytes, tail: bytes) -> None:
        """Send what a call answers: headers, data and, at its end, trailers."""
        if head:
            self.write(frame(HEADERS, END_HEADERS, number, head))
        size = len(data)
        if not rpc.unsent and size <= _FRAME and size <= rpc.out_window and size <= self._out_window:
            rpc.out_window -= size
            self._out_window -= size
            if size:
                self.write(frame(DATA, 0, number, data))
            if tail:
                self.end(number, rpc, tail)
            else:
                self._begin(number)
            return
        self._begin(number)
        rpc.unsent += data
        rpc.tail = tail
        self._pump(number, rpc)

    def end(self, number: int, rpc: Rpc, headers: bytes) -> None:
        """Send the last headers of a call, and forget it."""
        self.write(frame(HEADERS, ENDS, number, headers))
        if not rpc.ended:
            self.write(frame(RST, 0, number, bytes(4)))
        self._forget(number)
        rpc.close()
        self._resets = max(0, self._resets - 1)
        if self._leaving and not self._rpcs:
            self.close()

    def _pump_all(self) -> None:
        for number, rpc in [one for one in self._rpcs.items() if one[1].unsent]:
            self._pump(number, rpc)

    def _pump(self, number: int, rpc: Rpc) -> None:
        while rpc.unsent and (size := min(_FRAME, len(rpc.unsent), rpc.out_window, self._out_window)) > 0:
            self.write(frame(DATA, 0, number, bytes(rpc.unsent[:size])))
            del rpc.unsent[:size]
            rpc.out_window -= size
            self._out_window -= size
        if not rpc.unsent and rpc.tail:
            self.end(number, rpc, rpc.tail)
        elif len(rpc.unsent) <= MOST_UNSENT:
            rpc.wake()

    def hold(self, size: int) -> None:
        """Count bytes that have come and are not taken yet, or the taking of them."""
        self.held += size
        self.server.room.left -= size

    def credit(self) -> None:
        """Let the client send more, as far as what it sent was taken."""
        more = self._window - self.held - self._in_window
        if more > self._window // 2:
            self._in_window += more
            self.write(frame(WINDOW_UPDATE, 0, 0, more.to_bytes(4, "big")))

    def _reset(self, number: int, rpc: Rpc, code: int) -> None:
        self.write(frame(RST, 0, number, code.to_bytes(4, "big")))
        self._forget(number)
        rpc.close()
        rpc.cancel()

    # ------------------------------------------------------------------------------------------------------- its end

    def goodbye(self, last: int, code: int = NO_ERROR, text: str = "") -> None:
        """Tell the client that streams above ``last`` will not be answered here."""
        self.write(goaway(last, code, text))

    def leave(self) -> None:
        """Take no more streams, and close after the last one."""
        self._leaving = True
        self.goodbye(self._last)
        if not self._rpcs:
            self.close()

    def close(self) -> None:
        """Send what is to be sent, and hang up."""
        if not self._closing:
            self._closing = True
            self._flush()
            self._transport.close()

    def sweep(self, now: float) -> None:
        """Cut what takes too long: greetings, header blocks, messages; and connections that nobody uses."""
        late = now - self.server.receipt
        for rpc in tuple(self._rpcs.values()):
            if rpc.started < late and rpc.incomplete():
                self.server.service.cut(rpc, "late")
        if self._rpcs:
            self._used = now
        elif self._used < late and (not self._greeted or self._block is not None or self._rest):
            self.close()
        elif self._used < now - _IDLE:
            self.goodbye(self._last)
            self.close()


def _seconds(text: bytes) -> float:
    """The value of ``grpc-timeout``; -1 if it is none."""
    scale = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}.get(text[-1:])
    return int(text[:-1]) * scale if scale and text[:-1].isdigit() and len(text) <= 9 else -1
