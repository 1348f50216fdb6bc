"""The document says what is mounted, and nothing else."""

import msgspec

from bedplate.http import CHANGE, Limits, Request, Response, Route, RouteTable, from_path
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
