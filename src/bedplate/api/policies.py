"""Policies that users wrote, and what those in force say."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from bedplate.api.use_cases import LOOKS, SMALL
from bedplate.api.workspaces import change
from bedplate.app.people_models import Policy, PolicyChange, PolicyTest
from bedplate.app.site import Site
from bedplate.http import CHANGE, Limits, Request, Response, Route, fixed

TEXT = Limits(body=1 << 20, depth=4, receipt=10.0, deadline=60.0)
Short = Annotated[str, msgspec.Meta(max_length=200)]


class PolicyText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cedar policies, each with an ``@id`` of its own."""

    text: str


class PolicyRequest(PolicyText, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Policies to be added: all of them or none. ``replace`` lets them take the place of others of the same ids."""

    replace: bool = False


class PolicyQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who wants to do what to what. ``resource`` is ``KIND/ID``."""

    principal: Short
    action: Short
    resource: Short
    purpose: Short = ""
    environment: Short = ""
    gates_passed: bool = False


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    home = fixed("Home", "home")

    def listed(request: Request) -> Response:
        return change(site, request, "list_policies")

    def add(request: Request) -> Response:
        wanted = request.json(PolicyRequest)
        return change(site, request, "add_policies", text=wanted.text, replace=wanted.replace)

    def compare(request: Request) -> Response:
        return change(site, request, "compare_policies", text=request.json(PolicyText).text)

    def remove(request: Request) -> Response:
        return change(site, request, "remove_policy", policy_id=request.params["policy"])

    def ask(request: Request) -> Response:
        wanted = msgspec.structs.asdict(request.json(PolicyQuestion))
        return change(site, request, "test_policies", name=wanted.pop("principal"), **wanted)

    yield Route(
        "GET", "/api/v1/policies", "administer", home, LOOKS, SMALL, listed,
        name="list_policies", summary="The policies in force", response_type=list[Policy],
    )  # fmt: skip
    yield Route(
        "POST", "/api/v1/policies", "administer", home, CHANGE, TEXT, add,
        name="add_policies", summary="Take policies into force",
        request_type=PolicyRequest, response_type=PolicyChange,
    )  # fmt: skip
    yield Route(
        "POST", "/api/v1/policies/compare", "administer", home, LOOKS, TEXT, compare,
        name="compare_policies", summary="What adding policies would change",
        request_type=PolicyText, response_type=PolicyChange,
    )  # fmt: skip
    yield Route(
        "POST", "/api/v1/policies/test", "administer", home, LOOKS, SMALL, ask,
        name="test_policies", summary="What the policies in force say",
        request_type=PolicyQuestion, response_type=PolicyTest,
    )  # fmt: skip
    yield Route(
        "DELETE", "/api/v1/policies/{policy}", "administer", home, CHANGE, SMALL, remove,
        name="remove_policy", summary="Take one policy out of force", response_type=PolicyChange,
    )  # fmt: skip
