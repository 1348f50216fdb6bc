"""Every route, every role: what the table says is what the server does; no route leads into another's workspace.

The routes come from the table that the server is made of, so one that is added later is tested as it is.
"""

from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from bedplate.http import ResourceRef, Route
from bedplate.http.routes import METHODS
from bedplate.policy.policies import applicable
from tests import sample, team
from tests.api.routes import PARAMETER, ROUTES, shown
from tests.rights import MAY
from tests.team import ABSENT, ROLES, SEALED, Team

pytestmark = pytest.mark.slow

GUARDED = [route for route in ROUTES if not route.public]
LEFT_TO_THE_OPERATION = ("approve", "waive", "release")
VALUES = {"int": "0", "digest": sample.digest("nothing"), "id": "prn_" + "0" * 26, "path": "nowhere/nothing"}


def names(route: Route) -> dict[str, str]:
    """The parameters of a route's path, each with a value that leads nowhere."""
    return {m[1]: VALUES.get(m[2] or "str", f"no-{m[1].replace('_', '-')}") for m in PARAMETER.finditer(route.path)}


def reference(route: Route, **given: str) -> ResourceRef:
    """What a request of this route is about."""
    headers = {parameter.name: parameter.default for parameter in (*route.headers, *route.queries)}
    return route.resource({**names(route), **headers, **given})


IN_WORKSPACES = [route for route in GUARDED if reference(route).type == "Workspace"]


