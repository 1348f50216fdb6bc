"""The order of checks, shown by what was touched when a request is refused."""

import asyncio
import json
from typing import Any

import pytest

from bedplate.errors import AuthenticationError, ConflictError, DeniedError
from bedplate.http import (
    CHANGE,
    Limits,
    QueryParam,
    Request,
    ResourceRef,
    Response,
    Route,
    RouteTable,
    dispatch,
    from_path,
)


class Canary:
    """Records which checks ran, in order."""

    def __init__(self, *, user: object = "ana", allow: bool = True) -> None:
        self.seen: list[object] = []
        self.user, self.allow = user, allow

    def authenticate(self, request: Request) -> object:
        self.seen.append("authenticate")
        if self.user == "bad":
            raise AuthenticationError("bad key")
        return self.user

    def authorise(self, principal: object, action: str, resource: ResourceRef, request: Request) -> str:
        self.seen.append((principal, action, resource))
        if not self.allow:
            raise DeniedError("policy says no")
        return "decision"

    async def read(self, most: int, seconds: float) -> bytes:
        self.seen.append("read")
        return b'{"a": 1}'

    async def handler(self, request: Request) -> Response:
        self.seen.append("handle")
        return Response.json({"got": request.json(dict), "decision": request.decision})

    def run(self, path: str = "/things/7", **changes: Any) -> Response:
        parts: dict[str, Any] = {"handler": self.handler, "limits": Limits(), "public": False} | changes
        table = RouteTable(
            [
                Route(
                    "POST",
                    "/things/{thing:int}",
                    "change_thing",
                    from_path("Thing", "thing"),
                    CHANGE,
                    parts["limits"],
                    parts["handler"],
                    public=parts["public"],
                )
            ]
        )
        return asyncio.run(dispatch(table, Request("POST", path, read=self.read), self.authenticate, self.authorise))


ALLOWED = ("ana", "change_thing", ResourceRef("Thing", "7"))


def test_authenticate_then_authorise_then_read_then_handle() -> None:
    canary = Canary()

    response = canary.run()

    assert (response.status, json.loads(response.body)) == (200, {"got": {"a": 1}, "decision": "decision"})
    assert canary.seen == ["authenticate", ALLOWED, "read", "handle"]


def test_a_dummy_route_nobody_declared_is_denied_before_anything_is_touched() -> None:
    canary = Canary()

    assert canary.run("/dummy").status == 404
    assert canary.seen == []


@pytest.mark.parametrize("user", ["bad", None])
def test_without_authentication_nothing_is_decided_or_read(user: object) -> None:
    canary = Canary(user=user)

    response = canary.run()

    assert (response.status, dict(response.headers)["www-authenticate"]) == (401, "Bearer")
    assert canary.seen == ["authenticate"]


def test_without_permission_nothing_is_read() -> None:
    canary = Canary(allow=False)

    assert canary.run().status == 403
    assert canary.seen == ["authenticate", ALLOWED]


def test_a_public_route_asks_nobody() -> None:
    canary = Canary(user=None)

    assert canary.run(public=True).status == 200
    assert canary.seen == ["read", "handle"]


def test_known_errors_keep_their_status_and_unknown_ones_their_secret(caplog: pytest.LogCaptureFixture) -> None:
    def conflict(request: Request) -> Response:
        raise ConflictError("taken")

    def secret(request: Request) -> Response:
        raise RuntimeError("password=hunter2")

    assert Canary().run(handler=conflict).status == 409
    response = Canary().run(handler=secret)
    assert response.status == 500
    assert b"hunter2" not in response.body
    assert json.loads(response.body)["where"] in caplog.text


def test_a_handler_that_is_late_is_503() -> None:
    async def late(request: Request) -> Response:
        await asyncio.sleep(30)
        return Response()

    assert Canary().run(handler=late, limits=Limits(deadline=0.05)).status == 503


async def _pieces(request: Request) -> Response:
    return Response.json([piece.decode() async for piece in request.pieces])


def test_a_streamed_body_is_left_to_the_handler() -> None:
    canary = Canary()

    response = canary.run(handler=_pieces, limits=Limits(stream=True))

    assert (response.status, json.loads(response.body)) == (200, [])
    assert canary.seen == ["authenticate", ALLOWED]


def test_a_body_that_is_here_already_is_one_piece_within_the_limit() -> None:
    def run(body: bytes, most: int) -> Response:
        limits = Limits(stream=True, body=most)
        route = Route("PUT", "/x", "put", from_path("Thing"), CHANGE, limits, _pieces)
        canary = Canary()
        request = Request("PUT", "/x", body=body)
        return asyncio.run(dispatch(RouteTable([route]), request, canary.authenticate, canary.authorise))

    assert json.loads(run(b"all", 3).body) == ["all"]
    assert json.loads(run(b"", 3).body) == []
    assert run(b"more", 3).status == 413


@pytest.mark.parametrize(
    ("query", "about"),
    [("", "default"), ("workspace=", "default"), ("workspace=team-a&x=1", "team-a"), ("x=%7E", "default")],
)
def test_what_a_page_is_about_can_stand_in_its_query(query: str, about: str) -> None:
    canary = Canary()

    response = _page(canary, query)

    assert response.status == 200
    assert canary.seen[1] == ("ana", "look", ResourceRef("Workspace", about))


@pytest.mark.parametrize(
    "query", ["workspace=a&workspace=b", "workspace=" + "a" * 201, "workspace=a%00b", "workspace=%FF"]
)
def test_a_query_that_cannot_name_it_is_refused_before_anybody_is_asked(query: str) -> None:
    canary = Canary()

    assert _page(canary, query).status == 400
    assert canary.seen == []


def _page(canary: Canary, query: str) -> Response:
    async def look(request: Request) -> Response:
        return Response.json(request.params)

    named = QueryParam(name="workspace", default="default")
    route = Route("GET", "/page", "look", from_path("Workspace", "workspace"), CHANGE, Limits(), look, queries=(named,))
    request = Request("GET", "/page", query_string=query)
    return asyncio.run(dispatch(RouteTable([route]), request, canary.authenticate, canary.authorise))
