"""Pages of experiments and runs."""

from collections.abc import Iterator
from typing import Any

import msgspec

from bedplate import clock
from bedplate.app import run_pages, tracking_pages
from bedplate.app.artifact_pages import folder, place_of_run
from bedplate.app.site import Site
from bedplate.app.tracking_pages import Column, Query, RunTable
from bedplate.errors import InputError
from bedplate.http import Request, ResourceRef, Response, Route
from bedplate.store.filters import Order
from bedplate.tracking.experiments import View as Lifecycles
from bedplate.ui import curves
from bedplate.ui.frame import LOOKS, PAGE, WITHIN, WORKSPACE, View, view
from bedplate.ui.render import render

VIEWS: dict[str, Lifecycles] = {"active": "ACTIVE_ONLY", "deleted": "DELETED_ONLY", "all": "ALL"}
"""Words for what is looked at, as addresses say them."""
SECTIONS = (
    ("metrics", "Metrics"),
    ("params", "Parameters"),
    ("tags", "Tags"),
    ("links", "Inputs and outputs"),
    ("artifacts", "Artifacts"),
    ("lineage", "Where it led"),
    ("system", "System metrics"),
    ("detail", "Engineering detail"),
)
"""Sections of a run's page, in reading order: (template and anchor, title)."""


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""

    def experiments(request: Request) -> Response:
        found = tracking_pages.experiment_list(site.store, request.params["workspace"], query_of(request))
        return _page("experiments.html", view(site, request), found=found, problem=found.problem)

    def runs(request: Request) -> Response:
        workspace, experiment = request.params["workspace"], str(request.params["experiment"])
        table = tracking_pages.run_table(site.store, workspace, experiment, query_of(request))
        reader = view(site, request)
        return _page(
            "runs.html",
            reader,
            table=table,
            sheet=Sheet(reader, table),
            problem=table.problem,
            name_column=tracking_pages.NAME,
            of_runs=tracking_pages.OF_RUNS,
        )

    def rows(request: Request) -> Response:
        workspace, experiment = request.params["workspace"], str(request.params["experiment"])
        asked = request.query_lists
        seen, columns = asked.get("run", []), asked.get("column", [])
        ids = [*seen, *asked.get("other", [])]
        lines, shown, newest = tracking_pages.run_lines(site.store, workspace, experiment, ids, columns)
        going = [line.row.id for line in lines if line.row.status == "RUNNING"]
        context = {
            "lines": [line for line in lines if line.row.id in seen or line.row.id not in going],
            "columns": shown,
            "going": going,
            "experiment": experiment,
            "asked": columns,
            "seen": _one(asked, "seen"),
            "newest": newest,
        }
        return _page("run_rows.html", view(site, request), **context)

    def compare(request: Request) -> Response:
        ids = request.query_lists.get("run", [])
        found = tracking_pages.comparison(site.store, request.params["workspace"], ids)
        names = [each.name for each in found.metrics if not each.name.startswith(tracking_pages.SYSTEM)]
        charts = curves.one_each(names)
        return _page("compare.html", view(site, request), found=found, charts=charts, controls=_controls(request))

    def series(request: Request) -> Response:
        asked = request.query_lists
        ids, keys = asked.get("run", []), asked.get("key", [])
        workspace = request.params["workspace"]
        if "after" in asked:
            found, running = run_pages.later(site.store, workspace, ids, keys, asked["after"])
            return Response.json({"curves": found, "running": running})
        steps = curves.steps(asked["steps"][0]) if "steps" in asked else None
        return Response.json({"curves": run_pages.curves(site.store, workspace, ids, keys, steps=steps)})

    def run(request: Request) -> Response:
        workspace, identifier = request.params["workspace"], request.params["run"]
        detail = run_pages.run_detail(site.store, workspace, identifier, _may_read(site, request))
        files = folder(site.artifacts, workspace, place_of_run(site.store, workspace, identifier))
        controls = _controls(request)
        return _page(
            "run.html",
            view(site, request),
            run=detail,
            files=files,
            sections=SECTIONS,
            controls=controls,
            charts=curves.grouped(detail.drawn, controls["group"]),
            system_charts=curves.one_each([each.key for each in detail.system]),
        )

    def now(request: Request) -> Response:
        workspace, identifier = request.params["workspace"], request.params["run"]
        detail = run_pages.run_detail(site.store, workspace, identifier, _may_read(site, request))
        return _page("run_now.html", view(site, request), run=detail, partial=True)

    for path, action, handler, name, summary in (
        ("/experiments", "list", experiments, "page_experiments", "Experiments"),
        ("/experiments/{experiment:int}", "list", runs, "page_runs", "Runs of an experiment"),
        ("/experiments/{experiment:int}/rows", "list", rows, "page_run_rows", "Runs as they are now"),
        ("/runs/compare", "read", compare, "page_compare", "Runs side by side"),
        ("/runs/series", "read", series, "page_run_series", "Points of curves"),
        ("/runs/{run}", "read", run, "page_run", "One run"),
        ("/runs/{run}/now", "read", now, "page_run_now", "One run as it is now"),
    ):
        yield Route("GET", path, action, WITHIN, LOOKS, PAGE, handler, name=name, summary=summary, queries=(WORKSPACE,))