def address(route: Route, workspace: str | None = None) -> tuple[str, dict[str, str]]:
    """Path and headers of a request of this route, in a workspace where it takes one."""
    values = names(route)
    headers, query = {}, ""
    if workspace is not None:
        in_path = [name for name in values if reference(route, **{name: "told-by-this"}).id == "told-by-this"]
        values |= dict.fromkeys(in_path, workspace)
        headers = {} if in_path else {parameter.header: workspace for parameter in route.headers}
        query = "".join(f"?{parameter.name}={quote(workspace)}" for parameter in route.queries)
        assert in_path or headers or query, "the workspace of a route comes from its path, a header or the query"
    return PARAMETER.sub(lambda m: values[m[1]], route.path) + query, headers


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A home with a member of each role."""
    with team.running(tmp_path_factory.mktemp("matrix") / "home", evidence=True) as running:
        running.member("insider", "insiders")
        running.member("owner", "owners")
        yield running


@pytest.fixture(scope="module")
def clients(served: Team) -> Iterator[dict[str, httpx.Client]]:
    """A client for each role and for the members of the closed workspace."""
    made = {role: served.client(role) for role in (*ROLES, "insider", "owner")}
    yield made
    for client in made.values():
        client.close()


def status(
    client: httpx.Client, route: Route, workspace: str | None = None, body: bytes = b"", method: str | None = None
) -> int:
    """What the server says to a request of this route. Only the head is read: some answers have no end.

    There are thousands of these requests, and one costs httpx more than the server.
    """
    path, headers = address(route, workspace)
    head = {name: client.headers[name] for name in ("authorization", "accept")}
    connection = HTTPConnection(client.base_url.host, client.base_url.port, timeout=60)
    with closing(connection):
        connection.request(method or route.method, path, body, {**head, "content-type": "application/json", **headers})
        return connection.getresponse().status


def test_every_route_is_about_something_that_the_table_knows() -> None:
    asked = {(route.action, reference(route).type) for route in GUARDED}

    for action, kind in asked:
        assert (action, kind) in applicable() or action in LEFT_TO_THE_OPERATION, f"{action} {kind}"


@pytest.mark.parametrize("route", GUARDED, ids=shown)
def test_who_may_reach_a_route(route: Route, clients: dict[str, httpx.Client]) -> None:
    about = reference(route)
    action = "read" if route.action in LEFT_TO_THE_OPERATION else route.action
    workspace = "default" if about.type == "Workspace" else None

    found = {role: status(clients[role], route, workspace) for role in ROLES}

    assert found.pop("disabled") == 401
    reached = {role: code not in (401, 403) for role, code in found.items()}
    assert reached == {role: may for role, may in MAY[action, about.type].items() if role != "disabled"}, found


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
def test_no_other_method_does_anything(path: str, clients: dict[str, httpx.Client]) -> None:
    mounted = {route.method: route for route in ROUTES if route.path == path}
    any_of = next(iter(mounted.values()))
    for method in METHODS:
        if method not in mounted:
            # Another route may have this address as one of its own: then it is matched, and says what it wants.
            assert status(clients["nobody"], any_of, method=method) in (401, 403, 404, 405), method


@pytest.mark.parametrize("route", IN_WORKSPACES, ids=shown)
def test_no_route_leads_into_a_workspace_that_is_closed_or_not_there(
    route: Route, served: Team, clients: dict[str, httpx.Client]
) -> None:
    """And one that is closed cannot be told from one that is not there. A twin has the handler of its first address."""
    before = served.size()
    odd = ("Not A Name", "default/../sealed", "%73ealed", "sealed\x7f")

    assert said(clients["engineer"], route, SEALED) == said(clients["engineer"], route, ABSENT)
    for role in () if route.twin else ("viewer", "auditor", "caller", "nobody", "disabled"):
        for workspace in (SEALED, ABSENT):
            code = 401 if role == "disabled" else 403
            assert status(clients[role], route, workspace, NO_JSON) == code, (role, workspace)
    for workspace in odd if (route.headers or route.queries) and not route.twin else ():
        code = 403 if workspace.isprintable() else 400
        assert status(clients["engineer"], route, workspace, NO_JSON) == code, workspace

    assert {entry[2] for entry in served.entries(before)} == {"deny"}, "and nothing was changed"


NO_JSON = b"{"
"""Were a body read before the decision, this would be answered otherwise."""


def said(client: httpx.Client, route: Route, workspace: str) -> str:
    """The answer of a route that denies, without the name of the workspace."""
    path, headers = address(route, workspace)
    answer = client.request(route.method, path, headers=headers, content=NO_JSON)
    assert answer.status_code == 403
    return answer.text.replace(workspace, "NAME")


@pytest.fixture(scope="module")
def sealed(served: Team) -> list[Any]:
    """What the closed workspace holds before anybody tries."""
    return served.sealed_state()


@pytest.mark.parametrize("route", [r for r in IN_WORKSPACES if r.headers and not r.twin], ids=shown)
def test_ids_of_another_workspace_lead_nowhere(
    route: Route, served: Team, sealed: list[Any], clients: dict[str, httpx.Client]
) -> None:
    """Every name that a call may give a thing by is given that of one in the closed workspace."""
    secret = served.secret
    one = dict.fromkeys(("experiment_id", "source_experiment_id"), secret.experiment)
    one |= dict.fromkeys(("run_id", "run_uuid", "source_run_id"), secret.run)
    one |= dict.fromkeys(("name", "experiment_name", "key", "metric_key", "new_name", "note", "alias"), "secret")
    one |= {
        "model": secret.model,
        "model_id": secret.model,
        "version": "1",
        "stage": "Production",
        "archive_existing_versions": "true",
    }
    one |= {"path": "secret.txt", "value": "changed", "timestamp": "1", "new_value": "changed"}
    several = {"experiment_ids": [secret.experiment], "run_ids": [secret.run], "run_id": [secret.run]}
    body = {**several, **one, "metrics": [], "params": [{"key": "k", "value": "changed"}], "tags": []}
    for path in (secret.path, secret.path.removeprefix(f"workspaces/{SEALED}/")):
        in_path = {**VALUES, "path": path, **one}
        url = PARAMETER.sub(lambda m, known=in_path: known.get(m[1], known.get(m[2], "x")), route.path)
        with clients["engineer"].stream(route.method, url, params={**several, **one}, json=body) as answer:
            text = answer.read().decode("utf-8", "replace")
        assert team.MARK not in text, url

    assert team.MARK in str(sealed)
    assert served.sealed_state() == sealed


@pytest.mark.parametrize("route", [r for r in IN_WORKSPACES if not r.twin], ids=shown)
def test_members_of_a_closed_workspace_reach_it_and_no_other(route: Route, clients: dict[str, httpx.Client]) -> None:
    rights = {"insider": ("read", "list"), "owner": ("read", "list", "write"), "administrator": (route.action,)}

    reached = {who: status(clients[who], route, SEALED) not in (401, 403) for who in rights}

    assert reached == {who: route.action in actions for who, actions in rights.items()}
    for who in ("insider", "owner"):
        for workspace in ("default", ABSENT):
            assert status(clients[who], route, workspace) == 403
    assert status(clients["administrator"], route, ABSENT) == 404
