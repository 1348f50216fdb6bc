"""How MLflow's REST API writes things: prefixes, parameters of a query or a body, errors, the workspace's header.

Checked against the server of MLflow 3.17: an error has the status and code of the same call there; the text is ours.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from bedplate.app.site import Site
from bedplate.errors import (
    AuthenticationError,
    BedplateError,
    ConflictError,
    DeniedError,
    GateError,
    InputError,
    NotFoundError,
    StateError,
    StorageError,
    UnavailableError,
    UnfitError,
)
from bedplate.http import (
    Audit,
    HeaderParam,
    Limits,
    ProtocolError,
    Request,
    ResourceRef,
    Response,
    Route,
    from_path,
    unaudited,
)
from bedplate.http.messages import decode_json
from bedplate.http.routes import Handler
from bedplate.tracking.actors import Actor
from bedplate.tracking.experiments import View

T = TypeVar("T")
Message = TypeVar("Message", bound=msgspec.Struct)

VIEWS: tuple[View, ...] = ("ACTIVE_ONLY", "DELETED_ONLY", "ALL")
"""In the order of MLflow's numbers for them, from 1."""
PREFIXES = ("/api/2.0", "/api/3.0", "/ajax-api/2.0", "/ajax-api/3.0")
JSON = ("content-type", "application/json")
WORKSPACE = HeaderParam("workspace", "x-mlflow-workspace", "default")
SHOWS = unaudited("shows what was tracked: names, numbers and tags, no row of a table")
SMALL = Limits(body=1 << 20, depth=16, receipt=10.0, deadline=30.0)
"""MLflow takes at most a megabyte of JSON in one call."""

_CODES: tuple[tuple[type[BedplateError], str, int], ...] = (
    (NotFoundError, "RESOURCE_DOES_NOT_EXIST", 404),
    (InputError, "INVALID_PARAMETER_VALUE", 400),
    (AuthenticationError, "UNAUTHENTICATED", 401),
    (DeniedError, "PERMISSION_DENIED", 403),
    (GateError, "PERMISSION_DENIED", 403),
    (ConflictError, "RESOURCE_ALREADY_EXISTS", 400),
    (UnavailableError, "TEMPORARILY_UNAVAILABLE", 503),
    (StorageError, "INTERNAL_ERROR", 507),
)
_SECOND_PREFIX = re.compile(r"[^a-z0-9]+")


class Problem(msgspec.Struct, frozen=True):
    """An error as MLflow's clients read it."""

    error_code: str
    message: str


class NotImplementedHereError(BedplateError):
    """A part of MLflow's API that this server does not have; ``docs/reference/mlflow.md`` lists them."""

    code = "not_implemented"
    http_status = 501


class BadRequestError(InputError):
    """A call of which MLflow says no more than that it is bad."""


def error(caught: BedplateError) -> Response:
    """An error as MLflow's clients read it."""
    code, status = "INTERNAL_ERROR", 500
    if isinstance(caught, ProtocolError):
        code, status = _protocol(caught.status), caught.status
    elif isinstance(caught, NotImplementedHereError):
        code, status = "NOT_IMPLEMENTED", 501
    elif isinstance(caught, StateError):
        code, status = "INVALID_STATE", 400
    elif isinstance(caught, UnfitError | BadRequestError):
        code, status = "BAD_REQUEST", 400
    else:
        for kind, name, number in _CODES:
            if isinstance(caught, kind):
                code, status = name, number
                break
    headers = (("www-authenticate", 'Basic realm="mlflow"'),) if status == 401 else ()
    return Response.json(Problem(code, str(caught)), status, headers)


def unknown(status: int, message: str) -> bytes:
    """The body of an error about an address or method that is not there."""
    return msgspec.json.encode(Problem(_protocol(status), message))


def _protocol(status: int) -> str:
    return {400: "INVALID_PARAMETER_VALUE", 404: "ENDPOINT_NOT_FOUND", 413: "REQUEST_LIMIT_EXCEEDED"}.get(
        status, "BAD_REQUEST"
    )


