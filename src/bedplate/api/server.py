"""The control plane: API and pages of one home on one port, served from a thread of the owner's process."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from importlib import metadata

from bedplate.app import session
from bedplate.app.site import Site
from bedplate.errors import AuthenticationError, UnavailableError
from bedplate.extensions import plugins
from bedplate.http import (
    HostGuard,
    Limits,
    Request,
    ResourceRef,
    Response,
    Route,
    RouteTable,
    fixed,
    openapi,
    unaudited,
)
from bedplate.http.rsgi import Application
from bedplate.http.server import Server
from bedplate.identity import Principal
from bedplate.policy.values import Decision

_START, _DRAIN = 20.0, 10.0
"""Seconds in which the server must be ready, and in which it answers what is in flight when it is told to end."""
_BACKLOG = 1024

_log = logging.getLogger(__name__)


def application(site: Site) -> Application:
    """The RSGI application of a home: every route that is registered, ours and those of installed packages."""
    table = RouteTable(route for routes in plugins("bedplate.routes") for route in routes(site))
    table.mount(_description(table))

    def authenticate(request: Request) -> Principal:
        ticket = session.ticket(request)
        if ticket is not None:
            return site.tickets.accept(ticket, request.method, request.path)
        principal = site.authenticate(session.presented(request))
        user = session.claimed(request)
        if user is not None and user != principal.name:
            raise AuthenticationError("user and password do not belong together", fix="give the key as the password")
        return principal

    def authorise(principal: Principal, action: str, resource: ResourceRef, request: Request) -> Decision:
        return site.authorise(principal, action, resource)

    presenters: list[Callable[[Request, Response], Response]] = plugins("bedplate.presenters")

    def present(request: Request, response: Response) -> Response:
        for presenter in presenters:
            response = presenter(request, response)
        return response

    hosts = HostGuard(("127.0.0.1", "localhost", "[::1]", site.settings.host))
    return Application(table, authenticate, authorise, hosts=hosts, present=present)


def _description(table: RouteTable) -> Route:
    """The route that describes the others."""

    def handler(request: Request) -> Response:
        return Response.json(openapi.document(table, title="Bedplate", version=metadata.version("bedplate")))

    audit = unaudited("describes the routes, the same for everybody")
    return Route(
        "GET", "/api/v1/openapi.json", "list", fixed("Home", "home"), audit, Limits(), handler,
        name="openapi", summary="This description",
    )  # fmt: skip


class ControlPlane:
    """The server, from its start to its stop. ``address`` is what a browser opens."""

    def __init__(self, site: Site) -> None:
        """Listen, and answer from a thread of its own.

        Raises:
            UnavailableError: the port is taken, or the server did not start.
        """
        settings = site.settings
        self._socket = _listen(settings.host, settings.port)
        port = self._socket.getsockname()[1]
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.address = f"http://{shown}:{port}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()
        self._failure: BaseException | None = None
        ready = threading.Event()
        app = application(site)
        self._thread = threading.Thread(target=self._run, args=(app, ready), name="control-plane", daemon=True)
        self._thread.start()
        ready.wait(_START)
        if self._failure is not None or not ready.is_set():
            self.stop()
            raise UnavailableError("the server did not start", where=self.address, fix="see the log") from self._failure

    def stop(self) -> None:
        """Answer what is in flight, then end. Doing it twice is fine."""
        if self._loop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop ended by itself meanwhile
                self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(timeout=_DRAIN + 5.0)
        self._socket.close()

    def _run(self, app: Application, ready: threading.Event) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            server = Server(app.__rsgi__, self._socket.fileno())
            await server.start()
            ready.set()
            await self._ending.wait()
            await server.close(_DRAIN)

        try:
            import uvloop

            uvloop.run(serve())
        except BaseException as error:  # noqa: BLE001 handed to the thread that waits for the start
            self._failure = error
            _log.exception("the control plane ended")
        finally:
            ready.set()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"port {port} on {host} cannot be used: {error.strerror}",
            where="BEDPLATE_PORT",
            fix="stop what uses it, or set BEDPLATE_PORT to a free port",
        ) from error
    listener.setblocking(False)
    return listener
