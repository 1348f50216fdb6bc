"""One route table for every server: what a route is, how a path finds it, and in which order a request is checked.

The order is fixed and is the point: host, path, origin, *authenticate, authorise*, only then is the body received and
parsed. A route that does not say its action, resource, audit class and limits cannot be mounted.

======================  ===============================================================
:mod:`.messages`        :class:`Request`, :class:`Response`, bounded JSON
:mod:`.routes`          :class:`Route`, :class:`RouteTable`: declaration and matching
:mod:`.guards`          host allow-list, origin check, security headers
:mod:`.dispatch`        the one order in which a request is checked
:mod:`.rsgi`            the table as an RSGI application
:mod:`.wire`            the bytes of HTTP/1.1, exactly
:mod:`.server`          a server for RSGI applications in the event loop itself
:mod:`.places`          what a server has in hand, in memory that outlives it
:mod:`.streams`         how a request body is received
:mod:`.deadlines`       deadlines that cost next to nothing
:mod:`.openapi`         the table as an OpenAPI 3.1 document
======================  ===============================================================
"""

from bedplate.http.dispatch import dispatch
from bedplate.http.guards import HostGuard, OriginGuard, security_headers
from bedplate.http.messages import ProtocolError, Request, Response
from bedplate.http.routes import (
    APPEND,
    CHANGE,
    READ,
    Audit,
    HeaderParam,
    Limits,
    QueryParam,
    ResourceRef,
    Route,
    RouteTable,
    fixed,
    from_path,
    unaudited,
)

__all__ = [
    "APPEND",
    "CHANGE",
    "READ",
    "Audit",
    "HeaderParam",
    "HostGuard",
    "Limits",
    "OriginGuard",
    "ProtocolError",
    "QueryParam",
    "Request",
    "ResourceRef",
    "Response",
    "Route",
    "RouteTable",
    "dispatch",
    "fixed",
    "from_path",
    "security_headers",
    "unaudited",
]
