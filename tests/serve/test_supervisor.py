"""Replicas come, go, crash and are swapped; who keeps asking notices as little as can be."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from bedplate import journal
from bedplate.errors import IntegrityError, NotFoundError, UnavailableError
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import World, body, client, eventually, linear

INFER = "/v2/models/linear/infer"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("real_replicas")]


class Load:
    """Asks all the time on a few kept connections, and remembers what failed."""

    def __init__(self, url: str, threads: int = 2) -> None:
        self._url, self._stop = url, threading.Event()
        self.answered: list[str] = []
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def _ask(self) -> None:
        with client(self._url) as http:
            while not self._stop.is_set():
                try:
                    answer = http.post(INFER, json=body())
                    answer.raise_for_status()
                    self.answered.append(answer.headers["x-prediction-id"])
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                self._stop.wait(0.05)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.long
def test_twenty_swaps_under_load_fail_no_request(tmp_path: Path) -> None:
    world = World(tmp_path)
    bundles = [world.bundle(linear(), version=version) for version in (1, 2)]
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(bundles[0]))
        with Load(url) as load:
            for number in range(1, 21):
                assert supervisor.start(world.spec(bundles[number % 2])) == url
        assert supervisor.status()[0].restarts == 0

    assert load.failed == []
    logged = sum(segment.count for segment in journal.segments(world.home.journal))
    assert logged == len(load.answered)
    assert len(load.answered) > 500


def test_a_killed_replica_comes_back_on_the_same_address(tmp_path: Path) -> None:
    world = World(tmp_path)
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(mode="durable"))
        with Load(url) as load:
            eventually(lambda: len(load.answered) > 20)
            (first,) = supervisor.status()[0].pids
            os.kill(first, signal.SIGKILL)
            eventually(lambda: supervisor.status()[0].state == "running" and first not in supervisor.status()[0].pids)
            before = len(load.answered)
            eventually(lambda: len(load.answered) > before + 20)
        (status,) = supervisor.status()
        assert (status.restarts, status.url) == (1, url)

    assert load.failed == []
    logged = [r for s in journal.segments(world.home.journal) for r in journal.read(s)]
    assert all(any(prediction.encode() in record for record in logged) for prediction in load.answered[:50])


def test_a_bundle_that_cannot_be_trusted_leaves_the_old_one_serving(tmp_path: Path) -> None:
    world = World(tmp_path)
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec())
        folder, digest = world.bundle(linear(2.0), version=2)
        (folder / "model.onnx").write_bytes(linear(3.0))

        with pytest.raises(IntegrityError):
            supervisor.start(world.spec((folder, digest)))

        with client(url) as http:
            assert http.post(INFER, json=body()).json()["model_version"] == "1"
        assert supervisor.status()[0].state == "running"


def test_an_endpoint_that_never_started_is_not_there(tmp_path: Path) -> None:
    world = World(tmp_path)
    folder, digest = world.bundle()
    (folder / "more.json").write_text("{}")
    with Supervisor(world.home) as supervisor:
        with pytest.raises(IntegrityError):
            supervisor.start(world.spec((folder, digest)))
        assert supervisor.status() == []
        with pytest.raises(NotFoundError):
            supervisor.stop("linear")


def test_an_endpoint_whose_first_replica_is_on_its_way_is_no_sleeper(tmp_path: Path) -> None:
    world = World(tmp_path)
    with Supervisor(world.home) as supervisor:
        starting = threading.Thread(target=supervisor.start, args=[world.spec()])
        starting.start()
        seen: set[str] = set()
        while starting.is_alive():
            seen.update(status.state for status in supervisor.status())
        assert "starting" in seen
        assert "asleep" not in seen
        starting.join()
        assert supervisor.status()[0].state == "running"


def test_a_model_that_gives_no_number_answers_500_and_says_why(tmp_path: Path) -> None:
    world = World(tmp_path)
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(world.bundle(linear(0.0, operator="Div"))))
        with client(url) as http:
            answer = http.post(INFER, json=body())
        assert (answer.status_code, "no number" in answer.json()["error"]) == (500, True)


def test_a_busy_port_is_a_clear_error(tmp_path: Path) -> None:
    world = World(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Supervisor(world.home) as supervisor, pytest.raises(UnavailableError, match=f"port {port} is taken"):
            supervisor.start(world.spec(port=port))


def test_the_port_is_remembered(tmp_path: Path) -> None:
    world = World(tmp_path)
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec())
    with Supervisor(world.home) as supervisor:
        assert supervisor.start(world.spec()) == url
        supervisor.stop("linear")
        assert supervisor.status() == []
        with pytest.raises(httpx.ConnectError), client(url) as http:
            http.get("/v2/health/live")


def test_replicas_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tests.serve.support import World; from bedplate.serve.supervisor import Supervisor;"
        "w = World(pathlib.Path(sys.argv[1])); s = Supervisor(w.home); s.start(w.spec());"
        "print(*s.status()[0].pids, flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        replica = int(owner.stdout.readline())
        owner.kill()

    def gone() -> bool:
        try:
            return Path(f"/proc/{replica}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    eventually(gone)
