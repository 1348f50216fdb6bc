"""Quotas at endpoints: what users, services and groups may ask."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec.structs import asdict

from bedplate.api.use_cases import LOOKS, SMALL, at_endpoint
from bedplate.app.serving_models import EndpointQuota
from bedplate.app.site import Site
from bedplate.http import CHANGE, Request, Response, Route, from_path
from bedplate.records import Quota


class Holder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose quota: a user or service, or each member of a group."""

    holder: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    group: bool = False


class QuotaRequest(Holder, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much somebody may ask."""

    quota: Quota


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file. An endpoint has the name of its use case."""
    one, base = from_path("UseCase", "name"), "/api/v1/use-cases/{name}/quotas"

    def listed(request: Request) -> Response:
        return Response.json({"quotas": at_endpoint(site, request, "list_quotas")})

    def put(request: Request) -> Response:
        return Response.json(at_endpoint(site, request, "set_quota", **asdict(request.json(QuotaRequest))))

    def remove(request: Request) -> Response:
        return Response.json(at_endpoint(site, request, "remove_quota", **asdict(request.json(Holder))))

    yield Route(
        "GET", base, "read", one, LOOKS, SMALL, listed,
        name="quotas", summary="Quotas in force, and what was used of them",
    )  # fmt: skip
    yield Route(
        "PUT", base, "operate", one, CHANGE, SMALL, put,
        name="set_quota", summary="Let somebody ask so much",
        request_type=QuotaRequest, response_type=EndpointQuota,
    )  # fmt: skip
    yield Route(
        "POST", f"{base}/remove", "operate", one, CHANGE, SMALL, remove,
        name="remove_quota", summary="Have the quota of the file hold again for somebody",
        request_type=Holder, response_type=EndpointQuota,
    )  # fmt: skip