def decode(request: Request, of: type[Message]) -> Message:
    """The message of a request: its query if it is a GET, else its JSON body.

    As in MLflow, fields that are not known are passed over, numbers may come as text, null is as good as absent, and of
    a query parameter that is given twice the first counts.

    Raises:
        ProtocolError: it does not fit, the text names the field; or the body is not said to be JSON.
    """
    if request.method in ("GET", "HEAD"):
        return _from_query(request, of)
    if request.body or request.method in ("POST", "PUT"):
        demand_json(request)
    if not request.body.strip():
        return _convert({}, of)
    value = decode_json(request.body, dict[str, Any], request.depth)
    return _convert(_without_nulls(value), of)


def demand_json(request: Request) -> None:
    """A body that is not said to be JSON is not read: pages of other sites can send text and forms, but not this.

    Raises:
        ProtocolError: 400, as in MLflow.
    """
    given = request.headers.get("content-type", "")
    if given != "application/json" and given.partition(";")[0].strip().lower() != "application/json":
        raise ProtocolError(400, "the body must be JSON", fix="send content-type: application/json")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _from_query(request: Request, of: type[Message]) -> Message:
    lists = request.query_lists
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(of):
        given = lists.get(field.encode_name)
        if given is not None:
            values[field.encode_name] = given if _is_list(field.type) else given[0]
    return _convert(values, of)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (list, tuple) or any(_is_list(part) for part in get_args(kind))


def _convert(value: Any, of: type[T]) -> T:
    try:
        return msgspec.convert(value, of, strict=False)
    except msgspec.ValidationError as caught:
        raise ProtocolError(400, f"a parameter does not fit: {caught}") from caught


def required(name: str, value: T | None) -> T:
    """A parameter that must be there and not be empty.

    Raises:
        InputError: it is not.
    """
    if value is None or value in ("", [], ()):
        raise InputError(f"the parameter {name} is missing or empty", fix=f"give {name}")
    return value


def there(name: str, value: T | None) -> T:
    """A parameter that must be there, but may be empty.

    Raises:
        InputError: it is not there.
    """
    if value is None:
        raise InputError(f"the parameter {name} is missing or empty", fix=f"give {name}")
    return value


def run_id(message: Any) -> str:
    """The run that a message is about, under its present or its former name.

    Raises:
        InputError: it names none.
    """
    name: str = required("run_id", message.run_id or message.run_uuid)
    return name


def view(given: str | int | None) -> View:
    """Which things are looked at: active, deleted or all. MLflow's messages give the name or its number.

    Raises:
        InputError: it is neither.
    """
    if given is None:
        return VIEWS[0]
    for index, name in enumerate(VIEWS, 1):
        if given in (name, index, str(index)):
            return name
    raise InputError(f"{given!r} is no view", where="view_type", fix=f"use one of {', '.join(VIEWS)}")


def actor(site: Site, request: Request) -> Actor:
    """Who makes the change that a request asks for."""
    return Actor(
        ledger=site.system.ledger,
        name=request.principal.id,
        auth=request.principal.auth,
        policies=request.decision.policies,
    )


def json(value: object) -> Response:
    """A reply."""
    return Response(headers=[JSON], body=msgspec.json.encode(value))


def page(name: str, items: list[Any], token: str | None) -> Response:
    """A reply that is a page of something; what is empty is left out."""
    value: dict[str, Any] = {name: items} if items else {}
    if token is not None:
        value["next_page_token"] = token
    return json(value)


def routes(
    method: str,
    path: str,
    action: str,
    audit: Audit,
    handler: Handler,
    *,
    summary: str,
    limits: Limits = SMALL,
    request_type: Any = None,
    response_type: Any = None,
    prefixes: tuple[str, ...] = PREFIXES,
    resource: Callable[[Mapping[str, Any]], ResourceRef] | None = None,
) -> Iterator[Route]:
    """One operation under each of its prefixes.

    ``action`` is asked of policy about the workspace that the request names in its header, or about ``resource``; then
    the header means nothing.
    """
    of_header = resource is None
    for prefix in prefixes:
        whole = f"{prefix}{path}"
        yield Route(
            method, whole, action, resource or from_path("Workspace", WORKSPACE.name), audit, limits, handler,
            name=_SECOND_PREFIX.sub("_", f"{method}{whole}".lower()).strip("_"), summary=summary,
            request_type=request_type, response_type=response_type, headers=(WORKSPACE,) if of_header else (),
            render=error, error_type=Problem, twin=prefix != prefixes[0], lenient=True,
        )  # fmt: skip
