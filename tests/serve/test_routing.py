"""A candidate release beside the stable one: who answers, what is counted, and that nobody sees it fail."""

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from bedplate import ids, journal
from bedplate.journal import predictions
from bedplate.records import ModelSignature, Prediction
from bedplate.serve import snapshot
from bedplate.serve.predictors import Answer
from bedplate.serve.routing import Latencies, Router, compare, position
from bedplate.serve.snapshot import Route
from bedplate.serve.spec import ReplicaSpec
from bedplate.serve.supervisor import Supervisor
from bedplate.serve.tensors import ModelError, check
from bedplate.stats.canary import Rows, Tally
from tests.serve.support import LINEAR, World, all_types, body, client, eventually, linear

pytestmark = pytest.mark.slow

INFER = "/v2/models/linear/infer"


class Rolling:
    """An endpoint whose stable release gives X and whose candidate gives 2 X (or what ``model`` does)."""

    def __init__(self, root: Path, model: bytes | None = None, signature: ModelSignature = LINEAR) -> None:
        self.world = World(root)
        self.supervisor = Supervisor(self.world.home)
        self.stable = self.world.spec()
        self.tallies = self.world.home.run / "rollouts" / "r"
        self.tallies.mkdir(parents=True)
        made = self.world.bundle(model or linear(2.0), signature, version=2)
        self.candidate: ReplicaSpec = msgspec.structs.replace(
            self.world.spec(made), name="linear@2", socket=self.world.home.run / "candidate.sock"
        )
        self.step = 0
        self.url = self.supervisor.start(self.stable)
        self.supervisor.start(self.candidate)

    def share(self, share: float, **changes: Any) -> None:
        """Put the route of a new step into force, and wait until the replica follows it."""
        self.step += 1
        made = {
            "rollout": "r",
            "step": self.step,
            "mode": "split",
            "salt": "salt",
            "bundle": self.candidate.digest,
            "version": "2",
            "evidence": self.candidate.evidence,
            "socket": self.candidate.socket,
            "tallies": self.tallies,
            "patience": 2.0,
        }
        route = Route(share=share, **(made | changes))  # type: ignore[arg-type]
        self.world.publish(routes={"linear": route})
        eventually(lambda: list(self.tallies.glob(f"{self.step}-*.json")))

    def reach(self) -> None:
        """Wait until the candidate answers, as a test before may have killed it or held it up."""
        self.share(1.0)
        with client(self.url) as http:
            eventually(lambda: {factor(http) for _ in range(5)} == {2.0})

    def tally(self) -> Tally:
        """What all replicas counted in this step."""
        total = Tally()
        for path in self.tallies.glob(f"{self.step}-*.json"):
            total.add(msgspec.json.decode(path.read_bytes(), type=Tally))
        return total

    def records(self) -> list[Prediction]:
        """Every prediction logged in this step."""
        found = [
            predictions.decode(record)
            for segment in journal.segments(self.world.home.journal)
            for record in journal.read(segment)
        ]
        return [record for record in found if record.exposure is not None and record.exposure.step == self.step]

    def pid(self, name: str) -> int:
        """The process of an endpoint or of its candidate."""
        return next(status.pids[0] for status in self.supervisor.status() if status.name == name and status.pids)


@pytest.fixture(scope="module")
def rolling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rolling]:
    made = Rolling(tmp_path_factory.mktemp("rolling"))
    yield made
    made.supervisor.close()


def factor(http: httpx.Client, value: float = 1.0) -> float:
    """By what the answering release multiplies."""
    answer = http.post(INFER, json=body((value, 2.0, 3.0)))
    answer.raise_for_status()
    told = answer.json()
    found = float(told["outputs"][0]["data"][0]) / value
    assert told["model_version"] == str(int(found))
    return found


