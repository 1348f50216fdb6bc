"""Decisions about releases: approve, refuse, waive. Each stands in the ledger with who and why."""

from collections.abc import Callable, Iterator
from typing import Annotated

import msgspec

from bedplate.api.use_cases import SMALL
from bedplate.app import session
from bedplate.app.read_models import DecisionReport
from bedplate.app.site import Site
from bedplate.http import CHANGE, Request, Response, Route, from_path

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class DecisionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decision about the waiting release of an environment."""

    environment: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    reason: Reason


class WaiverRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A waiver of one gate that lacks evidence."""

    gate: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    reason: Reason


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    one = from_path("UseCase", "name")

    def decide(operation: str) -> Callable[[Request], Response]:
        def handler(request: Request) -> Response:
            wanted = request.json(DecisionRequest)
            return Response.json(
                site.change(
                    operation,
                    session.presented(request),
                    use_case=request.params["name"],
                    environment=wanted.environment,
                    reason=wanted.reason,
                )
            )

        return handler

    def waive(request: Request) -> Response:
        wanted = request.json(WaiverRequest)
        token, name = session.presented(request), request.params["name"]
        return Response.json(site.change("waive", token, use_case=name, gate=wanted.gate, reason=wanted.reason))

    for operation, summary in (
        ("approve", "Approve the waiting release of an environment"),
        ("refuse", "Refuse the waiting release of an environment"),
    ):
        yield Route(
            "POST", f"/api/v1/use-cases/{{name}}/{operation}", "approve", one, CHANGE, SMALL, decide(operation),
            name=operation, summary=summary, request_type=DecisionRequest, response_type=DecisionReport,
        )  # fmt: skip
    yield Route(
        "POST", "/api/v1/use-cases/{name}/waive", "waive", one, CHANGE, SMALL, waive,
        name="waive", summary="Let a gate without evidence through in dev",
        request_type=WaiverRequest, response_type=DecisionReport,
    )  # fmt: skip
