"""Every route of the control plane, from the table that it is made of."""

import re
from typing import Any

from scripts.reference import AnySite

from bedplate.extensions import plugins
from bedplate.http import Route

NOBODYS_SITE: Any = AnySite()
ROUTES: list[Route] = [route for routes in plugins("bedplate.routes") for route in routes(NOBODYS_SITE)]
PARAMETER = re.compile(r"\{([a-z][a-z0-9_]*)(?::([a-z]+))?\}")


def shown(route: Route) -> str:
    """A route as the name of a test."""
    return f"{route.method} {route.path}"
