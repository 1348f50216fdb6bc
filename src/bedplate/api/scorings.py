"""Tables through the released model of an endpoint: ask for it, look, cancel."""

from collections.abc import Callable, Iterator
from typing import Annotated

import msgspec

from bedplate.api.use_cases import LOOKS, SMALL, at_endpoint
from bedplate.app.read_models import Scoring
from bedplate.app.site import Site
from bedplate.http import CHANGE, Request, Response, Route, from_path

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=1000)]


class ScoringRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to score: the newest version of ``table``, into the new table ``to`` below the scores of the use case.

    ``columns`` are what the model takes, if they are not called as its inputs; ``keep`` are columns to carry along.
    Rows are read for the purpose of the use case, unless another one is given.
    """

    table: Name
    to: Name
    purpose: Name | None = None
    columns: Names = ()
    keep: Names = ()


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file. An endpoint has the name of its use case."""
    one, base = from_path("Endpoint", "name"), "/api/v1/use-cases/{name}/scorings"

    def start(request: Request) -> Response:
        wanted = msgspec.structs.asdict(request.json(ScoringRequest))
        return Response.json(at_endpoint(site, request, "start_scoring", **wanted), 202)

    def carry_out(operation: str) -> Callable[[Request], Response]:
        def handler(request: Request) -> Response:
            return Response.json(at_endpoint(site, request, operation, scoring_id=request.params["scoring"]))

        return handler

    yield Route(
        "POST", base, "predict", one, CHANGE, SMALL, start,
        name="start_scoring", summary="Score a table with the release that is served",
        request_type=ScoringRequest, response_type=Scoring,
    )  # fmt: skip
    yield Route(
        "GET", f"{base}/{{scoring}}", "predict", one, LOOKS, SMALL, carry_out("show_scoring"),
        name="scoring", summary="How far a scoring is, and what it made", response_type=Scoring,
    )  # fmt: skip
    yield Route(
        "POST", f"{base}/{{scoring}}/cancel", "predict", one, CHANGE, SMALL, carry_out("cancel_scoring"),
        name="cancel_scoring", summary="End a scoring without a table", response_type=Scoring,
    )  # fmt: skip