def test_the_share_of_a_candidate_is_kept_and_logged(rolling: Rolling) -> None:
    rolling.reach()
    rolling.share(0.3)
    with client(rolling.url) as http:
        factors = [factor(http) for _ in range(200)]
        assert http.post("/v2/models/linear/versions/1/infer", json=body()).json()["outputs"][0]["data"][0] == 1.0
    assert 30 <= factors.count(2.0) <= 90
    assert factors.count(1.0) + factors.count(2.0) == 200
    tally = eventually(
        lambda: found if (found := rolling.tally()).candidate.requests + found.stable.requests == 200 else None
    )
    assert (tally.candidate.requests, tally.stable.requests) == (factors.count(2.0), factors.count(1.0))
    assert (tally.candidate.errors, tally.stable.errors) == (0, 0)
    rolling.supervisor.seal("linear")
    for record in eventually(lambda: found if len(found := rolling.records()) == 200 else None):
        exposure = record.exposure
        assert exposure is not None
        assert (
            (exposure.assigned == "candidate") == (exposure.split < 0.3) == (record.bundle == rolling.candidate.digest)
        )
        assert (exposure.rollout, exposure.mode, exposure.share) == ("r", "split", 0.3)


def test_the_same_key_stays_with_the_same_release(rolling: Rolling) -> None:
    rolling.share(0.5, key="X")
    with client(rolling.url) as http:
        first = [factor(http, float(value)) for value in range(1, 40)]
        again = [factor(http, float(value)) for value in range(1, 40)]
    assert first == again
    assert set(first) == {1.0, 2.0}


def test_a_route_is_soon_in_force_and_out_of_force(rolling: Rolling) -> None:
    with client(rolling.url) as http:
        rolling.share(1.0)
        eventually(lambda: factor(http) == 2.0)
        rolling.world.publish()
        eventually(lambda: factor(http) == 1.0)


def test_a_shadow_answers_nobody_and_is_compared_row_by_row(rolling: Rolling) -> None:
    rolling.share(1.0, mode="shadow", tolerance=0.1)
    with client(rolling.url) as http:
        assert [factor(http) for _ in range(30)] == [1.0] * 30
    tally = eventually(lambda: found if (found := rolling.tally()).rows.compared == 30 else None)
    assert (tally.rows.different, tally.rows.values, tally.rows.largest) == (30, 90, 3.0)
    assert tally.rows.difference == tally.rows.distance == 30 * 6.0
    assert (tally.candidate.errors, tally.stable.requests) == (0, 30)


def test_a_candidate_that_hangs_costs_nobody_an_error(rolling: Rolling) -> None:
    rolling.share(0.5, patience=0.1)
    candidate = rolling.pid("linear@2")
    os.kill(candidate, signal.SIGSTOP)
    try:
        with client(rolling.url) as http:
            assert [factor(http) for _ in range(40)] == [1.0] * 40
        eventually(lambda: (found := rolling.tally()).reasons == {"late": found.candidate.requests})
    finally:
        os.kill(candidate, signal.SIGCONT)


def test_what_one_step_asked_is_not_held_against_the_next(rolling: Rolling) -> None:
    rolling.reach()
    rolling.share(1.0, patience=5.0)
    candidate = rolling.pid("linear@2")
    os.kill(candidate, signal.SIGSTOP)
    try:
        with client(rolling.url) as http, ThreadPoolExecutor(1) as beside:
            late = beside.submit(factor, http)
            eventually(lambda: rolling.tally().candidate.requests == 1)
            rolling.share(0.0)
            assert late.result() == 1.0
            assert factor(http) == 1.0
    finally:
        os.kill(candidate, signal.SIGCONT)
    tally = eventually(lambda: found if (found := rolling.tally()).stable.requests == 1 else None)
    assert (tally.candidate.errors, tally.reasons) == (0, {})


def test_a_candidate_that_is_killed_costs_nobody_an_error_and_comes_back(rolling: Rolling) -> None:
    rolling.share(0.5)
    with client(rolling.url) as http:
        for _ in range(2):
            os.kill(rolling.pid("linear@2"), signal.SIGKILL)
            assert {factor(http) for _ in range(20)} <= {1.0, 2.0}
            eventually(lambda: factor(http) == 2.0)


def test_a_candidate_that_answers_no_number_costs_nobody_an_error(tmp_path: Path) -> None:
    rolling = Rolling(tmp_path, linear(0.0, operator="Div"))
    try:
        rolling.share(0.5)
        with client(rolling.url) as http:
            assert [factor(http) for _ in range(40)] == [1.0] * 40
        eventually(lambda: (found := rolling.tally()).reasons == {"unusable": found.candidate.requests})
    finally:
        rolling.supervisor.close()


