"""What the control plane acknowledges is on disk by then, as its system calls show; and the test of that can fail."""

import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import syscalls
from tests.api.process import Server

API = "/api/2.0/mlflow"
CONNECTIONS, EACH = 8, 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A control plane in a process of its own."""
    running = Server(tmp_path_factory.mktemp("synced") / "home")
    yield running
    running.stop()


class Marks:
    """Texts that nothing else has."""

    def __init__(self) -> None:
        self._next = itertools.count()

    def __call__(self) -> str:
        return f"mark-{next(self._next):06d}"


def log_metric(client: httpx.Client, run: str, mark: Marks) -> httpx.Response:
    """One value."""
    return client.post(f"{API}/runs/log-metric", json={"run_id": run, "key": mark(), "value": 1, "timestamp": 1})


def log_batch(client: httpx.Client, run: str, mark: Marks) -> httpx.Response:
    """Values, params and tags together."""
    metrics = [{"key": mark(), "value": step, "timestamp": 1, "step": step} for step in range(20)]
    params, tags = [{"key": mark(), "value": "x"}], [{"key": mark(), "value": "x"}]
    batch = {"run_id": run, "metrics": metrics, "params": params, "tags": tags}
    return client.post(f"{API}/runs/log-batch", json=batch)


def create_run(client: httpx.Client, run: str, mark: Marks) -> httpx.Response:
    """Another run."""
    return client.post(f"{API}/runs/create", json={"experiment_id": "0", "run_name": mark()})


def upload(client: httpx.Client, run: str, mark: Marks) -> httpx.Response:
    """An artifact of several pieces."""
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/{mark()}.bin"
    return client.put(path, content=mark().encode() + bytes(300_000))


WAYS: tuple[Callable[[httpx.Client, str, Marks], httpx.Response], ...] = (log_metric, log_batch, create_run, upload)


def begin(client: httpx.Client) -> str:
    """A run to log to."""
    run: str = client.post(f"{API}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
    return run


def read(log: Path) -> list[syscalls.Call]:
    """The calls that were written down."""
    with log.open() as lines:
        return syscalls.calls(lines)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_write_is_on_disk_when_it_is_acknowledged(way, server: Server, tmp_path: Path) -> None:
    mark, run = Marks(), begin(server.client)
    with syscalls.traced(server.process.pid, tmp_path / "log"):
        for _ in range(3):
            assert way(server.client, run, mark).status_code == 200

    found = read(tmp_path / "log")
    assert len(syscalls.answers(found)) == 3
    assert syscalls.unsynced(found) == []


def test_writes_of_many_connections_are_on_disk_when_they_are_acknowledged(server: Server, tmp_path: Path) -> None:
    """Where several share a commit, each answer still comes after it."""
    mark = Marks()
    statuses: Counter[int] = Counter()

    def write(number: int) -> None:
        with httpx.Client(base_url=server.client.base_url, headers=server.client.headers, timeout=60) as client:
            run = runs[number]
            for turn in range(EACH):
                statuses[WAYS[(number + turn) % len(WAYS)](client, run, mark).status_code] += 1

    runs = [begin(server.client) for _ in range(CONNECTIONS)]
    with syscalls.traced(server.process.pid, tmp_path / "log"), ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(write, range(CONNECTIONS)))

    found = read(tmp_path / "log")
    assert statuses == {200: CONNECTIONS * EACH}
    assert len(syscalls.answers(found)) == CONNECTIONS * EACH
    assert syscalls.unsynced(found) == []


def test_an_answer_that_was_under_way_when_the_watching_ended_is_one() -> None:
    asked = '1 read(3<socket:[1]>, "POST mark-000001", 99) = 16'
    answered = '1 write(3<socket:[1]>, "HTTP/1.1 200 OK\\r\\n\\r\\n{}", 21 <detached ...>'
    synced = "1 fdatasync(4</x/y.db-wal> <detached ...>"

    found = syscalls.calls([asked, answered, synced])

    assert [answer.marks for answer in syscalls.answers(found)] == [{b"mark-000001"}]
    assert [call.result for call in found] == [16, -1, -1]


# ------------------------------------------------------------------------------------------------ the test that it is

_SMALL = """
import os, socket, sqlite3, sys
ours, theirs = socket.socketpair()
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
database.execute("PRAGMA synchronous=" + sys.argv[2])
database.execute("CREATE TABLE kept (name TEXT)")
print("READY", flush=True)
sys.stdin.readline()
for number in range(3):
    theirs.send(b"POST mark-%06d" % number)
    mark = os.read(ours.fileno(), 100).split()[1].decode()
    database.execute("INSERT INTO kept VALUES (?)", (mark,))
    os.write(ours.fileno(), b"HTTP/1.1 200 OK")
    theirs.recv(100)
