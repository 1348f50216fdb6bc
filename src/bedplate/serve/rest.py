"""The Open Inference Protocol V2 over HTTP: decoding, encoding and headers around :class:`Inference`.

Inference itself is written out for speed, in the order of checks of :mod:`bedplate.http.dispatch`: host, origin,
authenticate and authorise (kept decisions), and only then is the body received and parsed. Everything else is a route
on the one route table, those of other protocols over HTTP as well.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping
from functools import partial
from time import perf_counter
from typing import Any

import msgspec

from bedplate.errors import (
    BedplateError,
    DeadlineError,
    QuotaError,
    UnavailableError,
)
from bedplate.http import (
    APPEND,
    HostGuard,
    Limits,
    OriginGuard,
    ProtocolError,
    Request,
    ResourceRef,
    Response,
    Route,
    RouteTable,
    fixed,
    from_path,
    unaudited,
)
from bedplate.http.dispatch import admit
from bedplate.http.exchange import Exchange
from bedplate.http.openapi import document
from bedplate.http.rsgi import Application
from bedplate.http.streams import Room, too_large, whole
from bedplate.http.wire import Head
from bedplate.serve import arrival as arrivals
from bedplate.serve.access import Admitted
from bedplate.serve.arrival import Arrival
from bedplate.serve.codecs import HEADER_LENGTH, Codec, InferResponse, RestCall, metadata, server
from bedplate.serve.handlers import ENTITY, Inference, Outcome, unforeseen
from bedplate.serve.pressure import OverloadedError
from bedplate.serve.tensors import Answered

_JSON = ("content-type", "application/json")
_BYTES = ("content-type", "application/octet-stream")
_SAFE = [("x-content-type-options", "nosniff"), ("cache-control", "no-store")]
_CLOSE = ("connection", "close")


class RestApplication:
    """One replica's HTTP side. ``draining`` makes every answer the last of its connection.

    ``routes`` are those of further protocols. Their handlers find the caller in ``request.decision`` (an
    :class:`~bedplate.serve.access.Admitted`; for a POST with action ``predict`` there is room as well) and the
    :class:`~bedplate.serve.arrival.Arrival` in ``request.state["arrival"]``: what :meth:`Inference.answer` asks for.
    """

    def __init__(self, inference: Inference, version: str, routes: Iterable[Route] = ()) -> None:
        self._inference = inference
        self._spec = spec = inference.spec
        self._codec = Codec(spec.name, inference.signature, spec.max_depth)
        self._metadata = metadata(spec.name, [inference.version], inference.signature)
        self._server = server(version)
        self._hosts = HostGuard(spec.hosts)
        self._origin = OriginGuard(self._hosts)
        self._limits = Limits(body=spec.max_body, depth=spec.max_depth, receipt=spec.receipt)
        self._hot = f"/v2/models/{spec.name}/infer"
        self._room = inference.metrics.room = Room(spec.max_arriving)
        self.draining = False
        self.table = self._routes()
        self._at_once: dict[tuple[str, str], Route] = {}
        for route in routes:
            self.table.mount(route)
            if route.at_once:
                self._at_once[route.method, route.path] = route
        self._others = Application(
            self.table,
            _authorization,
            self._authorise,
            hosts=self._hosts,
            present=self._present,
            render=failure,
            room=self._room,
        )

    # ------------------------------------------------------------------------------------------------------- routes

    def _routes(self) -> RouteTable:
        own, named = fixed(ENTITY, self._spec.name), from_path(ENTITY, "model")
        none = Limits(body=0, depth=1, receipt=self._spec.receipt)
        probe = unaudited("a probe that tells nothing but whether the process answers")
        look = unaudited("metadata of a model the caller may ask anyway")
        route = partial(Route, render=failure, error_type=Failure)
        table = RouteTable(
            [
                route("GET", "/v2/health/live", "predict", own, probe, none, self._live, public=True),
                route("GET", "/v2/health/ready", "predict", own, probe, none, self._ready, public=True),
                route("GET", "/v2", "predict", own, look, none, self._about),
                route("GET", "/openapi.json", "predict", own, look, none, self._described),
                route("GET", "/metrics", "read", own, unaudited("counts, no data"), none, self._metrics),
            ]
        )
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            table.mount(route("GET", base, "predict", named, look, none, self._model))
            table.mount(route("GET", f"{base}/ready", "predict", named, look, none, self._model_ready))
            table.mount(
                route("POST", f"{base}/infer", "predict", named, APPEND, self._limits, self._infer,
                      response_type=InferResponse)
            )  # fmt: skip
        return table

    async def _live(self, request: Request) -> Response:
        return Response.json({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready = self._inference.access.ready and not self.draining
        return Response.json({"ready": ready}, 200 if ready else 503)

    async def _about(self, request: Request) -> Response:
        return Response.json(self._server)

    async def _described(self, request: Request) -> Response:
        """Every route: what is asked rarely is made when it is asked."""
        return Response.json(document(self.table, title=self._spec.name, version=self._inference.version))

    async def _metrics(self, request: Request) -> Response:
        return Response.text(self._inference.metrics.exposition().decode(), content_type="text/plain; version=0.0.4")

    async def _model(self, request: Request) -> Response:
        self._served(request.params)
        return Response.json(self._metadata)

    async def _model_ready(self, request: Request) -> Response:
        self._served(request.params)
        return Response.json({"name": self._spec.name, "ready": True})

    async def _infer(self, request: Request) -> Response:
        """The slower way, for whoever names a version: that one answers, whatever is rolled out."""
        self._served(request.params)
        pinned = "version" in request.params
        json_length = request.headers.get(HEADER_LENGTH)
        headers, body = await self._answer(
            request.body, json_length, request.decision, request.state["arrival"], pinned=pinned
        )
        return Response(headers=headers, body=body)

    def _served(self, params: Mapping[str, Any]) -> None:
        self._inference.served(params["model"], params.get("version"))

    def _authorise(self, authorization: str, action: str, resource: ResourceRef, request: Request) -> Admitted:
        request.state["arrival"] = arrival = arrivals.of(perf_counter(), request.headers)
        if action == "predict" and request.method == "POST":
            return self._inference.admit(authorization, resource, arrival)
        return self._inference.access.admit(authorization, action, resource)

    def _present(self, request: Request, response: Response) -> Response:
        self._inference.metrics.request(response.status)
        if self.draining and _CLOSE not in response.headers:
            response.headers.append(_CLOSE)
        return response

    # ---------------------------------------------------------------------------------------------------- the hot path

    async def __rsgi__(self, scope: Head, protocol: Any) -> None:
        """Answer one request; every outcome becomes an answer."""
        started = protocol.came
        metrics, arriving = self._inference.metrics, self._inference.pressure.arriving
        metrics.in_flight += 1
        arriving[protocol] = started
        try:
            if scope.path != self._hot or scope.method != "POST":
                await self._others.__rsgi__(scope, protocol)
                return
            status = 200
            try:
                headers, body = await self._received(scope, protocol, started)
            except asyncio.CancelledError:
                metrics.drop("left")
                status, headers, body = 499, [_CLOSE], b""  # nobody reads it
            except Exception as error:  # noqa: BLE001  the last line of defence: every outcome becomes an answer
                status, headers, body = _refused(error)
        finally:
            metrics.in_flight -= 1
            arriving.pop(protocol, None)
        self._reply(protocol, status, headers, body)

    def who(self, scope: Head) -> str:
        """Whose turn a request is."""
        return self._inference.access.caller(scope.headers.get("authorization"))

    def at_once(self, scope: Head, protocol: Exchange) -> bool:
        """Answer a request whose body is here without a task: an inference, where :meth:`Inference.immediate` says so,
        or what a route of its own answers at once. False for all others."""
        inference = self._inference
        if scope.path != self._hot or scope.method != "POST":
            route = self._at_once.get((scope.method, scope.path))
            if route is not None:
                self._reply(protocol, *self._answered(route, scope, protocol))
            return route is not None
        if not inference.immediate(protocol.connection):
            return False
        inference.metrics.in_flight += 1
        try:
            arrival, admitted = self._admitted(scope, protocol.came)
            if (scope.length or 0) > self._limits.body:
                raise too_large(self._limits.body)
            call = self._codec.decode(protocol.here() or b"", scope.headers.get(HEADER_LENGTH))
            inference.soon(call, admitted, arrival, protocol, partial(self._settle, protocol, call))
        except Exception as error:  # noqa: BLE001  as above
            self._settle(protocol, None, error)
        return True

    def _answered(self, route: Route, scope: Head, protocol: Exchange) -> tuple[int, list[tuple[str, str]], bytes]:
        """What a route that never waits answers."""
        try:
            self._check_site(scope)
            request = Request(scope.method, scope.path, headers=scope.headers, query_string=scope.query_string)
            admit(route, request, _authorization, self._authorise)
            if (scope.length or 0) > route.limits.body:
                raise too_large(route.limits.body)
            request.body = bytes(protocol.here() or b"")
            response = _at_its_end(route.handler(request))
        except Exception as error:  # noqa: BLE001  as above
            return _refused(error)
        return response.status, response.headers, response.body

    def _settle(self, protocol: Exchange, call: RestCall | None, outcome: Outcome) -> None:
        """Answer with what came of a request; without a ``call`` it is an error."""
        self._inference.metrics.in_flight -= 1
        try:
            if isinstance(outcome, Exception):
                status, headers, body = _refused(outcome)
            else:
                assert call is not None
                status, (headers, body) = 200, self._encoded(call, outcome)
        except Exception as error:  # noqa: BLE001  as above
            status, headers, body = _refused(error)
        self._reply(protocol, status, headers, body)

    def _reply(self, protocol: Any, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._inference.metrics.request(status)
        headers += _SAFE
        if self.draining:
            headers.append(_CLOSE)
        protocol.response_bytes(status, headers, body)

    def _check_site(self, scope: Head) -> None:
        headers = scope.headers
        self._hosts.check(headers.get("host", ""))
        if headers.get("origin") or headers.get("sec-fetch-site"):
            self._origin.check(Request("POST", scope.path, headers=headers))

    def _admitted(self, scope: Head, started: float) -> tuple[Arrival, Admitted]:
        self._check_site(scope)
        headers = scope.headers
        arrival = arrivals.of(started, headers)
        return arrival, self._inference.admit(headers.get("authorization"), self._inference.resource, arrival)

    async def _received(self, scope: Head, protocol: Any, started: float) -> tuple[list[tuple[str, str]], bytes]:
        inference, limits = self._inference, self._limits
        arrival, admitted = self._admitted(scope, started)
        try:
            body = await whole(protocol, limits.body, limits.receipt, scope.length, self._room)
        except ProtocolError as error:
            error.headers += (_CLOSE,)  # nobody reads what is left of the body
            raise
        del inference.pressure.arriving[protocol]
        json_length = scope.headers.get(HEADER_LENGTH)
        if not inference.queues:
            return await self._answer(body, json_length, admitted, arrival)
        with _Leaving(protocol):
            return await self._answer(body, json_length, admitted, arrival)

    async def _answer(
        self, body: bytes, json_length: str | None, admitted: Admitted, arrival: Arrival, *, pinned: bool = False
    ) -> tuple[list[tuple[str, str]], bytes]:
        call = self._codec.decode(body, json_length)
        return self._encoded(call, await self._inference.answer(call, admitted, arrival, pinned=pinned))

    def _encoded(self, call: RestCall, answered: Answered) -> tuple[list[tuple[str, str]], bytes]:
        text, size = self._codec.encode(call, answered)
        prediction = ("x-prediction-id", answered.prediction)
        if size is None:
            return [_JSON, prediction], text
        return [_BYTES, prediction, (HEADER_LENGTH, str(size))], text


def _at_its_end(answering: Any) -> Response:
    """What a coroutine gives that never waits."""
    try:
        answering.send(None)
    except StopIteration as end:
        answer: Response = end.value
        return answer
    answering.close()
    raise RuntimeError("a route that answers at once waits")


def _refused(error: Exception) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of the answer that an error is."""
    refused = failure(error if isinstance(error, BedplateError) else unforeseen(error))
    return refused.status, refused.headers, refused.body


