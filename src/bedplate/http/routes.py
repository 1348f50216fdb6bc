"""What a route must declare, and how a path finds its route.

Paths are matched segment by segment on text that the server percent-decoded exactly once; nothing here decodes again,
so the path that is authorised is the path that is served. An empty segment (double or trailing slash), ``.``, ``..``, a
backslash, a percent sign or a control character in a segment matches nothing.

``{name:path}`` ends a path and takes one or more segments under the same rules, joined by ``/``. One slash may follow
them, because clients write one after the name of a folder; it is dropped. What breaks the rules there is 400 in the
form of the route's errors: it is a name that was given, not a place that does not exist.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from bedplate.errors import BedplateError, NotFoundError
from bedplate.http.messages import ProtocolError, Request, Response
from bedplate.ids import is_digest

Handler = Callable[[Request], Response | Awaitable[Response]]
AuditKind = Literal["change", "append", "read", "none"]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_ACTION = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
_TEMPLATE = re.compile(r"\{([a-z][a-z0-9_]*)(?::([a-z]+))?\}")
_LITERAL = re.compile(r"[A-Za-z0-9._~-]+")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\/%]")


class RefusedTailError(ProtocolError):
    """The rest of a path breaks the rules of a segment; ``route`` is the one that would have taken it."""

    def __init__(self, route: "Route") -> None:
        super().__init__(400, "Invalid path", fix="use relative names of plain text, joined by single slashes")
        self.route = route


class ResourceRef(msgspec.Struct, frozen=True):
    """The resource a request is about, as policy sees it: a Cedar entity type and id."""

    type: str
    id: str


class Audit(msgspec.Struct, frozen=True):
    """How a route is audited. ``none`` has to say why; see :func:`unaudited`."""

    kind: AuditKind
    reason: str = ""


CHANGE = Audit("change")
"""One ledger entry in the state's own transaction."""
APPEND = Audit("append")
"""One ledger entry per sealed segment."""
READ = Audit("read")
"""One ledger entry per governed scan."""


def unaudited(reason: str) -> Audit:
    """No ledger entry, because ``reason``."""
    return Audit("none", reason)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one request may cost: body size in bytes, JSON nesting, seconds to receive it and to answer it.

    With ``stream`` the handler, a coroutine function, receives the body itself from ``request.pieces``; ``receipt``
    then holds for each piece, and ``deadline`` for receiving and answering together.
    """

    body: int = 1 << 20
    depth: int = 64
    receipt: float = 15.0
    deadline: float = 30.0
    stream: bool = False


class HeaderParam(msgspec.Struct, frozen=True):
    """A parameter that comes in a header, for protocols that name there what a request is about."""

    name: str
    header: str
    default: str


class QueryParam(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter that comes in the query string, for pages that name there what a request is about."""

    name: str
    default: str


class Route(msgspec.Struct, frozen=True):
    """One route, with everything that must be decided before it can be reached.

    ``action`` is a Cedar action; ``resource`` maps the parameters (those of the path, ``headers`` and ``queries``) to
    what policy decides about; ``handler`` runs in the event loop when it is a coroutine function and in a thread
    otherwise. ``public`` routes are reached without authentication, and still declare everything. ``render`` gives
    errors the form of a protocol that has its own, ``error_type`` says which. ``twin`` marks a second address of a
    route that is documented under its first. ``lenient``: its handler takes null for absent, and numbers as text.
    ``at_once``: its handler is one that never waits, so that a server may have it answer without a task. ``waits`` is
    found out: whether the handler is a coroutine function.
    """

    method: str
    path: str
    action: str
    resource: Callable[[Mapping[str, Any]], ResourceRef]
    audit: Audit
    limits: Limits
    handler: Handler
    public: bool = False
    name: str = ""
    summary: str = ""
    request_type: Any = None
    response_type: Any = None
    headers: tuple[HeaderParam, ...] = ()
    queries: tuple[QueryParam, ...] = ()
    render: Callable[[BedplateError], Response] = Response.error
    error_type: Any = None
    twin: bool = False
    lenient: bool = False
    at_once: bool = False
    waits: bool = False

    def __post_init__(self) -> None:
        # Looked at for every request, so it is found out once.
        msgspec.structs.force_setattr(self, "waits", inspect.iscoroutinefunction(self.handler))


