"""Two machines, that is two copies of a home, with one PostgreSQL and one object store: one of them owns."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import pytest

from bedplate import store
from bedplate.app.read_models import STAGES
from bedplate.data.tables import Tables
from tests import retail
from tests.servers import S3, Postgresql

pytestmark = [pytest.mark.slow, pytest.mark.long]

PROCESS = Path(__file__).with_name("owner_process.py")
LEASE = 4.0
PATIENCE = 200.0
Start = Callable[..., "subprocess.Popen[str]"]


class Shared(NamedTuple):
    """Two homes with the same keys, and what they share."""

    one: Path
    two: Path
    settings: dict[str, str]
    s3: S3

    def command(self, home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of the command line on one of them."""
        return retail.command(home, *arguments, **self.settings)

    def facts(self, home: Path, *arguments: str):
        """What a command prints as JSON."""
        done = self.command(home, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def ledger(self) -> list[str]:
        """The action of each entry."""
        with contextlib.closing(store.open(self.settings["BEDPLATE_DATABASE"])) as opened, opened.read() as tx:
            rows = list(tx.ledger.entries(0, tx.ledger.head()[0]))
        return [msgspec.json.decode(row.entry)["action"] for row in rows]

    def done_once(self, last: str = STAGES[-1]) -> bool:
        """Whether every stage up to ``last`` was done once; a copy plans for the machine that it is on."""
        done = Counter(action for action in self.ledger() if action.startswith("flow."))
        for stage in ("plan", "decide", "look"):
            assert done.pop(f"flow.{stage}", 1) in (1, 2)
        wanted = STAGES[: STAGES.index(last) + 1]
        return done == Counter(f"flow.{stage}" for stage in wanted if stage not in ("plan", "decide", "look"))

    def executions(self) -> list[tuple[str, str]]:
        """State and message of each run, oldest first."""
        with contextlib.closing(store.open(self.settings["BEDPLATE_DATABASE"])) as opened, opened.read() as tx:
            return [(row.state, row.message) for row in reversed(tx.executions.list("starter"))]

    def predictions(self) -> int:
        """How many predictions lie in the table; none is there twice, nor is a replayed request."""
        tables = Tables(f"{self.settings['BEDPLATE_STORAGE']}/tables", self.s3.options)
        rows = tables.scan(tables.current("starter/predictions"), ["id", "request_id"]).read_all()
        replayed = [request for request in rows["request_id"].to_pylist() if request]
        assert len(set(replayed)) == len(replayed)
        assert len(set(rows["id"].to_pylist())) == rows.num_rows
        return rows.num_rows


@pytest.fixture
def shared(tmp_path: Path, postgresql: Postgresql, s3: S3) -> Iterator[Shared]:
    """A new home that was started once, and a copy of it."""
    settings = {
        "BEDPLATE_DATABASE": postgresql.database(),
        "BEDPLATE_STORAGE": s3.address(),
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_REGION": s3.options["region"],
        "AWS_ACCESS_KEY_ID": s3.options["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": s3.options["secret_access_key"],
    }
    made = Shared(tmp_path / "one", tmp_path / "two", settings, s3)
    made.facts(made.one, "up", "--detach")
    made.facts(made.one, "stop")
    shutil.copytree(made.one, made.two)
    yield made
    for home in (made.one, made.two):
        made.command(home, "stop")


@pytest.fixture
def start(shared: Shared) -> Iterator[Start]:
    """Starts an owner with a short lease, in a process group of its own; returns once it has printed a line."""
    started: list[subprocess.Popen[str]] = []

    def begin(home: Path, until: str, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(PROCESS), str(LEASE), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=retail.environment(home, **shared.settings),
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(until):
                return process
        raise AssertionError(process.communicate())

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def take_over(shared: Shared, home: Path, *arguments: str) -> None:
    """Done to the end as soon as the time of the owner before is over; refused until then."""
    deadline = time.monotonic() + PATIENCE
    while (ended := shared.command(home, "run", *arguments)).returncode != 0:
        assert "owns this database until" in ended.stderr, ended.stderr
        assert time.monotonic() < deadline


def test_a_dead_owner_is_followed(shared: Shared, start: Start, starter: Path):
    """Killed in training: the other one carries on; then the first home owns again, and serves what it had not made."""
    process = start(shared.one, "train started", "run", str(starter))
    os.killpg(process.pid, signal.SIGKILL)
    take_over(shared, shared.two, str(starter))
    assert shared.done_once()
    assert shared.executions() == [("stopped", "interrupted"), ("succeeded", "")]
    assert shared.ledger().count("home.take_over") == 1
    assert shared.facts(shared.two, "audit", "verify")["verified"]
    before = shared.predictions()

    again = shared.command(shared.one, "run", str(starter))
    assert again.returncode == 0, again.stderr
    assert shared.done_once()
    assert shared.predictions() == before
    shared.facts(shared.one, "up", "--detach")
    endpoint = shared.facts(shared.one, "status")["endpoints"][0]
    assert endpoint["state"] == "ready"
    assert httpx.get(f"{endpoint['url']}/v2/health/ready").status_code == 200
    refused = shared.command(shared.two, "up")
    assert refused.returncode == 1
    assert "owns this database" in refused.stderr
    shared.facts(shared.one, "stop")
    assert shared.facts(shared.one, "audit", "verify")["verified"]


def test_a_stopped_owner_that_wakes_changes_nothing(shared: Shared, start: Start, starter: Path):
    """Stopped in training until another one has trained: it is refused, says so, and nothing is doubled."""
    process = start(shared.one, "train started", "run", str(starter))
    os.killpg(process.pid, signal.SIGSTOP)
    shutil.copy(shared.one / "probe.json", shared.two)  # a machine of the same kind: only training is left to do
    take_over(shared, shared.two, str(starter), "--only", "train")
    before = shared.ledger(), shared.executions()

    os.killpg(process.pid, signal.SIGCONT)
    out, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, said
    assert "\nFencedError:" in f"\n{said}", said  # what else was under way may have been refused, and told, before
    assert "taken this database over" in said
    assert "Traceback" not in said
    assert "train finished" not in out
    assert (shared.ledger(), shared.executions()) == before
    assert shared.done_once("train")
    assert shared.facts(shared.two, "audit", "verify")["verified"]


def test_a_stopped_server_that_wakes_ends(shared: Shared, start: Start):
    """The other one is told who owns, as long as it is so; `up` notices by itself when it is so no more."""
    process = start(shared.one, "ready", "up")
    refused = shared.command(shared.two, "login")
    assert refused.returncode == 1
    assert f"home {shared.one} on " in refused.stderr
    assert "owns this database until 20" in refused.stderr
    os.killpg(process.pid, signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    while shared.command(shared.two, "up", "--detach").returncode != 0:
        assert time.monotonic() < deadline
    os.killpg(process.pid, signal.SIGCONT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, said
    assert "\nFencedError:" in f"\n{said}", said
    assert shared.facts(shared.two, "status")["owner"]