class Failure(msgspec.Struct):
    """An error as the protocol says it."""

    error: str


def failure(error: BedplateError) -> Response:
    """An error in the protocol's form: ``{"error": text}``."""
    status, headers = outcome(error)
    text = f"{error.message}; {error.fix}" if error.fix else error.message
    return Response.json(msgspec.to_builtins(Failure(text)), status, headers)


def outcome(error: BedplateError) -> tuple[int, tuple[tuple[str, str], ...]]:
    """The status of an error, and the headers that tell a client when to come again: the same in every protocol."""
    status, headers = error.http_status, tuple[tuple[str, str], ...]()
    if isinstance(error, ProtocolError):
        status, headers = error.status, error.headers
    elif isinstance(error, QuotaError):
        wait = max(1, math.ceil(error.retry))
        headers = (
            ("retry-after", str(wait)),
            ("ratelimit", f'"{error.window}";r=0;t={wait}'),
            ("ratelimit-policy", f'"{error.window}";q={error.quota};w={error.seconds}'),
        )
    elif isinstance(error, OverloadedError):
        headers = (("retry-after", str(max(1, math.ceil(error.retry)))),)
    elif isinstance(error, UnavailableError) and not isinstance(error, DeadlineError):
        headers = (("retry-after", "1"),)
    elif status == 401:
        headers = (("www-authenticate", "Bearer"),)
    return status, headers


class _Leaving:
    """Cancels the task of a request whose caller hangs up, so that what waits for the model is not computed."""

    __slots__ = ("_watch",)

    def __init__(self, protocol: Any) -> None:
        async def left(task: asyncio.Task[Any]) -> None:
            await protocol.client_disconnect()
            task.cancel()

        task = asyncio.current_task()
        assert task is not None
        self._watch = asyncio.ensure_future(left(task))

    def __enter__(self) -> None:
        """Begin to watch: done by then."""

    def __exit__(self, *error: object) -> None:
        self._watch.cancel()


def _authorization(request: Request) -> str:
    """What :meth:`Access.admit` reads the caller from, and decides by in the same step."""
    return request.headers.get("authorization", "")
