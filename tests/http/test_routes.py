"""What must be declared before a route exists, and which paths find it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import NotFoundError
from bedplate.http import CHANGE, READ, Audit, Limits, ProtocolError, Request, Response, Route, RouteTable, fixed
from bedplate.http.routes import RefusedTailError, ResourceRef, from_path, unaudited


def handler(request: Request) -> Response:
    return Response.text(str(dict(request.params)))


def route(method: str = "GET", path: str = "/things/{thing}", **changes: Any) -> Route:
    base = Route(method, path, "view_thing", from_path("Thing", "thing"), READ, Limits(), handler)
    return msgspec.structs.replace(base, **changes)


UNDECLARED = [
    ("action", ""),
    ("action", None),
    ("action", "drop table; --"),
    ("resource", None),
    ("resource", "Thing"),
    ("audit", None),
    ("audit", "read"),
    ("audit", Audit("none")),
    ("audit", unaudited("   ")),
    ("audit", Audit("sometimes")),  # type: ignore[arg-type]
    ("limits", None),
    ("limits", Limits(body=-1)),
    ("handler", None),
    ("method", "TRACE"),
    ("path", "things"),
    ("path", "/things/"),
    ("path", "/things//x"),
    ("path", "/things/../x"),
    ("path", "/things/{Thing}"),
    ("path", "/things/{thing:float}"),
    ("path", "/things/pre{thing}"),
    ("path", "/things/{thing:path}/more"),
    ("limits", Limits(stream=True)),
]


@pytest.mark.parametrize(("field", "value"), UNDECLARED)
def test_a_route_that_leaves_something_undeclared_cannot_be_mounted(field: str, value: object) -> None:
    table = RouteTable()

    with pytest.raises(ValueError, match=r"."):
        table.mount(route(**{field: value}))

    assert table.routes == ()
    with pytest.raises(NotFoundError):
        table.match("GET", "/things/1")


@pytest.mark.parametrize("missing", ["action", "resource", "audit", "limits", "handler"])
def test_every_part_of_the_declaration_is_a_required_argument(missing: str) -> None:
    parts = {"action": "a", "resource": fixed("T", "t"), "audit": READ, "limits": Limits(), "handler": handler}
    del parts[missing]

    with pytest.raises(TypeError, match=missing):
        Route(method="GET", path="/x", **parts)  # type: ignore[arg-type]


def test_the_same_route_twice_is_refused() -> None:
    table = RouteTable([route()])

    with pytest.raises(ValueError, match="twice"):
        table.mount(route())


def test_a_parameter_has_one_name() -> None:
    table = RouteTable([route()])

    with pytest.raises(ValueError, match="is called"):
        table.mount(route("POST", "/things/{other}", resource=from_path("Thing", "other"), audit=CHANGE))


def test_literal_segments_win_over_parameters_and_typed_ones_over_text() -> None:
    table = RouteTable(
        [
            route(path="/m/{name}", name="text"),
            route(path="/m/{number:int}", name="int"),
            route(path="/m/ready", name="literal"),
        ]
    )

    found = {path: table.match("GET", path)[0].name for path in ("/m/ready", "/m/12", "/m/012", "/m/x")}

    assert found == {"/m/ready": "literal", "/m/12": "int", "/m/012": "text", "/m/x": "text"}
    assert table.match("GET", "/m/12")[1] == {"number": 12}


def test_head_is_served_by_get_and_other_methods_are_told_what_is_possible() -> None:
    table = RouteTable([route(), route("PUT", audit=CHANGE)])

    assert table.match("HEAD", "/things/1")[0].method == "GET"
    with pytest.raises(ProtocolError) as caught:
        table.match("DELETE", "/things/1")
    assert (caught.value.status, caught.value.headers) == (405, (("allow", "GET, PUT"),))


HOSTILE = [
    "",
    "things/1",
    "//things/1",
    "/things//1",
    "/things/1/",
    "/things/",
    "/things",
    "/Things/1",
    "/things/..",
    "/things/.",
    "/things/../things/1",
    "/things/%2e%2e",
    "/things/%252e",
    "/things/a\\b",
    "/things/a\x00b",
    "/things/a\nb",
    "/things/1;/x",
    "/things/" + "a" * 201,
    "/things/1?x=1/..",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_paths_that_are_not_exactly_a_route_are_denied(path: str) -> None:
    table = RouteTable([route()])
    with pytest.raises(NotFoundError):
        table.match("GET", path)


def test_an_overlong_path_is_414() -> None:
    with pytest.raises(ProtocolError) as caught:
        RouteTable([route()]).match("GET", "/things/" + "a/" * 2000)
    assert caught.value.status == 414


@given(st.text(max_size=60))
def test_whatever_matches_is_one_clean_segment(text: str) -> None:
    table = RouteTable([route()])
    try:
        _, params = table.match("GET", f"/things/{text}")
    except NotFoundError:
        return
    assert params == {"thing": text}
    assert not set(text) & set("/\\%\x00\n\r")
    assert text not in ("", ".", "..")


def test_resources_come_from_the_path() -> None:
    assert from_path("Model", "a", "b")({"a": "x", "b": 3}) == ResourceRef("Model", "x/3")


TAILS = ["/", "//", "a//b", "/a", "a//", "../a", "a/../b", "a/..", "./a", "a/.", "a\\b", "a/%2e%2e", "a/b\x00", "a\n/b"]


@pytest.mark.parametrize("tail", TAILS)
def test_a_tail_refuses_what_a_segment_refuses(tail: str) -> None:
    table = RouteTable([route(path="/files/{path:path}", resource=fixed("T", "t"), name="tail")])

    with pytest.raises(RefusedTailError) as caught:
        table.match("GET", f"/files/{tail}")

    assert (caught.value.status, caught.value.route.name) == (400, "tail")


@pytest.mark.parametrize("path", ["/files/", "/files", "/files/..", "/other/a"])
def test_a_tail_is_not_empty_and_begins_where_it_is_mounted(path: str) -> None:
    table = RouteTable([route(path="/files/more/{path:path}", resource=fixed("T", "t"))])

    with pytest.raises(NotFoundError):
        table.match("GET", path)


def test_a_tail_takes_every_segment_that_is_left_and_is_tried_last() -> None:
    files = fixed("T", "t")
    table = RouteTable(
        [
            route(path="/files/{path:path}", resource=files, name="tail"),
            route(path="/files/{number:int}", resource=files, name="int"),
            route(path="/files/list", resource=files, name="literal"),
        ]
    )

    found = {path: table.match("GET", path) for path in ("/files/list", "/files/7", "/files/a", "/files/a/7/list/")}

    assert {path: hit.name for path, (hit, _) in found.items()} == {
        "/files/list": "literal",
        "/files/7": "int",
        "/files/a": "tail",
        "/files/a/7/list/": "tail",
    }
    assert found["/files/a/7/list/"][1] == {"path": "a/7/list"}


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=6))
def test_a_tail_is_what_was_asked_for_or_nothing(segments: list[str]) -> None:
    table = RouteTable([route(path="/files/{path:path}", resource=fixed("T", "t"))])
    path = "/".join(segments)
    try:
        params = table.match("GET", f"/files/{path}")[1]
    except (NotFoundError, ProtocolError):
        return

    assert params == {"path": path.removesuffix("/")}
    assert not {"", ".", ".."} & set(params["path"].split("/"))


def test_two_tails_of_one_place_have_one_name() -> None:
    table = RouteTable([route(path="/files/{path:path}", resource=fixed("T", "t"))])

    with pytest.raises(ValueError, match="is called"):
        table.mount(route("PUT", path="/files/{name:path}", resource=fixed("T", "t"), audit=CHANGE))
