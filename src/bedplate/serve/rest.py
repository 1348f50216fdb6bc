"""The Open Inference Protocol V2 over HTTP: an RSGI application on the one route table.

The order of checks is that of :mod:`bedplate.http.dispatch`, written out for the hot path: host, route, origin,
authenticate and authorise (kept decisions), and only then is the body received and parsed.
"""

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any

import msgspec

from bedplate import ids
from bedplate.errors import BedplateError, InputError, NotFoundError, StorageError, UnavailableError
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
from bedplate.http.messages import too_deep
from bedplate.http.streams import whole
from bedplate.serve import snapshot
from bedplate.serve.access import Access, Admitted
from bedplate.serve.handlers import Inference
from bedplate.serve.metrics import Metrics

_log = logging.getLogger(__name__)
_JSON = ("content-type", "application/json")
_SAFE = [("x-content-type-options", "nosniff"), ("cache-control", "no-store")]
_CLOSE = ("connection", "close")
_ENTITY = "Endpoint"


class RestApplication:
    """One replica's HTTP side. ``draining`` makes every answer the last of its connection."""

    def __init__(self, inference: Inference, access: Access, version: str) -> None:
        self._inference, self._access = inference, access
        self._spec = spec = inference.spec
        self._hosts = HostGuard(spec.hosts)
        self._origin = OriginGuard(self._hosts)
        self.metrics = Metrics(spec.name, inference.version)
        self.draining = False
        self._server = {"name": "bedplate", "version": version, "extensions": []}
        self.table = self._routes()
        infer = f"/v2/models/{spec.name}/infer"
        self._hot_path = infer
        self._hot = self.table.match("POST", infer)[0]
        self._resource = ResourceRef(_ENTITY, spec.name)

    # ------------------------------------------------------------------------------------------------------- routes

    def _routes(self) -> RouteTable:
        spec = self._spec
        own, named = fixed(_ENTITY, spec.name), from_path(_ENTITY, "model")
        none = Limits(body=0, depth=1, receipt=spec.receipt)
        infer = Limits(body=spec.max_body, depth=spec.max_depth, receipt=spec.receipt)
        probe = unaudited("a probe that tells nothing but whether the process answers")
        look = unaudited("metadata of a model the caller may ask anyway")
        table = RouteTable(
            [
                Route("GET", "/v2/health/live", "predict", own, probe, none, self._live, public=True),
                Route("GET", "/v2/health/ready", "predict", own, probe, none, self._ready, public=True),
                Route("GET", "/v2", "predict", own, look, none, self._about),
                Route("GET", "/metrics", "read", own, unaudited("counts, no data"), none, self._metrics),
            ]
        )
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            table.mount(Route("GET", base, "predict", named, look, none, self._model))
            table.mount(Route("GET", f"{base}/ready", "predict", named, look, none, self._model_ready))
            table.mount(Route("POST", f"{base}/infer", "predict", named, APPEND, infer, self._never, name="infer"))
        return table

    def _live(self, request: Request) -> Response:
        return Response.json({"live": True})

    def _ready(self, request: Request) -> Response:
        ready = self._access.ready and not self.draining
        return Response.json({"ready": ready}, 200 if ready else 503)

    def _about(self, request: Request) -> Response:
        return Response.json(self._server)

    def _metrics(self, request: Request) -> Response:
        return Response(headers=[("content-type", "text/plain; version=0.0.4")], body=self.metrics.exposition())

    def _model(self, request: Request) -> Response:
        self._served(request.params)
        return Response.json(self._inference.metadata)

    def _model_ready(self, request: Request) -> Response:
        self._served(request.params)
        return Response.json({"name": self._spec.name, "ready": True})

    def _never(self, request: Request) -> Response:
        raise AssertionError("inference does not go through a handler")

    def _served(self, params: Any) -> None:
        if params["model"] != self._spec.name:
            raise NotFoundError(f"the model {params['model']!r} is not served here", fix=f"ask {self._spec.name!r}")
        version = params.get("version")
        if version is not None and version != self._inference.version:
            raise NotFoundError(f"version {version!r} is not served here", fix=f"ask version {self._inference.version}")

    # ----------------------------------------------------------------------------------------------------- requests

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request; every outcome becomes an answer."""
        started = perf_counter()
        metrics = self.metrics
        metrics.in_flight += 1
        extra: list[tuple[str, str]] = []
        try:
            status, headers, body = await self._answer(scope, protocol, started)
        except BedplateError as error:
            status, headers, body, extra = _failure(error)
        except Exception:  # noqa: BLE001  the last line of defence: log it under an id, tell nobody what it was
            reference = ids.new_id("err")
            _log.exception("unexpected error %s", reference)
            status, headers, body = 500, [_JSON], msgspec.json.encode({"error": f"something failed: {reference}"})
        finally:
            metrics.in_flight -= 1
        metrics.request(status)
        headers = headers + _SAFE + extra
        if self.draining:
            headers.append(_CLOSE)
        protocol.response_bytes(status, headers, b"" if scope.method == "HEAD" else body)

    async def _answer(self, scope: Any, protocol: Any, started: float) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = scope.headers
        self._hosts.check(headers.get("host") or scope.authority or "")
        method, path = scope.method, scope.path
        if path == self._hot_path and method == "POST":
            route, params, resource = self._hot, None, self._resource
        else:
            route, params = self.table.match(method, path)
            resource = route.resource(params)
        if method != "GET" and (headers.get("origin") or headers.get("sec-fetch-site")):
            self._origin.check(Request(method, path, headers=dict(headers.items())))
        admitted: Admitted | None = None
        if not route.public:
            admitted = self._access.admit(headers.get("authorization"), route.action, resource)
        if route.name == "infer":
            assert admitted is not None
            if self.metrics.in_flight > self._spec.max_in_flight:
                raise OverloadedError("too many requests are being answered", fix="try again in a second")
            if params is not None:
                self._served(params)
            body = await self._receive(protocol, headers, route.limits)
            # Who names a version gets that one.
            shared = None if params is not None and "version" in params else self._inference.router.route
            return await self._infer(body, admitted, started, route.limits, shared)
        response = route.handler(
            Request(method, path, headers=dict(headers.items())) if params is None else _with(params)
        )
        assert isinstance(response, Response)
        return response.status, response.headers, response.body

    async def _infer(
        self, body: bytes, admitted: Admitted, started: float, limits: Limits, shared: snapshot.Route | None
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        if too_deep(body, limits.depth):
            raise InputError(f"the JSON nests deeper than {limits.depth} levels")
        inference = self._inference
        if inference.durable:
            loop = asyncio.get_running_loop()
            written: asyncio.Future[StorageError | None] = loop.create_future()
            done = _waker(loop, written)
            if shared is None:
                text, prediction = await inference.infer(body, admitted, started, done)
            else:
                text, prediction = await inference.infer_routed(shared, body, admitted, started, done)
            failure = await written
            if failure is not None:
                raise failure
        else:
            try:
                if shared is None:
                    text, prediction = await inference.infer(body, admitted, started, None)
                else:
                    text, prediction = await inference.infer_routed(shared, body, admitted, started, None)
            except StorageError as error:
                self.metrics.unlogged += 1
                raise UnavailableError("predictions cannot be logged", fix="try again later") from error
        self.metrics.prediction(perf_counter() - started)
        return 200, [_JSON, ("x-prediction-id", prediction)], text

    async def _receive(self, protocol: Any, headers: Any, limits: Limits) -> bytes:
        length = headers.get("content-length")
        if length is not None and not (length.isascii() and length.isdigit()):
            raise ProtocolError(400, "content-length is not a number", headers=(_CLOSE,))
        try:
            return await whole(protocol, limits.body, limits.receipt, None if length is None else int(length))
        except ProtocolError as error:
            error.headers += (_CLOSE,)  # nobody reads what is left of the body
            raise


class OverloadedError(UnavailableError):
    """More requests at once than the replica takes."""

    code = "overloaded"


def _with(params: Any) -> Request:
    request = Request("GET", "/")
    request.params = params
    return request


def _waker(
    loop: asyncio.AbstractEventLoop, written: "asyncio.Future[StorageError | None]"
) -> Callable[[StorageError | None], None]:
    def settle(error: StorageError | None) -> None:
        if not written.done():
            written.set_result(error)

    def wake(error: StorageError | None) -> None:
        loop.call_soon_threadsafe(settle, error)

    return wake


def _failure(error: BedplateError) -> tuple[int, list[tuple[str, str]], bytes, list[tuple[str, str]]]:
    """An error in the protocol's form: ``{"error": text}``."""
    status, extra = error.http_status, list[tuple[str, str]]()
    if isinstance(error, ProtocolError):
        status, extra = error.status, list(error.headers)
    elif isinstance(error, UnavailableError):
        extra = [("retry-after", "1")]
    elif status == 401:
        extra = [("www-authenticate", "Bearer")]
    text = f"{error.message}; {error.fix}" if error.fix else error.message
    return status, [_JSON], msgspec.json.encode({"error": text}), extra
