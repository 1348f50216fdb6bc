from pathlib import Path

import httpx
import pytest

from bedplate.errors import UnavailableError
from tests import plane, sample


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with plane.running(tmp_path_factory.mktemp("api") / "home") as running:
        yield running


@pytest.fixture
def client(served):
    with httpx.Client(base_url=served.address, headers={"authorization": f"Bearer {served.key}"}) as made:
        yield made


@pytest.fixture
def anonymous(served):
    with httpx.Client(base_url=served.address) as made:
        yield made


def test_health_is_open_to_everybody(anonymous):
    assert anonymous.get("/api/v1/health").json() == {"ready": True}


def test_use_cases_come_with_their_state(client):
    rows = client.get("/api/v1/use-cases").json()

    assert [(row["name"], row["state"], row["waiting_for"]) for row in rows] == [(sample.NAME, "waiting", "production")]


def test_one_use_case_carries_its_evidence(client):
    page = client.get(f"/api/v1/use-cases/{sample.NAME}").json()

    assert page["evidence"]["training"]["body"]["run_id"] == sample.training().run_id
    assert page["endpoint"]["state"] == "ready"
    assert [r["bundle"]["body"]["version"] for r in page["releases"]] == [3]
    assert page["ledger"][0]["action"] == "flow.check"


def test_evidence_is_found_by_digest(client):
    digest = client.get(f"/api/v1/use-cases/{sample.NAME}").json()["evidence"]["gates"]["digest"]

    fact = client.get(f"/api/v1/evidence/{digest}").json()

    assert (fact["kind"], fact["digest"]) == ("gates", digest)


def test_unknown_things_are_not_found(client):
    for path in ("/api/v1/use-cases/nobody", f"/api/v1/evidence/{sample.digest('nothing')}", "/api/v1/nothing"):
        answer = client.get(path)

        assert (answer.status_code, answer.json()["error"]) == (404, "not_found"), path


def test_a_decision_goes_to_the_owner_with_who_and_why(client, served):
    answer = client.post(
        f"/api/v1/use-cases/{sample.NAME}/approve", json={"environment": "production", "reason": "looked at the gates"}
    )

    assert answer.status_code == 200
    assert served.changes[-1] == (
        "approve",
        {"use_case": sample.NAME, "environment": "production", "reason": "looked at the gates"},
    )


@pytest.mark.parametrize("body", [{}, {"environment": "production"}, {"environment": "p", "reason": ""}, {"x": 1}, []])
def test_a_decision_without_a_reason_changes_nothing(client, served, body):
    before = len(served.changes)

    answer = client.post(f"/api/v1/use-cases/{sample.NAME}/approve", json=body)

    assert (answer.status_code, len(served.changes)) == (400, before)


def test_waive_names_the_gate(client, served):
    client.post(f"/api/v1/use-cases/{sample.NAME}/waive", json={"gate": "age", "reason": "too few"})

    assert served.changes[-1] == ("waive", {"use_case": sample.NAME, "gate": "age", "reason": "too few"})


def test_the_ledger_is_served_with_checkpoint_tile_and_proof(client):
    page = client.get("/api/v1/audit").json()
    note = client.get("/checkpoint").text
    size = int(note.splitlines()[1])
    proof = client.get("/api/v1/audit/0/proof").json()

    assert page["entries"][-1]["index"] == 0
    assert client.get(f"/tile/0/000.p/{size}").content.__len__() == 32 * size
    assert proof["checkpoint"] == note
    assert all(len(text) == 64 for text in proof["hashes"])
    assert client.get("/api/v1/audit?limit=1").json()["entries"][0]["index"] == page["entries"][0]["index"]


@pytest.mark.parametrize(
    "name", ["0/../checkpoint", "0/%2e%2e", "0/000.p/..%2f..", "entries/999", "x/000", "0/000.p/0"]
)
def test_a_tile_name_never_becomes_another_path(client, name):
    assert client.get(f"/tile/{name}").status_code in (404, 400)


def test_a_changed_host_is_refused(client):
    assert client.get("/api/v1/health", headers={"host": "evil.example"}).status_code == 421


