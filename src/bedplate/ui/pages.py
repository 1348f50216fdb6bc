"""What each page shows: read models in, HTML out. Nothing here reads a store or decides anything."""

from collections.abc import Sequence
from typing import Any

from bedplate.app.read_models import AuditPage, Trace, UseCasePage, UseCaseStatus
from bedplate.app.serving_models import RolloutReport
from bedplate.errors import BedplateError
from bedplate.plan.portfolio import Portfolio
from bedplate.records import Fact
from bedplate.ui import charts
from bedplate.ui.frame import View
from bedplate.ui.render import moment, render

SECTIONS = (
    ("objective", "Goal"),
    ("releases", "Releases and approvals"),
    ("rollout", "Letting a release in"),
    ("model", "How good it is"),
    ("gates", "Gates"),
    ("endpoint", "Endpoint"),
    ("watch", "What it does in use"),
    ("retraining", "Retraining"),
    ("plan", "Plan and cost"),
    ("data", "Data"),
    ("audit", "Audit"),
)
"""Sections of a use case's page, in reading order: (template and anchor, title)."""


def use_cases(view: View, rows: Sequence[UseCaseStatus]) -> str:
    """The list of use cases."""
    return render("use_cases.html", {"view": view, "use_cases": rows})


def use_case(view: View, page: UseCasePage, rollout: RolloutReport | None, plots: str = "") -> str:
    """One use case, objective first. ``plots`` is HTML: the options of its plan as pictures."""
    shown = {"view": view, "page": page, "rollout": rollout, "plots": plots, "sections": SECTIONS}
    return render("use_case.html", shown)


def portfolio(view: View, found: Portfolio, budget: str) -> str:
    """Use cases on one budget: value against cost, and what to fund first."""
    return render("portfolio.html", {"view": view, "found": found, "budget": budget, "bars": charts.funding(found)})


def stages(view: View, page: UseCasePage) -> str:
    """The line of stages alone, for a page that watches a run."""
    return render("use_case/stages.html", {"view": view, "page": page, "name": page.status.name})


def trace(view: View, found: Trace) -> str:
    """The walk from a prediction to its objective."""
    return render("trace.html", {"view": view, "trace": found})


def audit(view: View, page: AuditPage) -> str:
    """A page of the ledger, newest first."""
    oldest = page.entries[-1].index if page.entries else 0
    return render("audit.html", {"view": view, "audit": page, "older": oldest if oldest > 0 else None})


def evidence(view: View, fact: Fact) -> str:
    """One fact as it is kept."""
    return render("evidence.html", {"view": view, "fact": fact})


def sign_in(view: View, *, heading: str, text: str, signed_in: bool = False) -> str:
    """The page before sign-in, and the one right after it."""
    return render("login.html", {"view": view, "heading": heading, "text": text, "signed_in": signed_in})


def failure(view: View, problem: BedplateError, status: int) -> str:
    """An error: what, where, and what to do."""
    return render("error.html", {"view": view, "status": status, "error": problem})


def series(page: UseCasePage, name: str) -> dict[str, Any] | None:
    """The points of the line chart ``name`` of a use case, as the chart script draws them; None for no such chart."""
    observation = page.evidence.observation
    if observation is None:
        return None
    windows = observation.body.windows
    days = [moment(window.as_of).partition(",")[0] for window in windows]
    labels = days if len(set(days)) == len(days) else [moment(window.as_of) for window in windows]
    if name == "latency":
        slowest = {"label": "p99", "values": [window.p99_ms for window in windows]}
        return {"x": labels, "series": [slowest, {"label": "half within", "values": [w.p50_ms for w in windows]}]}
    if name == "matched":
        shares = [window.matched for window in windows]
        ends = {end: [None if share is None else getattr(share, end) for share in shares] for end in ("low", "high")}
        values = [None if share is None else share.value for share in shares]
        return {"x": labels, "percent": True, "series": [{"label": "matched", "values": values, **ends}]}
    return None
