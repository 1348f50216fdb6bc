"""Whatever anybody writes into whatever a route takes, nothing is read, run or changed that is not theirs.

Every route of the table is attacked in every place where it takes something, with statements of SQL, paths that lead
elsewhere, pages, headers, pickles, ids of a closed workspace, and values of other types.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bedplate.app import session
from tests import team
from tests.api import hostile
from tests.api.routes import ROUTES, shown
from tests.rights import MAY
from tests.team import Team

CANARY = "a-file-beside-the-home"
MOST = 256 * 1024
"""Of an answer so much is read."""
FIRST = [route for route in ROUTES if not route.twin]


class Attacked:
    """A home with something in it, what lies beside it, and who attacks."""

    def __init__(self, running: Team, folder: Path) -> None:
        self.team, self.folder = running, folder
        self.canary, self.made = folder / "canary.txt", folder / "made"
        self.canary.write_text(CANARY)
        self.engineer, self.administrator = running.client("engineer"), running.client("administrator")
        api = "/api/2.0/mlflow"
        made = self.engineer.post(f"{api}/runs/create", json={"experiment_id": "0"}).json()
        run = made["run"]["info"]["run_id"]
        kept = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/kept.txt"
        self.engineer.put(kept, content=b"kept").raise_for_status()
        model = self.engineer.post(f"{api}/logged-models", json={"experiment_id": "0", "name": "m"}).json()
        self.engineer.post(f"{api}/registered-models/create", json={"name": "known"}).raise_for_status()
        running.member("victim")
        form = session.csrf(running.keys["engineer"])
        self.usual = hostile.usual(running, run, model["model"]["info"]["model_id"], form)
        self.wanted = hostile.everything(running, self.canary, self.made)
        self.secrets = (CANARY, "root:x:0:0", "Traceback (most recent call last)", running.system.token)
        self.sealed, self.tables = running.sealed_state(), self.schema()

    def schema(self) -> list[Any]:
        """The tables of the database, and whether it is whole."""
        with sqlite3.connect(f"file:{self.team.system.home.database}?mode=ro", uri=True) as connection:
            tables = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
            counts = [connection.execute(f'SELECT count(*) > 0 FROM "{name}"').fetchone() for name in self.kept]
        connection.close()
        return [tables, counts]

    kept = ("runs", "keys", "principals", "experiments", "ledger_entries", "artifacts")

    def check(self) -> None:
        """Nothing was loaded, and nothing beside the home, in the closed workspace or of the tables has changed."""
        assert not self.made.exists(), "what was sent was loaded"
        assert sorted(path.name for path in self.folder.iterdir()) == ["canary.txt", "home"]
        assert self.canary.read_text() == CANARY
        assert self.team.sealed_state() == self.sealed
        assert self.schema() == self.tables

    def attacker(self, route: Any) -> httpx.Client:
        """Who attacks: somebody who may use the route, and not more than that where it can be so."""
        about = route.resource({**dict.fromkeys(hostile.Places(route, self.usual).path, "x"), "workspace": "default"})
        rights = MAY.get((route.action, about.type))
        return self.engineer if rights is None or rights["engineer"] else self.administrator


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """One home for all attacks."""
    folder = tmp_path_factory.mktemp("hostile")
    with team.running(folder / "home", evidence=True) as running:
        made = Attacked(running, folder)
        yield made
        made.check()
        made.engineer.close()
        made.administrator.close()


def sent(client: httpx.Client, request: hostile.Sent) -> tuple[int, str, httpx.Headers]:
    """Status, the beginning of the text, and headers of the answer."""
    asked = client.build_request(request.method, "/", headers=request.headers, content=request.content)
    # As it stands: httpx would mend the path.
    asked.url = asked.url.copy_with(raw_path=request.url.encode("ascii"))
    answer = client.send(asked, stream=True)
    try:
        text = b""
        for piece in answer.iter_raw():
            text += piece
            if len(text) > MOST:
                break
        return answer.status_code, text.decode("utf-8", "replace"), answer.headers
    finally:
        answer.close()


def places(attacked: Attacked, route: Any, monkeypatch: pytest.MonkeyPatch) -> hostile.Places:
    """Where a route takes something, declared or looked at."""
    found, looks = hostile.Places(route, attacked.usual), hostile.Looks()
    with looks.watched(monkeypatch):
        for _ in range(4):  # one place may lead to the next
            if route.method != "GET" and route.request_type is None:
                found.form.setdefault("csrf", attacked.usual["csrf"])
            sent(attacked.attacker(route), found.plain())
            if not found.looked_at(looks.query, looks.form):
                break
    return found


@pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=[pytest.mark.long, pytest.mark.sweep])], ids=["sample", "all"]
)
@pytest.mark.parametrize("route", FIRST, ids=shown)
def test_nothing_hostile_gets_anywhere(
    route: Any, whole: bool, attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = places(attacked, route, monkeypatch)
    assert not found.unknown, "say in tests/api/hostile.py what usually stands in each of these places"
    client = attacked.attacker(route)
    forbidden = (*attacked.secrets, team.MARK) if client is attacked.engineer else attacked.secrets

    wanted = attacked.wanted if whole else attacked.wanted.sample()

    for request in found.hostile(wanted):
        status, text, headers = sent(client, request)
        assert status < 500, f"{request.what}: {status} {text[:2000]}"
        assert "owned=1" not in headers.get("set-cookie", ""), request.what
        for secret in forbidden:
            assert secret not in text, f"{request.what}: {status} {secret!r}"

    if whole:
        attacked.check()


def test_a_twin_is_the_same_route_at_another_address() -> None:
    """So attacking one of them attacks both: same handler, same rights, same limits, same message."""
    first = {(route.handler.__code__, route.method): route for route in FIRST}
    for route in ROUTES:
        if route.twin:
            of = first[route.handler.__code__, route.method]
            for part in ("action", "audit", "limits", "request_type", "headers", "queries", "public", "lenient"):
                assert getattr(route, part) == getattr(of, part), shown(route)
