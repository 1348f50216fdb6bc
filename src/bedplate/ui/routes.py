"""The routes of the pages. A page reads through the same queries as the API and changes through the same operations."""

from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from urllib.parse import quote

import msgspec

from bedplate.app import queries, rollouts, session
from bedplate.app.read_models import Trace
from bedplate.app.site import Site
from bedplate.errors import BedplateError, ConflictError, InputError, NotFoundError
from bedplate.http import CHANGE, READ, Request, Response, Route, fixed, from_path, unaudited
from bedplate.http.messages import decode_json
from bedplate.http.routes import Handler
from bedplate.ids import Digest
from bedplate.ui import artifacts, data, pages, registry, tracking
from bedplate.ui.frame import FORM, LOOKS, PAGE, anonymous, view

STATIC = {
    "bedplate.css": "text/css; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "curves.js": "text/javascript; charset=utf-8",
    "links.js": "text/javascript; charset=utf-8",
    "pages.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
VENDORED = {
    "htmx-4.0.1.min.js": "text/javascript; charset=utf-8",
    "uplot-1.6.32.min.css": "text/css; charset=utf-8",
    "uplot-1.6.32.min.js": "text/javascript; charset=utf-8",
}
"""What may be fetched without signing in, by exact name: a name never becomes a path."""


_STEERING = {"roll back": "roll_back", "freeze": "freeze_rollout", "go on": "resume_rollout"}


def routes(site: Site) -> Iterator[Route]:
    """The pages of a home."""
    yield from _looking(site)
    yield from _deciding(site)
    yield from tracking.routes(site)
    yield from artifacts.routes(site)
    yield from registry.routes(site)
    yield from data.routes(site)
    yield from _coming_in(site)
    yield from _files()


def _looking(site: Site) -> Iterator[Route]:
    home, one = fixed("Home", "home"), from_path("UseCase", "name")

    def use_cases(request: Request) -> Response:
        return Response.html(pages.use_cases(view(site, request), site.visible(request.principal)))

    def use_case(request: Request) -> Response:
        page = queries.use_case_page(site.store, request.params["name"], request.principal, site.live())
        newest = rollouts.newest(site.system, page.status.name)
        plots = queries.plots(site.store, page.status.name)
        return Response.html(pages.use_case(view(site, request, page.status.name), page, newest, plots))

    def stages(request: Request) -> Response:
        page = queries.use_case_page(site.store, request.params["name"], request.principal, site.live())
        return Response.html(pages.stages(view(site, request), page))

    def series(request: Request) -> Response:
        page = queries.use_case_page(site.store, request.params["name"], request.principal, site.live())
        points = pages.series(page, request.params["series"])
        if points is None:
            raise NotFoundError("there is no such chart")
        return Response.json(points)

    def portfolio(request: Request) -> Response:
        names = [row.name for row in site.visible(request.principal)]
        budget = request.query.get("budget", "").strip()
        found = queries.portfolio(site.store, names, budget)
        return Response.html(pages.portfolio(view(site, request), found, budget))

    def evidence(request: Request) -> Response:
        fact = site.evidence(request.principal, Digest(request.params["digest"]))
        return Response.html(pages.evidence(view(site, request), fact))

    def find(request: Request) -> Response:
        wanted = request.query.get("id", "").strip()
        if not wanted or len(wanted) > 80 or not all(c.isalnum() or c in "_-" for c in wanted):
            raise InputError("this is no prediction id", fix="paste the id that an answer carried, such as pred_01hf…")
        return Response.redirect(f"/trace/{quote(wanted, safe='')}")

    def trace(request: Request) -> Response:
        answer = site.change("trace", session.presented(request), prediction_id=request.params["prediction"])
        return Response.html(pages.trace(view(site, request), _as_trace(answer)))

    def audit(request: Request) -> Response:
        before = request.query.get("before", "")
        if before and not (before.isascii() and before.isdigit() and len(before) <= 15):
            raise InputError("before must be a whole number", where="?before=")
        page = queries.audit(site.store, int(before) if before else None)
        return Response.html(pages.audit(view(site, request), page))

    yield Route("GET", "/", "enter", home, LOOKS, PAGE, use_cases, name="page_use_cases", summary="Use cases")
    yield Route(
        "GET", "/use-cases/{name}", "read", one, LOOKS, PAGE, use_case, name="page_use_case", summary="One use case"
    )
    yield Route(
        "GET", "/use-cases/{name}/stages", "read", one, LOOKS, PAGE, stages, name="page_stages", summary="Its stages"
    )
    yield Route(
        "GET", "/use-cases/{name}/series/{series}", "read", one, LOOKS, PAGE, series,
        name="page_series", summary="Points of a chart",
    )  # fmt: skip
    yield Route(
        "GET", "/portfolio", "enter", home, LOOKS, PAGE, portfolio, name="page_portfolio", summary="What to fund first"
    )
    yield Route(
        "GET",
        "/evidence/{digest:digest}",
        "list",
        home,
        LOOKS,
        PAGE,
        evidence,
        name="page_evidence",
        summary="One fact",
    )
    yield Route("GET", "/trace", "list", home, LOOKS, PAGE, find, name="page_find", summary="Find a prediction")
    yield Route(
        "GET", "/trace/{prediction}", "list", home, READ, PAGE, trace, name="page_trace", summary="Trace a prediction"
    )
    yield Route(
        "GET", "/audit", "audit", fixed("Ledger", "ledger"), LOOKS, PAGE, audit, name="page_audit", summary="Ledger"
    )


def _deciding(site: Site) -> Iterator[Route]:
    def decide(request: Request) -> Response:
        token, form, name = session.presented(request), request.form(), request.params["name"]
        session.check_csrf(token, form.get("csrf", ""))
        decision, reason = form.get("decision", ""), form.get("reason", "").strip()
        if decision not in ("approve", "refuse"):
            raise InputError("a decision is approve or refuse", where="decision")
        if not reason or len(reason) > 2000:
            raise InputError("a decision needs a reason of at most 2,000 characters", where="reason")
        environment = form.get("environment", "")
        newest = next(iter(queries.use_case_page(site.store, name, request.principal).releases), None)
        if newest is None or (newest.bundle.body.digest, newest.waiting_in) != (form.get("bundle"), environment):
            raise ConflictError(
                "this version does not wait any more: something was decided or released meanwhile",
                fix="load the page again and look at what waits now",
            )
        site.change(decision, token, use_case=name, environment=environment, reason=reason)
        return Response.redirect(f"/use-cases/{quote(name, safe='')}")

    def steer(request: Request) -> Response:
        token, form, name = session.presented(request), request.form(), request.params["name"]
        session.check_csrf(token, form.get("csrf", ""))
        operation = _STEERING.get(form.get("action", ""))
        if operation is None:
            raise InputError(f"a rollout can be told to {', '.join(_STEERING)}", where="action")
        newest = rollouts.newest(site.system, name)
        if newest is None or newest.id != form.get("rollout"):
            raise ConflictError("another release is being let in by now", fix="load the page again and look at it")
        site.change(operation, token, endpoint=name)
        return Response.redirect(f"/use-cases/{quote(name, safe='')}#rollout")

    yield Route(
        "POST", "/use-cases/{name}/rollout", "operate", from_path("UseCase", "name"), CHANGE, FORM, steer,
        name="page_steer", summary="Freeze a rollout, go on with it, or roll it back",
    )  # fmt: skip
    yield Route(
        "POST", "/use-cases/{name}/decision", "approve", from_path("UseCase", "name"), CHANGE, FORM, decide,
        name="page_decide", summary="Approve or refuse the waiting release",
    )  # fmt: skip


def _coming_in(site: Site) -> Iterator[Route]:
    home = fixed("Home", "home")

    def enter(request: Request) -> Response:
        token = site.redeem(request.params["link"])
        # Not a redirect: a browser sends a SameSite=Strict cookie only on the way from a page of ours.
        page = pages.sign_in(
            anonymous(request), heading="You are in", text="Your browser is signed in.", signed_in=True
        )
        return Response.html(page, headers=(session.cookie(token),))

    def leave(request: Request) -> Response:
        session.check_csrf(session.presented(request), request.form().get("csrf", ""))
        site.sign_out(request.principal)
        page = pages.sign_in(anonymous(request), heading="Signed out", text="To come back, ask for a new link:")
        return Response.html(page, headers=(session.no_cookie(),))

    yield Route(
        "GET", "/login/{link}", "read", home, CHANGE, PAGE, enter,
        public=True, name="page_login", summary="Use up a login link",
    )  # fmt: skip
    yield Route("POST", "/logout", "enter", home, CHANGE, FORM, leave, name="page_logout", summary="Sign out")


def _files() -> Iterator[Route]:
    reason = unaudited("style sheets and scripts, the same for everybody")
    for path, folder, kinds in (("/static/{file}", "", STATIC), ("/static/vendor/{file}", "vendor", VENDORED)):
        yield Route(
            "GET", path, "read", fixed("Home", "home"), reason, PAGE, _serve_files(folder, kinds),
            public=True, name=f"static{folder and '_' + folder}", summary="Style sheets and scripts",
        )  # fmt: skip


def _serve_files(folder: str, kinds: dict[str, str]) -> Handler:
    def asset(request: Request) -> Response:
        name = request.params["file"]
        if name not in kinds:
            raise NotFoundError("there is no such file")
        headers = [("content-type", kinds[name]), ("cache-control", "public, max-age=300")]
        return Response(headers=headers, body=_asset(folder, name))

    return asset


@lru_cache(maxsize=16)
def _asset(folder: str, name: str) -> bytes:
    return files("bedplate.ui").joinpath("static", folder, name).read_bytes()


def _as_trace(answer: object) -> Trace:
    return answer if isinstance(answer, Trace) else msgspec.convert(answer, Trace)


def present(request: Request, response: Response) -> Response:
    """Show errors as pages to whoever asked for a page; programs get the JSON."""
    if response.status < 400 or "text/html" not in request.headers.get("accept", ""):
        return response
    if request.path.startswith(("/api/", "/ajax-api/", "/static/", "/tile/")) or not response.body:
        return response
    if ("content-type", "application/json") not in response.headers:
        return response
    fields = decode_json(response.body, dict[str, object])
    kept = [line for line in response.headers if line[0] not in ("content-type", "www-authenticate")]
    reader = anonymous(request)
    if response.status == 401:
        text = "This page needs a session. Ask for a link where Bedplate runs:"
        if request.path.startswith("/login/"):
            text = "This link was used already, or its 60 seconds are over. Ask for another one:"
        page = pages.sign_in(reader, heading="Sign in", text=text)
    else:
        where, fix = fields.get("where"), fields.get("fix")
        message = str(fields.get("message", ""))
        error = BedplateError(message, where=str(where) if where else None, fix=str(fix) if fix else None)
        page = pages.failure(reader, error, response.status)
    return Response.html(page, response.status, headers=tuple(kept))
