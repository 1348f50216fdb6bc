"""Pages of artifacts: folders, previews that run nothing, and downloads."""

from collections.abc import Iterator

from bedplate import clock
from bedplate.app import artifact_pages, transfer
from bedplate.app.artifact_pages import place_of_run
from bedplate.app.site import Site
from bedplate.http import Limits, Request, Response, Route, unaudited
from bedplate.store.artifacts import ArtifactRow
from bedplate.ui.frame import LOOKS, PAGE, WITHIN, WORKSPACE, view
from bedplate.ui.render import render

HANDED_OVER = unaudited("hands over what its author logged; rows of tables are read through governed scans")
DOWNLOAD = Limits(body=4096, depth=1, receipt=5.0, deadline=60.0)


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""

    def browse(request: Request) -> Response:
        workspace, run = request.params["workspace"], request.params["run"]
        place, path = place_of_run(site.store, workspace, run), request.params.get("path", "")
        shown = None
        if path and not artifact_pages.is_folder(site.artifacts, workspace, place, path):
            shown = artifact_pages.preview(site.artifacts, workspace, place, path)
        inside = path.rpartition("/")[0] if shown is not None else path
        with site.store.read() as tx:
            row = tx.runs.get(workspace, run)
            experiment = tx.experiments.get(workspace, row.experiment)
        context = {
            "view": view(site, request),
            "now": clock.milliseconds(),
            "run": row,
            "experiment": experiment,
            "files": artifact_pages.folder(site.artifacts, workspace, place, inside),
            "shown": shown,
        }
        return Response.html(render("artifacts.html", context))

    def picture(request: Request) -> Response:
        workspace = request.params["workspace"]
        place = place_of_run(site.store, workspace, request.params["run"])
        kind, data, row = artifact_pages.picture(site.artifacts, workspace, place, request.params["path"])
        headers = [("content-type", kind), *transfer.inline(row.name)]
        return Response(headers=headers, body=data)

    async def download(request: Request) -> Response:
        workspace, run, path = (request.params[name] for name in ("workspace", "run", "path"))

        def find() -> ArtifactRow:
            return artifact_pages.find(site.artifacts, workspace, place_of_run(site.store, workspace, run), path)

        return await transfer.send(request, find, site.artifacts.read)

    base = "/runs/{run}"
    for path, action, audit, limits, handler, name, summary in (
        ("artifacts", "list", LOOKS, PAGE, browse, "page_artifacts", "Artifacts of a run"),
        ("artifacts/{path:path}", "read", HANDED_OVER, PAGE, browse, "page_artifact", "An artifact of a run"),
        ("picture/{path:path}", "read", HANDED_OVER, PAGE, picture, "page_picture", "A picture that a run logged"),
        ("download/{path:path}", "read", HANDED_OVER, DOWNLOAD, download, "page_download", "A file that a run logged"),
    ):
        yield Route(
            "GET", f"{base}/{path}", action, WITHIN, audit, limits, handler,
            name=name, summary=summary, queries=(WORKSPACE,),
        )  # fmt: skip