def test_a_change_from_another_origin_is_refused(client, served):
    before = len(served.changes)

    answer = client.post(
        f"/api/v1/use-cases/{sample.NAME}/approve",
        json={"environment": "production", "reason": "x"},
        headers={"origin": "https://evil.example"},
    )

    assert (answer.status_code, len(served.changes)) == (403, before)


def test_a_cookie_alone_changes_nothing_through_the_api(anonymous, served):
    session = served.identity.redeem_link(served.link().rsplit("/", 1)[1])
    anonymous.cookies.set("bedplate_session", session)
    before = len(served.changes)

    assert anonymous.get("/api/v1/use-cases").status_code == 200
    answer = anonymous.post(f"/api/v1/use-cases/{sample.NAME}/approve", json={"environment": "p", "reason": "x"})

    assert (answer.status_code, len(served.changes)) == (403, before)


@pytest.mark.parametrize("path", ["/api/2.0/mlflow/experiments/create", "/ajax-api/2.0/mlflow/experiments/create"])
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "text/plain"])
def test_a_cookie_alone_changes_nothing_through_the_tracking_api(anonymous, served, path, kind):
    session = served.identity.redeem_link(served.link().rsplit("/", 1)[1])
    anonymous.cookies.set("bedplate_session", session)

    answer = anonymous.post(path, content=b'{"name": "forged"}', headers={"content-type": kind})

    assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED")


def test_every_route_but_the_open_ones_needs_a_key(anonymous, served):
    from bedplate.api.server import application

    open_to_all = {"health", "mlflow_health", "mlflow_version", "page_login", "static", "static_vendor"}
    for route in application(served.site)._table.routes:
        if route.public:
            assert route.name in open_to_all
            continue
        path = "".join(_fitting(part) if part.startswith("{") else part for part in _parts(route.path))
        answer = anonymous.request(route.method, path)
        assert answer.status_code == 401, f"{route.method} {path}"


def _fitting(parameter):
    """A value that a parameter takes."""
    kinds = {"digest": sample.digest("x"), "int": "0", "id": f"id_{'0' * 26}"}
    return kinds.get(parameter.strip("{}").partition(":")[2], "x")


def _parts(path):
    import re

    return re.split(r"(\{[^}]*\})", path)


def test_a_viewer_sees_and_may_not_change(served):
    viewer = served.identity.add_principal("user", "vera", ("viewers",), actor="test")
    key = served.identity.create_key(viewer.id, actor="test")
    stranger = served.identity.add_principal("user", "sam", (), actor="test")
    strange_key = served.identity.create_key(stranger.id, actor="test")
    with httpx.Client(base_url=served.address) as client:
        seen = client.get("/api/v1/use-cases", headers={"authorization": f"Bearer {key}"})
        run = client.post(f"/api/v1/use-cases/{sample.NAME}/runs", json={}, headers={"authorization": f"Bearer {key}"})
        denied = client.get("/api/v1/use-cases", headers={"authorization": f"Bearer {strange_key}"})

    assert (seen.status_code, len(seen.json())) == (200, 1)
    assert run.status_code == 403
    assert denied.status_code == 403


def test_a_busy_port_says_so_and_leaves_the_server_that_has_it(served):
    import msgspec

    from bedplate.api.server import ControlPlane

    port = int(served.address.rsplit(":", 1)[1])
    site = served.site
    busy = type("Busy", (), {})()
    busy.__dict__.update(site.__dict__)
    busy.settings = msgspec.structs.replace(site.settings, port=port)
    with pytest.raises(UnavailableError, match="cannot be used") as caught:
        ControlPlane(busy)

    assert caught.value.where == "BEDPLATE_PORT"
    assert httpx.get(f"{served.address}/api/v1/health").status_code == 200


def test_stopping_frees_the_port(tmp_path: Path):
    with plane.running(tmp_path / "home") as running:
        address = running.address
        assert httpx.get(f"{address}/api/v1/health").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/api/v1/health")


def test_the_server_describes_its_routes(client):
    paths = client.get("/api/v1/openapi.json").json()["paths"]

    assert "/api/v1/use-cases" in paths
