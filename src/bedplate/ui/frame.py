"""What every page stands in: its reader, what a request may cost, and addresses that keep to a workspace."""

from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import quote, urlencode

import msgspec

from bedplate.app import session
from bedplate.app.site import Site
from bedplate.http import Limits, QueryParam, Request, ResourceRef, from_path, unaudited
from bedplate.store.workspaces import DEFAULT

_LONGEST = 200
_UNSAFE = frozenset("%\\")
"""With a slash, which no model has in its name, what no segment of a path may hold."""
PAGE = Limits(body=4096, depth=1, receipt=5.0, deadline=30.0)
FORM = Limits(body=16 * 1024, depth=1, receipt=10.0, deadline=600.0)
LOOKS = unaudited("shows metadata and evidence, no row of data")
WORKSPACE = QueryParam(name="workspace", default=DEFAULT)
WITHIN = from_path("Workspace", "workspace")
"""What the pages of tracking and registry are about: the workspace that their address names."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What every page knows about its reader. ``user`` is empty before sign-in.

    ``workspace`` is the one that the page is in, or that its links lead into; ``workspaces`` may all be read.
    """

    user: str
    csrf: str
    path: str
    version: str
    may_decide: bool = False
    may_operate: bool = False
    may_plan: bool = False
    may_write: bool = False
    may_administer: bool = False
    may_look: bool = True
    """Whether the reader may see what the home as a whole holds, such as its use cases."""
    workspace: str = DEFAULT
    workspaces: tuple[str, ...] = (DEFAULT,)
    origin: str = ""
    """How the reader reached this server, for clients that are to reach it too."""

    def link(self, path: str, **parameters: object) -> str:
        """An address in the workspace of this page."""
        return address(path, self.workspace, parameters.items())


def view(site: Site, request: Request, use_case: str | None = None) -> View:
    """What a page knows about its reader."""
    token = session.presented(request)
    reader = request.principal
    readable = site.workspaces(reader)
    within = request.params.get(WORKSPACE.name)
    if within is None:
        within = DEFAULT if DEFAULT in readable or not readable else readable[0]
    scheme = "https" if request.headers.get("x-forwarded-proto") == "https" else "http"
    return View(
        user=reader.name,
        csrf=session.csrf(token),
        path=request.path,
        version=product_version(),
        may_decide=use_case is not None and site.allows(reader, "read", ResourceRef("UseCase", use_case)),
        may_operate=use_case is not None and site.allows(reader, "operate", ResourceRef("UseCase", use_case)),
        may_plan=use_case is not None and site.allows(reader, "plan", ResourceRef("UseCase", use_case)),
        may_look=site.allows(reader, "list", ResourceRef("Home", "home")),
        may_administer=site.allows(reader, "administer", ResourceRef("Home", "home")),
        may_write=site.allows(reader, "write", ResourceRef("Workspace", within)),
        workspace=within,
        workspaces=readable,
        origin=f"{scheme}://{request.host}",
    )


def anonymous(request: Request) -> View:
    """What a page knows before somebody signed in."""
    return View(user="", csrf="", path=request.path, version=product_version())


def address(path: str, workspace: str, parameters: Iterable[tuple[str, object]] = ()) -> str:
    """A path of this server with a query. What is empty is left out; a list is given once for each of its items."""
    pairs: list[tuple[str, str]] = [] if workspace == DEFAULT else [(WORKSPACE.name, workspace)]
    for name, value in parameters:
        values = value if isinstance(value, list | tuple) else (value,)
        pairs += [(name, str(each)) for each in values if each not in (None, "", False)]
    return f"{path}?{urlencode(pairs)}" if pairs else path


def part(text: str) -> str:
    """A text as one segment of a path."""
    return quote(text, safe="")


def model_address(name: str, identifier: str = "") -> str:
    """The page of a registered model: under its name, or its id where no path can hold the name."""
    plain = len(name) <= _LONGEST and not _UNSAFE & set(name)
    return f"/models/{part(name if plain or not identifier else identifier)}"


def table_address(name: str, base: str = "/tables") -> str:
    """The page of a table."""
    return f"{base}/{'/'.join(map(part, name.split('/')))}"


@lru_cache(maxsize=1)
def product_version() -> str:
    """The version of Bedplate that answers."""
    try:
        return version("bedplate")
    except PackageNotFoundError:
        return "from source"