def query_of(request: Request) -> Query:
    """The view that an address asks for.

    Raises:
        InputError: it names none that there is.
    """
    asked = request.query_lists
    looked_at = _one(asked, "view") or "active"
    if looked_at not in VIEWS:
        raise InputError(f"{looked_at[:40]!r} is no view", where="view", fix=f"use one of {', '.join(VIEWS)}")
    return Query(
        filter=_one(asked, "filter").strip(),
        order=_one(asked, "order").strip(),
        view=VIEWS[looked_at],
        columns=tuple(asked.get("column", ())),
        page=_one(asked, "page"),
    )


class Sheet(msgspec.Struct, frozen=True):
    """The addresses of a table of runs: the same view with one thing changed."""

    view: View
    table: RunTable

    def link(self, **changes: Any) -> str:
        """The address of this view with these parameters in place of its own; a page begins anew."""
        query = self.table.query
        word = next(word for word, value in VIEWS.items() if value == query.view)
        kept = {
            "filter": query.filter,
            "order": query.order,
            "view": "" if word == "active" else word,
            "column": query.columns,
        }
        return self.view.link(f"/experiments/{self.table.experiment.row.id}", **{**kept, **changes})

    def direction(self, column: Column) -> str:
        """How the table is ordered by a column: ascending, descending or not at all (empty)."""
        ordered = self.table.ordered
        if ordered is None:
            return "descending" if column.key == "started" and column.kind == "run" else ""
        return _DIRECTIONS[ordered.ascending] if _same(column, ordered) else ""

    def order(self, column: Column) -> str:
        """The order that a click on the head of a column asks for: numbers and times begin with the greatest."""
        now = self.direction(column)
        greatest_first = column.numeric or column.key in ("started", "ended")
        descending = now == "ascending" or (not now and greatest_first)
        return f"{column.order} {'DESC' if descending else 'ASC'}"


_DIRECTIONS = {True: "ascending", False: "descending"}


def _same(column: Column, ordered: Order) -> bool:
    if ordered.kind == "attribute":
        return column.order == ordered.key
    prefix = f"{ordered.kind}s."
    return column.order == f"{prefix}{tracking_pages.quoted(ordered.key)}"


def _controls(request: Request) -> dict[str, str]:
    asked = request.query_lists
    return {name: curves.control(name, _one(asked, name)) for name in curves.CONTROLS}


def _may_read(site: Site, request: Request) -> Any:
    return lambda name: site.allows(request.principal, "read", ResourceRef("UseCase", name))


def _one(asked: dict[str, list[str]], name: str) -> str:
    return asked.get(name, [""])[0]


def _page(template: str, reader: View, *, problem: object = None, **context: Any) -> Response:
    shown = {"view": reader, "now": clock.milliseconds(), "problem": problem, **context}
    return Response.html(render(template, shown), 200 if problem is None else 400)
