"""The Open Inference Protocol V2 over gRPC: metadata, messages and status codes around :class:`Inference`.

The order of checks is that of the REST side: authenticate and authorise from the metadata, and only then is the message
received and parsed.
"""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from math import inf
from time import perf_counter
from typing import NamedTuple

import msgspec

from bedplate.bundle.protobuf import field
from bedplate.errors import AuthenticationError, BedplateError, DeniedError, InputError
from bedplate.http import ProtocolError, places
from bedplate.http.streams import NoRoomError, Room
from bedplate.serve import arrival as arrivals
from bedplate.serve import codecs, messages, repository
from bedplate.serve.arrival import Arrival
from bedplate.serve.calls import MOST, Calls
from bedplate.serve.handlers import Inference, Outcome, ending, unforeseen
from bedplate.serve.hpack import literal
from bedplate.serve.http2_server import Http2Server
from bedplate.serve.messages import Asked, Messages
from bedplate.serve.pressure import OverloadedError, Share
from bedplate.serve.repository import Repository
from bedplate.serve.rpc import Rpc
from bedplate.serve.wishes import Wish, Wishes

SERVICE = "inference.GRPCInferenceService"
_INFER, _STREAM = f"/{SERVICE}/ModelInfer".encode(), f"/{SERVICE}/ModelStreamInfer".encode()
_TICK = 0.2
_UNIMPLEMENTED, _INTERNAL = 12, 13
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 409: 9, 413: 8, 429: 8, 503: 14, 504: 4, 507: 14}
"""What the status of an error over HTTP is over gRPC."""


class _Method(NamedTuple):
    """One method beside inference: what policy is asked (None: it is open to all), and what answers its message."""

    action: str | None
    answer: Callable[[bytes], bytes]


