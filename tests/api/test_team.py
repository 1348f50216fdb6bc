"""What lets a team share a home, over HTTP: users, keys, workspaces, policies; and as MLflow's clients ask for it."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import team
from tests.team import SEALED, Team

FROZEN = '@id("frozen") @reason("it is frozen") forbid (principal, action == Action::"run", resource);'
MLFLOW = "/api/2.0/mlflow/users"
WORKSPACES = "/api/3.0/mlflow/workspaces"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Team]:
    """A home with a member of each role."""
    with team.running(tmp_path / "home") as running:
        yield running


@pytest.fixture
def admin(home: Team) -> Iterator[httpx.Client]:
    """An administrator."""
    with home.client("administrator") as client:
        yield client


@pytest.fixture
def engineer(home: Team) -> Iterator[httpx.Client]:
    """An engineer."""
    with home.client("engineer") as client:
        yield client


def code(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error of MLflow's API."""
    return answer.status_code, answer.json()["error_code"]


def test_a_user_a_key_and_their_end(home: Team, admin: httpx.Client) -> None:
    size = home.size()
    user = admin.post("/api/v1/users", json={"name": "ana", "groups": ["viewers"]})
    key = admin.post("/api/v1/users/ana/keys", json={"label": "laptop", "expires": "90 d"})
    assert (user.status_code, user.json()["groups"], key.status_code) == (200, ["viewers"], 200)
    assert key.headers["cache-control"] == "no-store"
    with httpx.Client(base_url=home.address, headers={"authorization": f"Bearer {key.json()['key']}"}) as ana:
        assert ana.get("/api/v1/me").json()["name"] == "ana"
        assert ana.get("/api/v1/use-cases").status_code == 200
        assert admin.put("/api/v1/users/ana/groups", json={"groups": []}).json()["groups"] == []
        assert ana.get("/api/v1/use-cases").status_code == 403
        (kept,) = admin.get("/api/v1/users/ana/keys").json()
        assert (kept["id"], kept["label"], "key" in kept) == (key.json()["id"], "laptop", False)
        assert admin.delete(f"/api/v1/keys/{kept['id']}").json()["state"] == "revoked"
        assert ana.get("/api/v1/me").status_code == 401
    assert admin.post("/api/v1/users/ana/disable").json()["disabled"]
    who = home.who("administrator").id
    with home.system.store.read() as tx:
        found = [home.system.ledger.entry(tx, index)[0] for index in range(size, tx.ledger.head()[0])]
    assert [(entry.action, entry.actor) for entry in found if entry.decision == "allow"] == [
        (action, who)
        for action in ("principal.create", "key.create", "principal.update", "key.revoke", "principal.disable")
    ]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v1/users", {"name": "viewer.one"}, 409),
        ("POST", "/api/v1/users", {"name": ""}, 400),
        ("POST", "/api/v1/users", {"name": "a", "surprise": 1}, 400),
        ("POST", "/api/v1/users", {"name": "a", "groups": "viewers"}, 400),
        ("PUT", "/api/v1/users/nobody/groups", {"groups": []}, 404),
        ("PUT", "/api/v1/users/administrator/groups", {"groups": []}, 409),
        ("POST", "/api/v1/users/administrator/disable", None, 409),
        ("POST", "/api/v1/users/viewer.one/keys", {"expires": "soon"}, 400),
        ("DELETE", "/api/v1/keys/nothing", None, 404),
        ("POST", "/api/v1/workspaces", {"name": "A"}, 400),
        ("POST", "/api/v1/workspaces", {"name": SEALED}, 409),
        ("PATCH", f"/api/v1/workspaces/{SEALED}", {}, 400),
        ("PATCH", f"/api/v1/workspaces/{SEALED}", {"shared": "yes"}, 400),
        ("DELETE", f"/api/v1/workspaces/{SEALED}", None, 409),
        ("DELETE", "/api/v1/workspaces/default", None, 400),
        ("POST", "/api/v1/policies", {"text": "permit ("}, 400),
        ("POST", "/api/v1/policies", {"text": '@id("x") forbid (principal, action, resource);'}, 409),
        ("POST", "/api/v1/policies/test", {"principal": "viewer.one", "action": "fly", "resource": "Home"}, 400),
        ("DELETE", "/api/v1/policies/purpose", None, 404),
    ],
)
def test_bad_input_is_answered_and_changes_nothing(
    calm: Team, method: str, path: str, body: object, status: int
) -> None:
    size = calm.size()
    with calm.client("administrator") as client:
        answer = client.request(method, path, json=body)

    assert (answer.status_code, calm.size()) == (status, size), answer.text
    assert answer.json()["message"]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A home for tests after which it is as it was."""
    with team.running(tmp_path_factory.mktemp("calm") / "home") as running:
        yield running


def test_workspaces(admin: httpx.Client, engineer: httpx.Client) -> None:
    made = admin.post("/api/v1/workspaces", json={"name": "growth", "description": "d", "readers": ["engineers"]})
    assert (made.status_code, made.json()["shared"]) == (200, False)
    assert [one["name"] for one in engineer.get("/api/v1/workspaces").json()] == ["default", "growth"]
    assert engineer.get("/api/v1/workspaces/growth").json()["readers"] == ["engineers"]
    assert engineer.get(f"/api/v1/workspaces/{SEALED}").status_code == 403
    assert engineer.patch("/api/v1/workspaces/growth", json={"shared": True}).status_code == 403

    changed = admin.patch("/api/v1/workspaces/growth", json={"readers": [], "shared": True}).json()
    assert (changed["readers"], changed["shared"], changed["description"]) == ([], True, "d")
    assert admin.delete("/api/v1/workspaces/growth").status_code == 200
    assert admin.get("/api/v1/workspaces/growth").status_code == 404


def test_policies(admin: httpx.Client, engineer: httpx.Client) -> None:
    question = {"principal": "engineer.one", "action": "run", "resource": "Home"}
    assert admin.post("/api/v1/policies/test", json=question).json()["allowed"]
    compared = admin.post("/api/v1/policies/compare", json={"text": FROZEN}).json()
    added = admin.post("/api/v1/policies", json={"text": FROZEN}).json()
    assert compared == added
    assert {"who": "engineer.one", "action": "run", "resource": "Home/home", "allowed": False} in added["gains"]
    answer = admin.post("/api/v1/policies/test", json=question).json()
    assert (answer["allowed"], answer["policies"], answer["reasons"]) == (False, ["frozen"], ["it is frozen"])
    assert admin.get("/api/v1/policies").json()[0]["by"] == "administrator.one"
    assert admin.delete("/api/v1/policies/frozen").json()["removed"] == ["frozen"]


def test_somebody_gets_a_browser_in_with_a_key_and_only_as_themselves(home: Team) -> None:
    with home.client("engineer") as engineer:
        link = engineer.post("/api/v1/me/link").json()["link"]
    with httpx.Client() as browser:
        cookie = browser.get(link).headers["set-cookie"].partition(";")[0].partition("=")[2]
        browser.cookies.set("bedplate_session", cookie)
        assert browser.get(f"{home.address}/api/v1/me").json()["name"] == "engineer.one"
        assert browser.get(f"{home.address}/api/v1/me").json()["auth"] == "session"
        assert browser.get(link).status_code == 401
        home.do("disable_user", name="engineer.one")
        assert browser.get(f"{home.address}/api/v1/me").status_code == 401


def test_a_session_changes_with_the_form_token_only(home: Team) -> None:
    link = home.system.identity.create_link(home.who("administrator").id, actor="test")
    session = home.system.identity.redeem_link(link)
    with httpx.Client(base_url=home.address, cookies={"bedplate_session": session}) as browser:
        assert browser.post("/api/v1/users", json={"name": "ana"}).status_code == 403
    assert not any(user.name == "ana" for user in home.do("list_users"))


# ------------------------------------------------------------------------------------------------------------- MLflow


def test_workspaces_as_mlflow_has_them(home: Team, admin: httpx.Client, engineer: httpx.Client) -> None:
    assert admin.get(WORKSPACES).json() == {"workspaces": [{"name": "default"}, {"name": SEALED}]}
    assert engineer.get(WORKSPACES).json() == {"workspaces": [{"name": "default"}]}
    with home.client("nobody") as nobody:
        assert nobody.get(WORKSPACES).json() == {}

    made = admin.post(WORKSPACES, json={"name": "growth", "description": "d"})
    assert (made.status_code, made.json()) == (201, {"workspace": {"name": "growth", "description": "d"}})
    assert admin.get(f"{WORKSPACES}/growth").json() == made.json()
    assert engineer.get(f"{WORKSPACES}/growth").status_code == 403, "closed until groups are named"
    changed = admin.patch(f"{WORKSPACES}/growth", json={"description": "e"})
    assert (changed.status_code, changed.json()["workspace"]["description"]) == (200, "e")
    gone = admin.delete(f"{WORKSPACES}/growth")
    assert (gone.status_code, gone.content) == (204, b"")
    assert code(admin.get(f"{WORKSPACES}/growth")) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("POST", "", {}, 400, "INVALID_PARAMETER_VALUE"),
        ("POST", "", {"name": "default"}, 400, "INVALID_PARAMETER_VALUE"),
        ("POST", "", {"name": "A"}, 400, "INVALID_PARAMETER_VALUE"),
        ("POST", "", {"name": SEALED}, 400, "RESOURCE_ALREADY_EXISTS"),
        ("POST", "", {"name": "ab", "default_artifact_root": "s3://b/p"}, 400, "INVALID_PARAMETER_VALUE"),
        ("POST", "", {"name": "ab", "trace_archival_config": {"retention": "30d"}}, 400, "INVALID_PARAMETER_VALUE"),
        ("PATCH", f"/{SEALED}", {}, 400, "INVALID_PARAMETER_VALUE"),
        ("PATCH", "/absent", {"description": "x"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("GET", "/Not-A-Name", None, 400, "INVALID_PARAMETER_VALUE"),
        ("DELETE", "/default", None, 400, "INVALID_PARAMETER_VALUE"),
        ("DELETE", "/absent", None, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("DELETE", f"/{SEALED}", None, 400, "INVALID_STATE"),
        ("DELETE", f"/{SEALED}?mode=CASCADE", None, 400, "INVALID_PARAMETER_VALUE"),
        ("DELETE", f"/{SEALED}?mode=ALL", None, 400, "INVALID_PARAMETER_VALUE"),
    ],
)
def test_what_mlflow_refuses_is_refused(
    calm: Team, method: str, path: str, body: object, status: int, error: str
) -> None:
    size = calm.size()
    with calm.client("administrator") as client:
        answer = client.request(method, WORKSPACES + path, json=body)

    assert (code(answer), calm.size()) == ((status, error), size)


@pytest.mark.parametrize("prefix", ["/api/2.0", "/ajax-api/2.0"])
def test_users_as_mlflow_has_them(calm: Team, prefix: str) -> None:
    users = f"{prefix}/mlflow/users"
    with calm.client("engineer") as engineer, calm.client("administrator") as admin:
        me = engineer.get(f"{users}/current").json()
        assert me == {
            "user": {"id": calm.who("engineer").id, "username": "engineer.one", "is_admin": False},
            "is_basic_auth": False,
        }
        assert engineer.get(f"{users}/get", params={"username": "engineer.one"}).json() == {"user": me["user"]}
        assert engineer.get(f"{users}/get", params={"username": "viewer.one"}).status_code == 403
        assert engineer.get(f"{users}/list").status_code == 403
        assert admin.get(f"{users}/get", params={"username": "engineer.one"}).json() == {"user": me["user"]}
        assert code(admin.get(f"{users}/get", params={"username": "x"})) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert code(admin.get(f"{users}/get")) == (400, "INVALID_PARAMETER_VALUE")
        listed = {user["username"]: user["is_admin"] for user in admin.get(f"{users}/list").json()["users"]}
        assert listed["administrator"]
        assert not listed["engineer.one"]
        assert "disabled.one" not in listed
        for method, path in (("POST", "create"), ("PATCH", "update-password")):
            answer = admin.request(method, f"{users}/{path}", json={"username": "x", "password": "y"})
            assert code(answer) == (501, "NOT_IMPLEMENTED")
            assert "keys" in answer.json()["message"]


def test_mlflow_makes_administrators_and_shuts_users_out(home: Team, admin: httpx.Client) -> None:
    assert admin.patch(f"{MLFLOW}/update-admin", json={"username": "viewer.one", "is_admin": True}).json() == {}
    assert home.who("viewer").groups == ("administrators", "viewers")
    admin.patch(f"{MLFLOW}/update-admin", json={"username": "viewer.one", "is_admin": False})
    assert home.who("viewer").groups == ("viewers",)

    assert admin.request("DELETE", f"{MLFLOW}/delete", json={"username": "viewer.one"}).json() == {}
    with home.client("viewer") as viewer:
        assert viewer.get(f"{MLFLOW}/current").status_code == 401
    for username, status in (("administrator.one", 400), ("viewer.one", 404), ("administrator", 400)):
        answer = admin.request("DELETE", f"{MLFLOW}/delete", json={"username": username})
        assert answer.status_code == status, answer.text


def test_a_key_is_the_password_of_a_client_that_wants_one(home: Team) -> None:
    pair = base64.b64encode(f"engineer.one:{home.keys['engineer']}".encode()).decode()
    other = base64.b64encode(f"viewer.one:{home.keys['engineer']}".encode()).decode()
    with httpx.Client(base_url=home.address) as client:
        current = client.get(f"{MLFLOW}/current", headers={"authorization": f"Basic {pair}"})
        assert current.json()["user"]["username"] == "engineer.one"
        assert client.get(f"{MLFLOW}/current", headers={"authorization": f"Basic {other}"}).status_code == 401