def fixed(type_: str, id_: str) -> Callable[[Mapping[str, Any]], ResourceRef]:
    """The same resource for every request of a route."""
    reference = ResourceRef(type_, id_)
    return lambda params: reference


def from_path(type_: str, *names: str) -> Callable[[Mapping[str, Any]], ResourceRef]:
    """The resource named by one or more path parameters, joined by ``/``."""
    return lambda params: ResourceRef(type_, "/".join(str(params[name]) for name in names))


def _parse_text(segment: str) -> str | None:
    return segment if len(segment) <= 200 else None


def _parse_int(segment: str) -> int | None:
    plain = segment.isascii() and segment.isdigit() and len(segment) <= 15
    return int(segment) if plain and str(int(segment)) == segment else None


def _parse_id(segment: str) -> str | None:
    return segment if re.fullmatch(r"[a-z]{1,12}_[0-9a-hjkmnp-tv-z]{26}", segment) else None


def _parse_digest(segment: str) -> str | None:
    return segment if is_digest(segment) else None


PARSERS: dict[str, Callable[[str], Any]] = {
    "str": _parse_text,
    "int": _parse_int,
    "id": _parse_id,
    "digest": _parse_digest,
}


TAIL = "path"
"""The parameter type that takes the rest of a path."""
_REFUSED = ""
"""The name under which a tail that breaks the rules is found: no parameter can have it."""


class _Node:
    """One segment of the tree: literal children first, then typed parameters in the order they were mounted.

    ``tail`` is tried last: the name and node of a parameter that takes every segment that is left.
    """

    __slots__ = ("literals", "parameters", "routes", "tail")

    def __init__(self) -> None:
        self.tail: tuple[str, _Node] | None = None
        self.literals: dict[str, _Node] = {}
        self.parameters: list[tuple[str, str, Callable[[str], Any], _Node]] = []
        self.routes: dict[str, Route] = {}


class RouteTable:
    """All routes of a server. What is not in it is denied."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._root = _Node()
        self._routes: list[Route] = []
        self._plain: dict[tuple[str, str], Route] = {}
        """Routes without parameters, which win over those with some, found without a walk through the tree."""
        for route in routes:
            self.mount(route)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Every mounted route, in the order of mounting."""
        return tuple(self._routes)

    def mount(self, route: Route) -> None:
        """Add a route.

        Raises:
            ValueError: it leaves something undeclared, its path is malformed, or it is mounted already.
        """
        _check(route)
        node = self._root
        segments = _segments_of(route.path)
        for number, segment in enumerate(segments, start=1):
            node = _descend(node, segment, route, last=number == len(segments))
        if route.method in node.routes:
            raise ValueError(f"{route.method} {route.path} is mounted twice")
        node.routes[route.method] = route
        self._routes.append(route)
        if "{" not in route.path:
            self._plain[route.method, route.path] = route

    def match(self, method: str, path: str) -> tuple[Route, dict[str, Any]]:
        """The route of a request and its path parameters. ``HEAD`` finds the ``GET`` route.

        Raises:
            NotFoundError: no route has this path.
            ProtocolError: 405, the path exists under other methods; 414, the path is too long; 400, a tail parameter
                (a :class:`RefusedTailError`) breaks the rules.
        """
        plain = self._plain.get((method, path))
        if plain is not None:
            return plain, {}
        if len(path) > 2048:
            raise ProtocolError(414, "the path is longer than 2048 characters")
        found = self._find(path)
        if found is None:
            raise NotFoundError("there is nothing at this address")
        node, params = found
        route = node.routes.get("GET" if method == "HEAD" else method)
        if route is None:
            allowed = ", ".join(sorted(node.routes))
            raise ProtocolError(405, f"{method[:16]} is not possible here", headers=(("allow", allowed),))
        if _REFUSED in params:
            raise RefusedTailError(route)
        return route, params

    def _find(self, path: str) -> tuple[_Node, dict[str, Any]] | None:
        if not path.startswith("/"):
            return None
        node, params = self._root, dict[str, Any]()
        if path == "/":
            return (node, params) if node.routes else None
        segments = path[1:].split("/")
        for position, segment in enumerate(segments):
            child = node.literals.get(segment)
            if child is None:
                if _unsafe(segment):
                    return self._tail(node, segments[position:], params)
                for name, _, parse, candidate in node.parameters:
                    value = parse(segment)
                    if value is not None:
                        params[name], child = value, candidate
                        break
                else:
                    return self._tail(node, segments[position:], params)
            node = child
        return (node, params) if node.routes else None

    def _tail(self, node: _Node, segments: list[str], params: dict[str, Any]) -> tuple[_Node, dict[str, Any]] | None:
        if node.tail is None or segments == [""]:
            return None
        name, end = node.tail
        rest = segments[:-1] if segments[-1] == "" else segments
        params[_REFUSED if any(map(_unsafe, rest)) else name] = "/".join(rest)
        return end, params


