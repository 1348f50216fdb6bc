"""The document says what is mounted, and nothing else."""

import msgspec

from bedplate.http import CHANGE, HeaderParam, Limits, QueryParam, Request, Response, Route, RouteTable, from_path
from bedplate.http.openapi import document


class Thing(msgspec.Struct):
    name: str


def handler(request: Request) -> Response:
    return Response()


def test_the_document_lists_every_route_with_action_and_audit_class() -> None:
    table = RouteTable(
        [
            Route(
                "PUT",
                "/things/{thing:id}",
                "change_thing",
                from_path("Thing", "thing"),
                CHANGE,
                Limits(),
                handler,
                name="change_thing",
                request_type=Thing,
                response_type=Thing,
            )
        ]
    )

    api = document(table, title="t", version="1")

    operation = api["paths"]["/things/{thing}"]["put"]
    assert (operation["x-action"], operation["x-audit"], operation["security"]) == (
        "change_thing",
        "change",
        [{"key": []}],
    )
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Thing"}
    assert api["components"]["schemas"]["Thing"]["required"] == ["name"]


class Question(msgspec.Struct):
    thing: str
    most: int = 10


def test_a_query_and_a_header_are_parameters_and_twins_are_left_out() -> None:
    """What a GET takes stands among its parameters; a second address of the same route is not listed again."""

    def route(path: str, *, twin: bool) -> Route:
        return Route(
            "GET", path, "view_thing", from_path("Place", "place"), CHANGE, Limits(), handler, name=path,
            request_type=Question, headers=(HeaderParam("place", "x-place", "here"),), twin=twin,
        )  # fmt: skip

    api = document(RouteTable([route("/first", twin=False), route("/second", twin=True)]), title="t", version="1")

    assert list(api["paths"]) == ["/first"]
    operation = api["paths"]["/first"]["get"]
    assert [(p["in"], p["name"], p.get("required", False)) for p in operation["parameters"]] == [
        ("header", "x-place", False),
        ("query", "thing", True),
        ("query", "most", False),
    ]
    assert "requestBody" not in operation


class Part(msgspec.Struct):
    size: float


class Order(msgspec.Struct):
    count: int
    parts: list[Part] = []
    note: str | None = None


def test_a_lenient_route_says_that_null_and_numbers_as_text_are_taken() -> None:
    """In the objects within the message as well; what is required stays required."""
    route = Route(
        "POST", "/orders", "order", from_path("Place", "place"), CHANGE, Limits(), handler, request_type=Order,
        headers=(HeaderParam("place", "x-place", "here"),), lenient=True,
    )  # fmt: skip

    schemas = document(RouteTable([route]), title="t", version="1")["components"]["schemas"]

    number, whole, nothing = {"type": "string"}, {"type": "string", "pattern": "^-?[0-9]+$"}, {"type": "null"}
    assert schemas["Part"]["properties"]["size"] == {"anyOf": [{"type": "number"}, number, nothing]}
    assert schemas["Order"]["properties"]["count"] == {"anyOf": [{"type": "integer"}, whole, nothing]}
    assert schemas["Order"]["properties"]["note"]["anyOf"] == [{"type": "string"}, nothing]
    assert schemas["Order"]["properties"]["parts"]["anyOf"][1:] == [nothing]
    assert schemas["Order"]["required"] == ["count"]


def test_a_parameter_of_the_query_is_described_with_its_default() -> None:
    route = Route(
        "GET", "/page", "look", from_path("Place", "place"), CHANGE, Limits(), handler,
        queries=(QueryParam(name="place", default="here"),),
    )  # fmt: skip

    operation = document(RouteTable([route]), title="t", version="1")["paths"]["/page"]["get"]

    assert operation["parameters"] == [
        {"name": "place", "in": "query", "schema": {"type": "string", "maxLength": 200, "default": "here"}}
    ]
