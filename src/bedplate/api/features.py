"""Feature views: what is declared, what is online, and the features of entities as whoever asks may see them."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from bedplate.api.use_cases import LOOKS, SMALL
from bedplate.app import session
from bedplate.app.feature_reports import FeatureValues, ViewLine, ViewReport
from bedplate.app.site import Site
from bedplate.http import READ, Request, Response, Route, fixed, from_path

Key = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class ValuesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose features, and what for: the purpose of the use case unless another one is named."""

    keys: Annotated[tuple[Key, ...], msgspec.Meta(min_length=1, max_length=1000)]
    purpose: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file. The replicas of an endpoint answer for the features of its use case by themselves."""
    home, one, base = (
        fixed("Home", "home"),
        from_path("UseCase", "name"),
        "/api/v1/use-cases/{name}/features/{feature_view}",
    )

    def listed(request: Request) -> Response:
        return Response.json(site.change("list_features", session.presented(request)))

    def show(request: Request) -> Response:
        name, view = request.params["name"], request.params["feature_view"]
        return Response.json(site.change("show_features", session.presented(request), use_case=name, view=view))

    def values(request: Request) -> Response:
        wanted = request.json(ValuesRequest)
        return Response.json(
            site.change(
                "get_features",
                session.presented(request),
                use_case=request.params["name"],
                view=request.params["feature_view"],
                keys=wanted.keys,
                purpose=wanted.purpose,
            )
        )

    yield Route(
        "GET", "/api/v1/features", "list", home, LOOKS, SMALL, listed,
        name="list_features", summary="The feature views you may know of", response_type=list[ViewLine],
    )  # fmt: skip
    yield Route(
        "GET", base, "read", one, LOOKS, SMALL, show,
        name="get_feature_view", summary="One feature view", response_type=ViewReport,
    )  # fmt: skip
    yield Route(
        "POST", f"{base}/values", "read", one, READ, SMALL, values,
        name="get_features", summary="The online features of entities, as you may see them",
        request_type=ValuesRequest, response_type=FeatureValues,
    )  # fmt: skip
