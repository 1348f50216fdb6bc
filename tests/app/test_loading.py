"""What a caller asks a replica for its endpoint, as the owner decides it: by its own policies, and on record."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bedplate.app import endpoints
from bedplate.errors import DeniedError
from bedplate.ids import digest_bytes
from bedplate.serve.spec import ReplicaSpec
from bedplate.serve.wishes import Asked
from tests import sample, team
from tests.app.rolling import NAME, Served
from tests.serve.support import eventually
from tests.team import Team


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with team.running(tmp_path_factory.mktemp("loading") / "home", evidence=True) as running:
        yield running


def spec() -> ReplicaSpec:
    nothing = digest_bytes(b"")
    return ReplicaSpec(
        name=sample.NAME, use_case=sample.NAME, bundle=Path("b"), digest=nothing, evidence=nothing,
        public_key=Path("k"), snapshot=Path("s"), snapshot_key=Path("k"), journal=Path("j"), online=Path("o"),
    )  # fmt: skip


@pytest.mark.parametrize("role", ["engineer", "administrator"])
def test_who_may_is_on_record_with_the_policy(home: Team, role: str) -> None:
    start = home.size()
    who = home.system.identity.authenticate(home.keys[role]).id
    for wish in ("unload", "load"):
        endpoints.decide(home.system, spec(), Asked(number=1, wish=wish, principal=who))  # type: ignore[arg-type]
    name = f"endpoint/{sample.NAME}"
    assert home.entries(start) == [("endpoint.unload", name, "allow"), ("endpoint.load", name, "allow")]


@pytest.mark.parametrize("role", ["viewer", "auditor", "caller", "nobody"])
def test_a_replica_s_word_does_not_give_a_right(home: Team, role: str) -> None:
    """The replica says who asks; the owner finds out by itself what they may, and the denial is on record."""
    start = home.size()
    who = home.system.identity.authenticate(home.keys[role]).id
    with pytest.raises(DeniedError, match="may not unload"):
        endpoints.decide(home.system, spec(), Asked(number=1, wish="unload", principal=who))
    assert home.entries(start) == [("unload", f"endpoint/{sample.NAME}", "deny")]


def test_nobody_and_who_is_disabled_change_nothing(home: Team) -> None:
    with home.system.store.read() as tx:
        (disabled,) = [row.id for row in tx.principals.list() if row.disabled is not None]
    for who in ("prn_unknown", disabled):
        with pytest.raises(DeniedError, match=r"nobody is known|is disabled"):
            endpoints.decide(home.system, spec(), Asked(number=1, wish="unload", principal=who))


def test_the_owner_of_a_home_is_who_its_replicas_ask(tmp_path: Path) -> None:
    """One replica is the least here, so an unload is refused; what is done is recorded under the endpoint."""
    with Served(tmp_path / "home") as served:
        headers = {"authorization": f"Bearer {served.system.token}"}
        with httpx.Client(base_url=served.url, headers=headers, timeout=60) as http:
            assert http.post(f"/v2/repository/models/{NAME}/load").status_code == 200
            assert http.post(f"/v2/repository/models/{NAME}/unload").status_code == 409
        eventually(lambda: served.system.supervisor.status()[0].state == "running")
        with served.system.store.read() as tx:
            recorded = [json.loads(row.entry)["action"] for row in tx.ledger.recent(20, resource=f"endpoint/{NAME}")]
        assert recorded == ["endpoint.load"]
        assert endpoints.live(served.system)[NAME].error == ""
        supervisor = served.system.supervisor
        supervisor._memory = 1  # nothing has room in it
        os.kill(supervisor.status()[0].pids[0], signal.SIGKILL)
        eventually(lambda: "BEDPLATE_MEMORY" in endpoints.live(served.system)[NAME].error)
        supervisor._memory = None
        eventually(lambda: endpoints.live(served.system)[NAME].state == "ready")
        assert endpoints.live(served.system)[NAME].error == ""
