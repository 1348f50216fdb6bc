"""Pages of the registry. What they ask for goes the way of the API: the same rules, gates, approvals and refusals."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from bedplate import clock
from bedplate.app import registry_pages, session
from bedplate.app.registry_pages import Pointer
from bedplate.app.site import Site
from bedplate.errors import BedplateError, DeniedError, InputError
from bedplate.http import CHANGE, Request, ResourceRef, Response, Route
from bedplate.release import checks
from bedplate.ui.frame import FORM, LOOKS, PAGE, WITHIN, WORKSPACE, part, view
from bedplate.ui.render import render
from bedplate.ui.tracking import query_of

_LIVE_UNDER = ("alias", "environment", "stage")


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    yield from _looking(site)
    yield from _asking(site)


def _looking(site: Site) -> Iterator[Route]:
    def models(request: Request) -> Response:
        found = registry_pages.model_list(site.store, request.params["workspace"], query_of(request))
        return _page(site, request, "models.html", 200 if found.problem is None else 400, found=found)

    def model(request: Request) -> Response:
        asked = request.query
        found = registry_pages.model_detail(
            site.store,
            request.params["workspace"],
            request.params["name"],
            _may_read(site, request),
            page=asked.get("page", ""),
            below=_whole(asked.get("before", "")),
            then=_then(asked.get("at", ""), asked.get("under", "")),
        )
        return _page(site, request, "model.html", found=found, asked_at=asked.get("at", ""))

    def version(request: Request) -> Response:
        return _version(site, request)

    for path, action, handler, name, summary in (
        ("/models", "list", models, "page_models", "Registered models"),
        ("/models/{name}", "read", model, "page_model", "One registered model"),
        ("/models/{name}/versions/{number:int}", "read", version, "page_version", "One version of a model"),
    ):
        yield Route("GET", path, action, WITHIN, LOOKS, PAGE, handler, name=name, summary=summary, queries=(WORKSPACE,))


def _asking(site: Site) -> Iterator[Route]:
    def asked(request: Request, ask: Callable[[str, str, int, dict[str, str]], object]) -> Response:
        """Do what a form asks for; a refusal is shown where it was asked."""
        form = request.form()
        session.check_csrf(session.presented(request), form.get("csrf", ""))
        workspace, number = request.params["workspace"], request.params["number"]
        name = registry_pages.name_of(site.store, workspace, request.params["name"])
        try:
            ask(workspace, name, number, form)
        except DeniedError as error:
            return _version(site, request, error, 403)
        except BedplateError as error:
            return _version(site, request, error, error.http_status)
        reader = view(site, request)
        return Response.redirect(reader.link(f"/models/{part(request.params['name'])}/versions/{number}"))

    def stage(request: Request) -> Response:
        def ask(workspace: str, name: str, number: int, form: dict[str, str]) -> object:
            expected = form.get("expected") or None
            archive = form.get("archive") == "yes"
            return site.models.transition(
                request.principal, workspace, name, number, form.get("stage", ""),
                archive_existing=archive, expected=expected,
            )  # fmt: skip

        return asked(request, ask)

    def alias(request: Request) -> Response:
        def ask(workspace: str, name: str, number: int, form: dict[str, str]) -> object:
            alias = form.get("alias", "").strip()
            checks.new_alias(alias)
            return site.models.set_alias(request.principal, workspace, name, alias, number)

        return asked(request, ask)

    base = "/models/{name}/versions/{number:int}"
    for path, handler, name, summary in (
        ("stage", stage, "page_ask_stage", "Ask for a stage of a version"),
        ("alias", alias, "page_ask_alias", "Ask for an alias of a version"),
    ):
        yield Route(
            "POST", f"{base}/{path}", "write", WITHIN, CHANGE, FORM, handler,
            name=name, summary=summary, queries=(WORKSPACE,),
        )  # fmt: skip


def _version(site: Site, request: Request, refusal: BedplateError | None = None, status: int = 200) -> Response:
    found = registry_pages.version_detail(
        site.store,
        request.params["workspace"],
        request.params["name"],
        request.params["number"],
        _may_read(site, request),
    )
    stages = registry_pages.stages_to(found.version.row)
    return _page(site, request, "version.html", status, found=found, stages=stages, refusal=refusal)


def _page(site: Site, request: Request, template: str, status: int = 200, **context: Any) -> Response:
    shown = {"view": view(site, request), "now": clock.milliseconds(), **context}
    return Response.html(render(template, shown), status)


def _may_read(site: Site, request: Request) -> Callable[[str], bool]:
    return lambda name: site.allows(request.principal, "read", ResourceRef("UseCase", name))


def _whole(text: str) -> int | None:
    if text and not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InputError("before must be a whole number", where="?before=")
    return int(text) if text else None


def _then(at: str, under: str) -> tuple[int, Pointer] | None:
    """The moment that a date-time box gives, in UTC, and what is asked about; None if nothing is asked.

    Raises:
        InputError: it is no moment, or there is nothing of this kind.
    """
    if not at:
        return None
    by, _, value = under.partition(":")
    if by not in _LIVE_UNDER or not value:
        raise InputError("choose what to look for: a stage, an alias or an environment", where="under")
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as error:
        raise InputError(f"{at[:40]!r} is no date and time", where="at", fix="write 2026-11-24T09:30") from error
    known = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return clock.milliseconds(known.astimezone(UTC)), Pointer(by, value)  # type: ignore[arg-type]