def test_a_candidate_with_another_signature_costs_nobody_an_error(tmp_path: Path) -> None:
    model, signature = all_types()
    rolling = Rolling(tmp_path, model, signature)
    try:
        rolling.share(1.0)
        with client(rolling.url) as http:
            assert [factor(http) for _ in range(10)] == [1.0] * 10
        eventually(lambda: rolling.tally().reasons == {"refused": 10})
    finally:
        rolling.supervisor.close()


@pytest.mark.parametrize(
    "outputs",
    [{}, {"Y": np.zeros((1, 3))}, {"Y": np.array([[1, np.nan, 2]], np.float32)}, {"Z": np.zeros((1, 3), np.float32)}],
)
def test_what_is_no_answer_by_the_stable_signature_is_not_given(outputs: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        check(outputs, LINEAR)
    check({"Y": np.zeros((1, 3), np.float32), "more": np.zeros(1)}, LINEAR)


def test_what_both_releases_refuse_is_no_error_of_the_candidate(rolling: Rolling) -> None:
    rolling.reach()
    rolling.share(1.0)
    with client(rolling.url) as http:
        assert http.post(INFER, json={"inputs": []}).status_code == 400
        assert factor(http) == 2.0
    tally = eventually(lambda: found if (found := rolling.tally()).candidate.requests else None)
    assert tally.candidate.errors == 0


def test_a_file_of_the_socket_is_for_its_owner_alone(rolling: Rolling) -> None:
    assert rolling.candidate.socket is not None
    assert rolling.candidate.socket.stat().st_mode & 0o077 == 0


def test_routes_survive_the_snapshot_file(tmp_path: Path) -> None:
    world = World(tmp_path)
    route = Route(
        rollout="r", step=2, mode="split", share=0.1, salt="s", bundle=ids.digest_bytes(b""), version="2",
        evidence=ids.digest_bytes(b"e"), socket=tmp_path / "s", tallies=tmp_path, patience=0.5,
    )  # fmt: skip
    world.publish(routes={"linear": route})
    read = snapshot.read(world.snapshot, snapshot.load_public_key(world.home.keys / "access.pub.pem"))
    assert read.routes == {"linear": route}


def test_a_copy_for_a_shadow_whose_rollout_ends_in_the_same_turn_is_not_made(tmp_path: Path) -> None:
    none = ids.digest_bytes(b"")
    route = Route(
        rollout="r", step=1, mode="shadow", share=1.0, salt="salt", bundle=ids.digest_bytes(b"2"), version="2",
        evidence=none, socket=tmp_path / "candidate.sock", tallies=tmp_path, patience=1.0,
    )  # fmt: skip

    async def stable() -> Answer:
        return Answer(outputs={"Y": np.zeros((1, 3), np.float32)})

    async def run() -> None:
        router = Router(none, "1", none, LINEAR)
        router.follow(route)
        await router.answer(route, {}, "key", stable)
        tally = router.tally
        router.follow(None)
        await asyncio.gather(*router._shadows)
        assert (tally.candidate.requests, tally.reasons) == (0, {})

    asyncio.run(run())


def test_keys_lie_evenly_and_independently_of_other_salts() -> None:
    a = np.array([position("one", str(i)) for i in range(4000)])
    b = np.array([position("two", str(i)) for i in range(4000)])
    assert abs((a < 0.1).mean() - 0.1) < 0.02
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.06
    assert position("one", "x") == position("one", "x")


def test_the_p95_of_latencies_is_right_to_an_eighth_and_forgets() -> None:
    latencies = Latencies()
    assert latencies.p95() == np.inf
    for i in range(1, 1001):
        latencies.add(i / 1e6)
    assert 950e-6 <= latencies.p95() <= 950e-6 * 1.13
    for _ in range(300):
        latencies.fade()
    for _ in range(100):
        latencies.add(0.1)
    assert 0.1 <= latencies.p95() <= 0.1 * 1.13


def test_rows_are_compared_by_number_by_text_and_by_shape() -> None:
    rows = Rows()
    a = {"y": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), "name": np.array(["a", "b", "c"], dtype=object)}
    compare(rows, a, {"y": a["y"] * (1 + 1e-9), "name": np.array(["a", "b", "x"], dtype=object)}, 1e-6)
    assert (rows.compared, rows.different, rows.values) == (3, 1, 6)
    compare(rows, a, {"y": np.zeros((1, 2)), "name": a["name"]}, 1e-6)
    assert (rows.compared, rows.different) == (6, 4)