class GrpcServer:
    """One replica's gRPC side, in its event loop.

    Raises:
        InputError: the signature uses a datatype that the protocol does not have.
    """

    def __init__(self, inference: Inference, version: str, wishes: Wishes, calls: Calls | None = None) -> None:
        self._inference, self._version, self._asked = inference, version, wishes
        spec = inference.spec
        self._messages = Messages(spec.name, inference.signature, inference.served)
        room = inference.metrics.room or Room(spec.max_arriving)
        self._server = Http2Server(
            self, room, inference.turns, most=spec.max_body, receipt=spec.receipt, streams=MOST, calls=calls
        )
        self._repository = Repository(inference)
        self._methods = self._table()
        self._wishes: dict[bytes, Wish] = {
            f"/{SERVICE}/RepositoryModelLoad".encode(): "load",
            f"/{SERVICE}/RepositoryModelUnload".encode(): "unload",
        }
        self._idle: dict[Rpc, float] = {}
        """The streams that ask nothing now, and since when."""
        self._streams = Share(spec.max_in_flight)
        self._draining, self._until = False, inf

    def _table(self) -> dict[bytes, _Method]:
        methods = {
            "ServerLive": _Method(None, self._live),
            "ServerReady": _Method(None, self._ready),
            "ServerMetadata": _Method("predict", self._about),
            "ModelReady": _Method("predict", self._model_ready),
            "ModelMetadata": _Method("predict", self._model),
            "ModelConfig": _Method("predict", self._config),
            "ModelStatistics": _Method("predict", self._statistics),
            "RepositoryIndex": _Method("predict", self._index),
        }
        return {f"/{SERVICE}/{name}".encode(): method for name, method in methods.items()}

    # -------------------------------------------------------------------------------------------------- start and end

    def start(self, listener: socket.socket) -> None:
        """Answer on a socket that listens already."""
        self._server.serve(listener)

    async def stop(self, seconds: float) -> None:
        """Send every client away, answer what was asked within ``seconds``, and end.

        A stream goes on while it is used, for half of that time at most, and ends between two requests.
        """
        self._draining, self._until = True, perf_counter() + seconds / 2
        stopping = asyncio.create_task(self._server.stop(seconds, _TICK))
        while not stopping.done():
            await asyncio.wait([stopping], timeout=_TICK)
            for rpc, since in tuple(self._idle.items()):
                if perf_counter() > min(since + 2 * _TICK, self._until):
                    self._fail(rpc, ending())

    # ------------------------------------------------------------------------------------------ what the transport asks

    def begin(self, rpc: Rpc) -> None:
        """Decide from method and metadata, before a message was received."""
        path, inference = rpc.path, self._inference
        authorization = rpc.value(b"authorization")
        caller = None if authorization is None else authorization.decode("latin-1")
        try:
            if path == _INFER:
                inference.metrics.in_flight += 1
                inference.pressure.arriving[rpc] = rpc.started
                rpc.handler, rpc.at_once = self._infer, self._infer_at_once
                rpc.caller = inference.admit(caller, inference.resource, _arrival(rpc, rpc.started))
            elif path == _STREAM:
                rpc.streams, rpc.handler = True, self._stream
                rpc.caller = inference.access.admit(caller, "predict", inference.resource)
                if not self._streams.free(rpc.caller.principal.id):
                    rpc.caller = None
                    raise OverloadedError("too many streams are open", fix="use one stream for many requests")
                self._streams.take(rpc.caller.principal.id)
            elif (wish := self._wishes.get(path)) is not None:
                rpc.handler = partial(self._wish, wish)
                rpc.caller = inference.access.admit(caller, wish, inference.resource)
            elif (method := self._methods.get(path)) is None:
                rpc.finish(_UNIMPLEMENTED, f"{path.decode('utf-8', 'replace')[:200]} is not a method of this server")
            else:
                rpc.handler = partial(self._other, method)
                if method.action is not None:
                    inference.access.admit(caller, method.action, inference.resource)
        except Exception as error:  # noqa: BLE001  the last line of defence: every outcome becomes a status
            self._fail(rpc, error)
        rpc.who = inference.access.caller(caller)

    def cut(self, rpc: Rpc, reason: str) -> None:
        """Finish a call that cannot go on."""
        spec = self._inference.spec
        self._fail(
            rpc,
            {
                "late": ProtocolError(504, f"the request took longer than {spec.receipt:g} s to arrive"),
                "full": NoRoomError("too many messages are arriving at once", fix="try again in a second"),
                "large": ProtocolError(413, f"the message is larger than {spec.max_body} bytes"),
                "packed": ProtocolError(400, "the message is not packed as its metadata says"),
            }[reason],
        )

    def end(self, rpc: Rpc) -> None:
        """A call is over."""
        if rpc.path == _INFER:
            self._inference.metrics.in_flight -= 1
            self._inference.pressure.arriving.pop(rpc, None)
        elif rpc.path == _STREAM:
            if rpc.caller is not None:
                self._streams.give(rpc.caller.principal.id)
            self._idle.pop(rpc, None)

    # ------------------------------------------------------------------------------------------------------ inference

    def _infer_at_once(self, rpc: Rpc) -> bool:
        """Answer a call without a task; False where :meth:`Inference.immediate` says no."""
        inference = self._inference
        if not inference.immediate(rpc):
            return False
        inference.pressure.arriving.pop(rpc, None)
        inference.turns.take(rpc.caller.principal.id, perf_counter(), partial(self._answer_soon, rpc))
        return True

    def _answer_soon(self, rpc: Rpc) -> None:
        if rpc.closed:  # while it waited for its turn
            return
        try:
            asked, arrival = self._request(rpc), _arrival(rpc, rpc.started)
            self._inference.soon(asked.call, rpc.caller, arrival, rpc, partial(self._settle, rpc, asked))
        except Exception as error:  # noqa: BLE001  the last line of defence: every outcome becomes a status
            self._fail(rpc, error)

    async def _infer(self, rpc: Rpc) -> None:
        self._inference.pressure.arriving.pop(rpc, None)
        places.answering(rpc)
        try:
            asked = self._request(rpc)
            arrival = _arrival(rpc, rpc.started)
            answered = await self._inference.answer(asked.call, rpc.caller, arrival, pinned=asked.pinned)
        except Exception as error:  # noqa: BLE001  as above
            self._fail(rpc, error)
        else:
            self._settle(rpc, asked, answered)

    def _request(self, rpc: Rpc) -> Asked:
        message = rpc.take()
        if message is None:
            raise InputError("the request holds no message")
        return self._messages.decode(message)

    def _settle(self, rpc: Rpc, asked: Asked, outcome: Outcome) -> None:
        """Answer with what came of a call, unless its client does not wait any more."""
        if rpc.closed:
            return
        if isinstance(outcome, Exception):
            self._fail(rpc, outcome)
            return
        try:
            answer = self._messages.encode(asked, outcome)
        except Exception as error:  # noqa: BLE001  as above
            self._fail(rpc, error)
            return
        self._inference.metrics.request(200)
        rpc.reply(answer, literal(b"x-prediction-id", outcome.prediction.encode()))

    async def _stream(self, rpc: Rpc) -> None:
        """Answer the requests of a stream one after the other; what is wrong with one is told in its answer."""
        inference, metrics = self._inference, self._inference.metrics
        authorization = rpc.value(b"authorization") or b""
        try:
            while (message := await self._next(rpc)) is not None:
                metrics.in_flight += 1
                try:
                    arrival = _arrival(rpc, perf_counter())
                    caller = inference.admit(authorization.decode("latin-1"), inference.resource, arrival)
                    asked = self._messages.decode(message)
                    answered = await inference.answer(asked.call, caller, arrival, pinned=asked.pinned)
                    reply, status = messages.streamed(self._messages.encode(asked, answered)), 200
                except (AuthenticationError, DeniedError):
                    raise
                except Exception as error:  # noqa: BLE001  the last line of defence
                    known = error if isinstance(error, BedplateError) else unforeseen(error)
                    reply, status = messages.streamed_error(_text(known), message), _status(known)
                finally:
                    metrics.in_flight -= 1
                metrics.request(status)
                await rpc.send(reply)
                if perf_counter() > self._until:
                    raise ending()
            rpc.finish(0)
        except Exception as error:  # noqa: BLE001  the last line of defence
            self._fail(rpc, error)

    async def _next(self, rpc: Rpc) -> bytes | None:
        """The next request of a stream; None at its end."""
        message = rpc.take()
        if message is None:
            self._idle[rpc] = perf_counter()
            message = await rpc.receive()
            self._idle.pop(rpc, None)
        return message

    async def _other(self, method: _Method, rpc: Rpc) -> None:
        try:
            answer = method.answer(rpc.take() or b"")
        except Exception as error:  # noqa: BLE001  the last line of defence
            self._fail(rpc, error)
            return
        self._inference.metrics.request(200)
        rpc.reply(answer)

    async def _wish(self, wish: Wish, rpc: Rpc) -> None:
        try:
            model, given = messages.wish(rpc.take() or b"")
            self._inference.served(model, None)
            repository.parameters(wish, given)
            await self._asked.ask(wish, rpc.caller)
        except Exception as error:  # noqa: BLE001  the last line of defence
            self._fail(rpc, error)
            return
        self._inference.metrics.request(200)
        rpc.reply(b"")

    def _fail(self, rpc: Rpc, error: Exception) -> None:
        """End a call with the status of an error."""
        known = error if isinstance(error, BedplateError) else unforeseen(error)
        status = _status(known)
        self._inference.metrics.request(status)
        retry = known.retry if isinstance(known, OverloadedError) else 1.0
        soon = literal(b"grpc-retry-pushback-ms", b"%d" % (1000 * retry)) if status in (429, 503) else b""
        rpc.finish(_CODES.get(status, _INTERNAL), _text(known), soon)

    # ------------------------------------------------------------------------------------------------- what is not hot

    def _live(self, message: bytes) -> bytes:
        return field(1, 1)

    def _ready(self, message: bytes) -> bytes:
        return field(1, int(self._inference.access.ready and not self._draining))

    def _about(self, message: bytes) -> bytes:
        return messages.server(codecs.server(self._version))

    def _model_ready(self, message: bytes) -> bytes:
        self._named(message)
        return field(1, 1)

    def _model(self, message: bytes) -> bytes:
        self._named(message)
        inference = self._inference
        return messages.metadata(codecs.metadata(inference.spec.name, [inference.version], inference.signature))

    def _config(self, message: bytes) -> bytes:
        self._named(message)
        return messages.config(self._repository.config())

    def _statistics(self, message: bytes) -> bytes:
        if message:  # without a name it is about all that is here
            self._named(message)
        return messages.statistics(self._repository.statistics())

    def _index(self, message: bytes) -> bytes:
        try:
            ready = messages.ready_only(message)
        except ValueError as error:
            raise InputError(f"the request does not fit: {error}") from error
        return messages.index(self._repository.index(ready=ready))

    def _named(self, message: bytes) -> None:
        try:
            model, version = messages.text_of(message, 1), messages.text_of(message, 2)
        except ValueError as error:
            raise InputError(f"the request does not fit: {error}") from error
        self._inference.served(model, version or None)


def _arrival(rpc: Rpc, started: float) -> Arrival:
    """What the metadata of a call say of one of its requests, which arrived at ``started``."""
    told = {
        name.decode(): value.decode("latin-1")
        for name, value in rpc.metadata
        if name in (b"traceparent", b"tracestate", b"x-request-timeout-ms")
    }
    arrival = arrivals.of(started, told) if told else Arrival(started)
    left = rpc.started + rpc.seconds - started
    return arrival if left > arrival.seconds else msgspec.structs.replace(arrival, seconds=left)


def _status(error: BedplateError) -> int:
    return error.status if isinstance(error, ProtocolError) else error.http_status


def _text(error: BedplateError) -> str:
    return f"{error.message}; {error.fix}" if error.fix else error.message