def _unsafe(segment: str) -> bool:
    return segment in ("", ".", "..") or _UNSAFE.search(segment) is not None


def _check(route: Route) -> None:
    where = f"{route.method} {route.path}"
    if route.method not in METHODS:
        raise ValueError(f"{where}: the method must be one of {', '.join(METHODS)}")
    if not isinstance(route.action, str) or not _ACTION.fullmatch(route.action):
        raise ValueError(f"{where}: no action is declared")
    if not callable(route.resource):
        raise ValueError(f"{where}: no resource is declared")  # noqa: TRY004  one error type for every omission
    if not isinstance(route.audit, Audit) or route.audit.kind not in ("change", "append", "read", "none"):
        raise ValueError(f"{where}: no audit class is declared")
    if route.audit.kind == "none" and not route.audit.reason.strip():
        raise ValueError(f"{where}: audit class none needs a reason")
    if not isinstance(route.limits, Limits) or min(msgspec.structs.astuple(route.limits)) < 0:
        raise ValueError(f"{where}: no limits are declared")
    if not callable(route.handler):
        raise ValueError(f"{where}: no handler is declared")  # noqa: TRY004
    if route.limits.stream and not inspect.iscoroutinefunction(route.handler):
        raise ValueError(f"{where}: a body that is streamed needs a coroutine function as its handler")


def _segments_of(path: str) -> list[str]:
    if not path.startswith("/"):
        raise ValueError(f"{path}: a path starts with /")
    return [] if path == "/" else path[1:].split("/")


def _descend(node: _Node, segment: str, route: Route, *, last: bool) -> _Node:
    if _LITERAL.fullmatch(segment) and segment not in (".", ".."):
        return node.literals.setdefault(segment, _Node())
    template = _TEMPLATE.fullmatch(segment)
    if template is None:
        raise ValueError(f"{route.path}: {segment!r} is neither plain text nor {{name}} nor {{name:type}}")
    name, kind = template[1], template[2] or "str"
    if kind == TAIL:
        return _tail(node, name, route, last=last)
    if kind not in PARSERS:
        raise ValueError(f"{route.path}: {kind!r} is not a parameter type; use {', '.join(PARSERS)} or {TAIL}")
    for known, known_kind, _, child in node.parameters:
        if known_kind == kind:
            if known != name:
                raise ValueError(f"{route.path}: {{{name}}} is called {{{known}}} in another route")
            return child
    child = _Node()
    node.parameters.append((name, kind, PARSERS[kind], child))
    node.parameters.sort(key=lambda entry: entry[1] == "str")  # text takes anything, so it is tried last
    return child


def _tail(node: _Node, name: str, route: Route, *, last: bool) -> _Node:
    if not last:
        raise ValueError(f"{route.path}: {{{name}:{TAIL}}} takes the rest of the path, so it must end it")
    if node.tail is None:
        node.tail = (name, _Node())
    elif node.tail[0] != name:
        raise ValueError(f"{route.path}: {{{name}}} is called {{{node.tail[0]}}} in another route")
    return node.tail[1]