"""


@pytest.mark.parametrize(("synchronous", "lost"), [("FULL", 0), ("NORMAL", 3), ("OFF", 3)])
def test_a_database_that_does_not_sync_is_found_out(synchronous: str, lost: int, tmp_path: Path) -> None:
    """The same checks on a program that acknowledges what SQLite keeps in memory."""
    command = [sys.executable, "-c", _SMALL, str(tmp_path / "small.db"), synchronous]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "READY\n"
        with syscalls.traced(process.pid, tmp_path / "log"):
            process.communicate("\n", timeout=60)

    found = read(tmp_path / "log")
    assert len(syscalls.answers(found)) == 3
    assert len(syscalls.unsynced(found)) == lost


WAL, ZERO, PAGE = "/h/b.db-wal", r"\x00" * 4, r"mark-000001"
INNER = rf'1 pwrite64(5<{WAL}>, "{ZERO}{ZERO}{ZERO * 4}", 24, 0) = 24'
COMMIT = rf'1 pwrite64(5<{WAL}>, "{ZERO}\x00\x00\x00\x09{ZERO * 4}", 24, 0) = 24'
WRITTEN, OTHER = (f'1 pwrite64(5<{WAL}>, "{text}", 4096, 24) = 4096' for text in (PAGE, "other"))
SYNC = f"1 fdatasync(5<{WAL}>) = 0"
ASKED = '1 read(7<socket:[1]>, "POST /x mark-000001", 1024) = 19'
ANSWER = '1 write(7<socket:[1]>, "HTTP/1.1 200 OK", 15) = 15'
DATA = '2 write(6</h/.incoming.1>, "mark-000001", 11) = 11'
FILE_SYNC, NAMED, FOLDER_SYNC = (
    "2 fsync(6</h/.incoming.1>) = 0",
    '2 rename("/h/.incoming.1", "/h/ab/abc") = 0',
    "2 fsync(6</h/ab>) = 0",
)
GOOD = [ASKED, INNER, WRITTEN, COMMIT, OTHER, SYNC, ANSWER]
GOOD_FILE = [ASKED, DATA, FILE_SYNC, NAMED, FOLDER_SYNC, ANSWER]


@pytest.mark.parametrize("lines", [GOOD, GOOD_FILE, [ASKED, COMMIT, WRITTEN, SYNC, ANSWER]])
def test_what_is_synced_in_time_passes(lines: list[str]) -> None:
    assert len(syscalls.answers(syscalls.calls(lines))) == 1
    assert syscalls.unsynced(syscalls.calls(lines)) == []


def without(lines: list[str], *gone: str) -> list[str]:
    """The lines but for some."""
    return [line for line in lines if line not in gone]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (without(GOOD, SYNC), "not synced"),
        (without(GOOD, COMMIT), "not committed"),
        (without(GOOD, INNER, WRITTEN, COMMIT, OTHER), "nothing was written"),
        ([ASKED, INNER, WRITTEN, SYNC, COMMIT, OTHER, ANSWER], "not synced"),
        ([ASKED, INNER, WRITTEN, COMMIT, OTHER, ANSWER, SYNC], "not synced"),
        ([*GOOD[:-2], SYNC.replace("= 0", "= -1 EIO (Input/output error)"), ANSWER], "not synced"),
        ([*GOOD[:-2], SYNC.replace("-wal", ""), ANSWER], "not synced"),
        (
            [*GOOD[:-2], f"3 fdatasync(5<{WAL}> <unfinished ...>", ANSWER, "3 <... fdatasync resumed>) = 0"],
            "not synced",
        ),
        ([ASKED, DATA, NAMED, FILE_SYNC, FOLDER_SYNC, ANSWER], "before it got its name"),
        ([ASKED, FILE_SYNC, DATA, NAMED, FOLDER_SYNC, ANSWER], "before it got its name"),
        (without(GOOD_FILE, FOLDER_SYNC), "the folder"),
        ([ASKED, DATA, FILE_SYNC, FOLDER_SYNC, NAMED, ANSWER], "the folder"),
        (without(GOOD_FILE, NAMED), "no name"),
    ],
)
def test_what_is_not_synced_in_time_is_found(lines: list[str], why: str) -> None:
    (problem,) = syscalls.unsynced(syscalls.calls(lines))

    assert why in problem


def test_a_sync_that_others_came_between_counts_by_its_end() -> None:
    unfinished = [f"3 fdatasync(5<{WAL}> <unfinished ...>", INNER, OTHER, "3 <... fdatasync resumed>) = 0"]

    assert syscalls.unsynced(syscalls.calls([*GOOD[:-2], *unfinished, ANSWER])) == []
