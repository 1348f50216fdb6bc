"""Pages of artifacts of runs and of logged models: folders, previews that run nothing, and downloads."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bedplate import clock
from bedplate.app import artifact_pages, logged_model_pages, transfer
from bedplate.app.artifact_pages import Place
from bedplate.app.site import Site
from bedplate.http import Limits, Request, Response, Route, unaudited
from bedplate.store import Store
from bedplate.store.artifacts import ArtifactRow
from bedplate.tracking import logged_models
from bedplate.ui.frame import LOOKS, PAGE, WITHIN, WORKSPACE, view
from bedplate.ui.render import render

HANDED_OVER = unaudited("hands over what its author logged; rows of tables are read through governed scans")
DOWNLOAD = Limits(body=4096, depth=1, receipt=5.0, deadline=60.0)


class Owner(NamedTuple):
    """Something that has artifacts: where its pages are, what the path calls it, and where its artifacts lie."""

    base: str
    noun: str
    parameter: str
    place: Callable[[Store, str, str], Place]
    row: Callable[[Any, str, str], Any]


RUN = Owner("/runs", "run", "run", artifact_pages.place_of_run, lambda tx, workspace, run: tx.runs.get(workspace, run))
LOGGED_MODEL = Owner(
    "/logged-models", "logged_model", "model", artifact_pages.place_of_logged_model, logged_models.find
)


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    for owner in (RUN, LOGGED_MODEL):
        yield from _of(site, owner)

    def logged_model(request: Request) -> Response:
        workspace, identifier = request.params["workspace"], request.params["model"]
        found = logged_model_pages.logged_model_detail(site.store, workspace, identifier)
        place = artifact_pages.place_of_logged_model(site.store, workspace, identifier)
        files = artifact_pages.folder(site.artifacts, workspace, place)
        context = {"view": view(site, request), "now": clock.milliseconds(), "found": found, "files": files}
        return Response.html(render("logged_model.html", context))

    yield Route(
        "GET", f"{LOGGED_MODEL.base}/{{model}}", "read", WITHIN, LOOKS, PAGE, logged_model,
        name="page_logged_model", summary="One logged model", queries=(WORKSPACE,),
    )  # fmt: skip


def _of(site: Site, owner: Owner) -> Iterator[Route]:
    def browse(request: Request) -> Response:
        workspace, identifier = request.params["workspace"], request.params[owner.parameter]
        place, path = owner.place(site.store, workspace, identifier), request.params.get("path", "")
        shown = None
        if path and not artifact_pages.is_folder(site.artifacts, workspace, place, path):
            shown = artifact_pages.preview(site.artifacts, workspace, place, path)
        inside = path.rpartition("/")[0] if shown is not None else path
        with site.store.read() as tx:
            row = owner.row(tx, workspace, identifier)
            experiment = tx.experiments.get(workspace, row.experiment)
        context = {
            "view": view(site, request),
            "now": clock.milliseconds(),
            "base": f"{owner.base}/{row.id}",
            "owner": row,
            "experiment": experiment,
            "files": artifact_pages.folder(site.artifacts, workspace, place, inside),
            "shown": shown,
        }
        return Response.html(render("artifacts.html", context))

    def picture(request: Request) -> Response:
        workspace = request.params["workspace"]
        place = owner.place(site.store, workspace, request.params[owner.parameter])
        kind, data, row = artifact_pages.picture(site.artifacts, workspace, place, request.params["path"])
        headers = [("content-type", kind), *transfer.inline(row.name)]
        return Response(headers=headers, body=data)

    async def download(request: Request) -> Response:
        workspace, identifier = request.params["workspace"], request.params[owner.parameter]

        def find() -> ArtifactRow:
            place = owner.place(site.store, workspace, identifier)
            return artifact_pages.find(site.artifacts, workspace, place, request.params["path"])

        return await transfer.send(request, find, site.artifacts.read)

    what = owner.noun.replace("_", " ")
    for path, action, audit, limits, handler, name, summary in (
        ("artifacts", "list", LOOKS, PAGE, browse, "artifacts", f"Artifacts of a {what}"),
        ("artifacts/{path:path}", "read", HANDED_OVER, PAGE, browse, "artifact", f"An artifact of a {what}"),
        ("picture/{path:path}", "read", HANDED_OVER, PAGE, picture, "picture", f"A picture of a {what}"),
        ("download/{path:path}", "read", HANDED_OVER, DOWNLOAD, download, "download", f"A file of a {what}"),
    ):
        yield Route(
            "GET", f"{owner.base}/{{{owner.parameter}}}/{path}", action, WITHIN, audit, limits, handler,
            name=f"page_{owner.noun}_{name}", summary=summary, queries=(WORKSPACE,),
        )  # fmt: skip
