"""Pages of data: catalogue, tables, rows that were set aside, features, and who may see what."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from bedplate import clock
from bedplate.app import access_pages, feature_pages, quarantine_pages, session, table_pages
from bedplate.app.site import Site
from bedplate.errors import BedplateError, InputError
from bedplate.http import CHANGE, READ, Limits, Request, ResourceRef, Response, Route, fixed, from_path, unaudited
from bedplate.ui.frame import FORM, LOOKS, PAGE, view
from bedplate.ui.render import render

_HOME = fixed("Home", "home")
_TABLE = from_path("Table", "table")
_COMPARES = unaudited("compares what is in force with what could be, and changes nothing")
_POLICIES = Limits(body=1 << 20, depth=1, receipt=10.0, deadline=120.0)
_SLOW = Limits(body=4096, depth=1, receipt=5.0, deadline=120.0)


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    yield from _tables(site)
    yield from _set_aside(site)
    yield from _features(site)
    yield from _access(site)


def _tables(site: Site) -> Iterator[Route]:
    def catalogue(request: Request) -> Response:
        words = request.query.get("q", "").strip()
        if len(words) > 200:
            raise InputError("search for 200 characters at most", where="?q=")
        first = _whole(request.query.get("from", "0"))
        return _page(
            site, request, "tables.html", found=table_pages.catalogue(site.system, request.principal, words, first)
        )

    def table(request: Request) -> Response:
        found = table_pages.page(site.system, request.principal, request.params["table"])
        return _page(site, request, "table.html", use_case=found.view.use_case, found=found)

    def rows(request: Request) -> Response:
        purpose = request.query.get("purpose", "").strip() or None
        found = table_pages.page(site.system, request.principal, request.params["table"], sample=True, purpose=purpose)
        status = 200 if found.refused is None else found.refused.http_status
        return _page(site, request, "table.html", status, use_case=found.view.use_case, found=found)

    def contracts(request: Request) -> Response:
        name = request.params["use_case"]
        with site.store.read() as tx:
            folder = tx.use_cases.get(name).folder
        answer = site.change("diff_contracts", session.presented(request), path=folder)
        return _page(site, request, "contracts.html", name=name, report=answer)

    for path, action, about, audit, limits, handler, name, summary in (
        ("/tables", "list", _HOME, LOOKS, PAGE, catalogue, "page_tables", "Tables, searched by name and column"),
        ("/tables/{table:path}", "list", _TABLE, LOOKS, PAGE, table, "page_table", "One table"),
        ("/rows/{table:path}", "list", _TABLE, READ, PAGE, rows, "page_rows", "One table with some rows"),
        (
            "/contracts/{use_case}", "plan", from_path("UseCase", "use_case"), _COMPARES, _SLOW, contracts,
            "page_contracts", "What contracts change, and what that hits",
        ),
    ):  # fmt: skip
        yield Route("GET", path, action, about, audit, limits, handler, name=name, summary=summary)


def _set_aside(site: Site) -> Iterator[Route]:
    def about(params: Mapping[str, Any]) -> ResourceRef:
        return ResourceRef("Table", f"{params['use_case']}.{params['dataset']}{table_pages.QUARANTINE}")

    def shown(request: Request, status: int = 200, **context: Any) -> Response:
        use_case, dataset = request.params["use_case"], request.params["dataset"]
        found = quarantine_pages.page(site.system, request.principal, use_case, dataset)
        return _page(
            site, request, "quarantine.html", status, use_case=use_case, found=found,
            **{"replayed": None, "refusal": None, **context},
        )  # fmt: skip

    def replay(request: Request) -> Response:
        token = session.presented(request)
        session.check_csrf(token, request.form().get("csrf", ""))
        with site.store.read() as tx:
            folder = tx.use_cases.get(request.params["use_case"]).folder
        try:
            answer = site.change("replay_table", token, path=folder, dataset=request.params["dataset"])
        except BedplateError as error:
            return shown(request, error.http_status, refusal=error)
        return shown(request, replayed=answer)

    path = "/quarantine/{use_case}/{dataset}"
    yield Route(
        "GET", path, "list", about, READ, PAGE, shown, name="page_quarantine", summary="Rows that were set aside"
    )
    yield Route(
        "POST", path, "operate", from_path("UseCase", "use_case"), CHANGE, FORM, replay,
        name="page_replay", summary="Bring in rows that keep the contract by now",
    )  # fmt: skip


def _features(site: Site) -> Iterator[Route]:
    def features(request: Request) -> Response:
        with site.store.read() as tx:
            names = [row.name for row in tx.use_cases.list()]
        open_to = [name for name in names if site.allows(request.principal, "read", ResourceRef("UseCase", name))]
        return _page(site, request, "features.html", found=feature_pages.features(site.store, open_to))

    yield Route(
        "GET", "/features", "list", _HOME, LOOKS, PAGE, features, name="page_features", summary="Features and their use"
    )


def _access(site: Site) -> Iterator[Route]:
    def explore(request: Request) -> Response:
        asked = {name: request.query.get(name, "").strip() for name in ("who", "table", "purpose")}
        return _explorer(site, request, access_pages.explorer(site.system, request.principal, **asked))

    def compare(request: Request) -> Response:
        token, form = session.presented(request), request.form()
        session.check_csrf(token, form.get("csrf", ""))
        text, use_case = form.get("policies", ""), form.get("use_case", "")
        empty = access_pages.explorer(site.system, request.principal)
        found = msgspec.structs.replace(empty, policies=text, use_case=use_case)
        try:
            if use_case:
                with site.store.read() as tx:
                    folder = tx.use_cases.get(use_case).folder
                answer = site.change("diff_use_case", token, path=folder)
            else:
                answer = site.change("diff_policies", token, text=text, where="policies")
        except BedplateError as error:
            return _explorer(site, request, msgspec.structs.replace(found, problem=error))
        return _explorer(site, request, msgspec.structs.replace(found, diff=answer))

    yield Route(
        "GET",
        "/access",
        "administer",
        _HOME,
        LOOKS,
        PAGE,
        explore,
        name="page_access",
        summary="Who sees what, and why",
    )
    yield Route(
        "POST", "/access", "administer", _HOME, _COMPARES, _POLICIES, compare,
        name="page_access_diff", summary="What a change of policies would alter",
    )  # fmt: skip


def _explorer(site: Site, request: Request, found: access_pages.Explorer) -> Response:
    status = 200 if found.problem is None else found.problem.http_status
    return _page(site, request, "access.html", status, found=found)


def _page(
    site: Site, request: Request, template: str, status: int = 200, *, use_case: str | None = None, **context: Any
) -> Response:
    shown = {"view": view(site, request, use_case), "now": clock.milliseconds(), **context}
    return Response.html(render(template, shown), status)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InputError("from must be a whole number", where="?from=")
    return int(text)
