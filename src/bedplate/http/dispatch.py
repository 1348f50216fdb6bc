"""The one order in which a request is checked: match, authenticate, authorise, receive, handle."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from bedplate.errors import AuthenticationError, BedplateError, InternalError, UnavailableError
from bedplate.http.deadlines import Deadline
from bedplate.http.messages import ProtocolError, Request, Response
from bedplate.http.routes import HeaderParam, QueryParam, RefusedTailError, ResourceRef, Route, RouteTable
from bedplate.http.streams import too_large
from bedplate.ids import new_id

Authenticate = Callable[[Request], Any]
"""Gives the principal of a request or raises :class:`AuthenticationError`."""
Authorise = Callable[[Any, str, ResourceRef, Request], Any]
"""``authorise(principal, action, resource, request)`` gives the decision or raises :class:`DeniedError`."""

_log = logging.getLogger(__name__)


async def dispatch(
    table: RouteTable,
    request: Request,
    authenticate: Authenticate,
    authorise: Authorise,
    render: Callable[[BedplateError], Response] = Response.error,
) -> Response:
    """Answer ``request``. Errors become answers; this never raises, except when it is cancelled.

    ``render`` gives errors their form where no route was found that has its own.
    """
    try:
        route, request.params = table.match(request.method, request.path)
        render = route.render
        admit(route, request, authenticate, authorise)
        if route.limits.stream:
            request.open_stream(route.limits.body, route.limits.receipt)
        elif request.read is not None:
            request.body = await request.read(route.limits.body, route.limits.receipt)
        elif len(request.body) > route.limits.body:
            raise too_large(route.limits.body)
        return await _handle(route, request)
    except AuthenticationError as error:
        response = render(error)
        if not any(name == "www-authenticate" for name, _ in response.headers):
            response.headers.append(("www-authenticate", "Bearer"))
        return response
    except RefusedTailError as error:
        return error.route.render(error)
    except BedplateError as error:
        return render(error)
    except Exception:  # noqa: BLE001  the last line of defence: log it under an id, tell nobody what it was
        reference = new_id("err")
        _log.exception("unexpected error %s in %s %s", reference, request.method, request.path)
        return render(InternalError("something failed here", where=reference, fix="see the log"))


def admit(route: Route, request: Request, authenticate: Authenticate, authorise: Authorise) -> None:
    """All that is checked of a request whose route is known before its body is received.

    Raises:
        ProtocolError: a header or a parameter of the query that the route names cannot be used.
        AuthenticationError: nobody known asks.
        DeniedError: they may not.
    """
    request.route, request.depth = route, route.limits.depth
    for parameter in route.headers:
        request.params[parameter.name] = _header(request, parameter)
    for given in route.queries:
        request.params[given.name] = _queried(request, given)
    if route.public:
        return
    request.principal = authenticate(request)
    if request.principal is None:
        raise AuthenticationError("no valid key or session was presented", fix="send Authorization: Bearer <key>")
    request.decision = authorise(request.principal, route.action, route.resource(request.params), request)


def _header(request: Request, parameter: HeaderParam) -> str:
    value = request.headers.get(parameter.header) or parameter.default
    if len(value) > 200 or not value.isprintable():
        raise ProtocolError(400, f"the header {parameter.header} cannot be used")
    return value


def _queried(request: Request, parameter: QueryParam) -> str:
    values = request.query_lists.get(parameter.name, [])
    value = (values[0] if values else "") or parameter.default
    if len(values) > 1 or len(value) > 200 or not value.isprintable():
        raise ProtocolError(400, f"the query parameter {parameter.name} cannot be used")
    return value


async def _handle(route: Route, request: Request) -> Response:
    try:
        with Deadline(route.limits.deadline):
            handler: Any = route.handler
            answer: Response = await (handler(request) if route.waits else asyncio.to_thread(handler, request))
            return answer
    except TimeoutError as error:
        raise UnavailableError(
            f"no answer within {route.limits.deadline:g} s", fix="try again, or ask for less"
        ) from error
