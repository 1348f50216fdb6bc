"""Rollouts of releases: look, freeze, go on, roll back, and report what came of answers."""

from collections.abc import Callable, Iterator
from typing import Annotated

import msgspec

from bedplate.api.use_cases import LONG, LOOKS, SMALL, at_endpoint
from bedplate.app.serving_models import RolloutReport
from bedplate.app.site import Site
from bedplate.http import CHANGE, Limits, Request, Response, Route, from_path

OUTCOMES = Limits(body=8 << 20, depth=LONG.depth, receipt=15.0, deadline=LONG.deadline)
"""As many outcomes as a message may have, with the longest keys, fit."""


class RollBackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why to roll back; an empty reason names who asked."""

    reason: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came of an answer: the key that was asked with, and what it earned."""

    key: Annotated[str, msgspec.Meta(max_length=1000)]
    value: float


class OutcomesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Outcomes of one rollout's requests."""

    outcomes: Annotated[tuple[Outcome, ...], msgspec.Meta(min_length=1, max_length=1000)]


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file. An endpoint has the name of its use case."""
    one, base = from_path("UseCase", "name"), "/api/v1/use-cases/{name}/rollout"

    def carry_out(operation: str) -> Callable[[Request], Response]:
        def handler(request: Request) -> Response:
            return Response.json(at_endpoint(site, request, operation))

        return handler

    def roll_back(request: Request) -> Response:
        wanted = request.json(RollBackRequest) if request.body else RollBackRequest()
        return Response.json(at_endpoint(site, request, "roll_back", reason=wanted.reason))

    def report(request: Request) -> Response:
        pairs = tuple((outcome.key, outcome.value) for outcome in request.json(OutcomesRequest).outcomes)
        return Response.json(at_endpoint(site, request, "take_outcomes", outcomes=pairs))

    yield Route(
        "GET", base, "read", one, LOOKS, SMALL, carry_out("show_rollout"),
        name="rollout", summary="The newest rollout, with what its guards see", response_type=RolloutReport,
    )  # fmt: skip
    for operation, path, summary in (
        ("start_rollout", base, "Begin to let the newest approved release in"),
        ("freeze_rollout", f"{base}/freeze", "Take no more steps"),
        ("resume_rollout", f"{base}/resume", "Go on with the step at which it was frozen"),
    ):
        yield Route(
            "POST", path, "operate", one, CHANGE, SMALL, carry_out(operation),
            name=operation, summary=summary, response_type=RolloutReport,
        )  # fmt: skip
    yield Route(
        "POST", f"{base}/roll-back", "operate", one, CHANGE, SMALL, roll_back,
        name="roll_back", summary="Have the release from before answer everything",
        request_type=RollBackRequest, response_type=RolloutReport,
    )  # fmt: skip
    yield Route(
        "POST", f"{base}/outcomes", "operate", one, CHANGE, OUTCOMES, report,
        name="take_outcomes", summary="Report what came of answers",
        request_type=OutcomesRequest, response_type=RolloutReport,
    )  # fmt: skip
