"""The document says what is mounted, and nothing else."""

import msgspec

from bedplate.http import CHANGE, HeaderParam, Limits, Request, Response, Route, RouteTable, from_path
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
