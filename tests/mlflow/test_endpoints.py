"""No address of ``mlflow server`` is unknown here: a route answers it, or it says that it is not implemented."""

import json
import re
from pathlib import Path

import pytest

from bedplate.api.mlflow import left_out
from bedplate.errors import NotFoundError
from bedplate.http import ProtocolError, Request, Response
from bedplate.http.routes import RouteTable
from tests.api.routes import ROUTES
from tests.mlflow import environment

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

PAGES = ("/build/", "/static-files/")
"""Files of MLflow's own pages, which are not ours."""
LEAST = 300


def answered(table: RouteTable, method: str, path: str) -> bool:
    """Whether a route has this address and method, or it is listed as left out."""
    try:
        table.match(method, path)
    except (NotFoundError, ProtocolError) as error:
        said = left_out.present(Request(method, path), Response.error(error))
        return b'"NOT_IMPLEMENTED"' in said.body
    return True


def test_every_address_of_mlflow_is_answered_or_left_out(tmp_path: Path) -> None:
    environment.run("endpoints.py", "endpoints.json", folder=tmp_path, timeout=200)
    theirs = json.loads((tmp_path / "endpoints.json").read_text())
    table = RouteTable(ROUTES)

    unknown = [
        f"{method} {rule}"
        for rule, method in theirs
        if not rule.startswith(PAGES) and not answered(table, method, re.sub(r"<(\w+:)?\w+>", "x", rule))
    ]

    assert len(theirs) > LEAST
    assert unknown == []


def test_an_address_that_is_nobodys_is_unknown() -> None:
    table = RouteTable(ROUTES)

    assert not answered(table, "GET", "/api/2.0/mlflow/nobody/list")
    assert answered(table, "GET", "/api/2.0/mlflow/traces")
    assert answered(table, "GET", "/api/2.0/mlflow/runs/get")
