"""Quotas at endpoints: what users, services and groups may ask."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from bedplate.api.use_cases import LOOKS, SMALL
from bedplate.app import session
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
        token, name = session.presented(request), request.params["name"]
        return Response.json({"quotas": site.change("list_quotas", token, endpoint=name)})

    def put(request: Request) -> Response:
        wanted = request.json(QuotaRequest)
        token, name = session.presented(request), request.params["name"]
        return Response.json(
            site.change("set_quota", token, endpoint=name, holder=wanted.holder, group=wanted.group, quota=wanted.quota)
        )

    def remove(request: Request) -> Response:
        wanted = request.json(Holder)
        token, name = session.presented(request), request.params["name"]
        return Response.json(
            site.change("remove_quota", token, endpoint=name, holder=wanted.holder, group=wanted.group)
        )

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
