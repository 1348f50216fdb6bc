"""One owner for each home: two commands and a server on one home double no effect."""

import contextlib
import json
import socket
from collections import Counter
from pathlib import Path

import httpx
import msgspec
import pytest

from bedplate import settings, store
from bedplate.app.read_models import STAGES
from tests import retail

pytestmark = [pytest.mark.slow, pytest.mark.long]


def flow_entries(home: Path) -> Counter[str]:
    """How often the ledger says that each stage was done."""
    with contextlib.closing(store.open(settings.Home(home).database)) as opened, opened.read() as tx:
        rows = list(tx.ledger.entries(0, tx.ledger.head()[0]))
    actions = (msgspec.json.decode(row.entry)["action"] for row in rows)
    return Counter(action for action in actions if action.startswith("flow."))


def facts(home: Path, *arguments: str):
    """What a command prints as JSON."""
    done = retail.command(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def home(tmp_path: Path):
    """A home, whose server is stopped in the end."""
    path = tmp_path / "home"
    yield path
    retail.command(path, "stop")


def both(home: Path, folder: Path) -> None:
    """Two runs at once, to their ends."""
    running = [retail.start(home, "run", str(folder)) for _ in range(2)]
    ended = [(*process.communicate(timeout=250), process.returncode) for process in running]
    assert [code for _, _, code in ended] == [0, 0], ended


def test_two_runs_at_once_do_everything_once(home: Path, starter: Path):
    """Without a server the second command finds the first one's socket; each stage is done once."""
    both(home, starter)
    assert flow_entries(home) == Counter(f"flow.{stage}" for stage in STAGES)
    assert facts(home, "audit", "verify")["verified"]
    assert facts(home, "status")["owner"] is None


def test_two_runs_and_a_server_at_once_do_everything_once(home: Path, starter: Path):
    """With a server both go through it, and it goes on serving what they made."""
    up = facts(home, "up", "--detach")
    both(home, starter)
    assert flow_entries(home) == Counter(f"flow.{stage}" for stage in STAGES)

    status = facts(home, "status")
    assert status["owner"] == up["pid"]
    assert status["address"] == up["address"]
    assert [(e["name"], e["state"]) for e in status["endpoints"]] == [("starter", "ready")]
    cost = status["endpoints"][0]["cost"]
    assert cost["price"]["currency"] == "USD"
    assert cost["price"]["hour"] > 0
    assert cost["each"] == pytest.approx(cost["price"]["hour"] * cost["seconds"] / 3600 / cost["predictions"])
    assert httpx.get(f"{status['endpoints'][0]['url']}/v2/health/ready").status_code == 200

    loaded = retail.command(home, "load", "starter", "--rate", "20", "--duration", "1", "--json")
    report = json.loads(loaded.stdout)
    assert (report["test"]["requests"], report["test"]["failed"]) == (20, 0), loaded.stderr
    assert report["requests"] > 1
    assert loaded.returncode == (report["verdict"] == "missed")

    assert facts(home, "stop")["pid"] == up["pid"]
    assert facts(home, "status")["owner"] is None
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{status['endpoints'][0]['url']}/v2/health/ready")


def test_a_second_server_finds_the_first(home: Path):
    """`up --detach` twice is one server; `up` in the foreground says who owns the home; `stop` twice is fine."""
    first, second = facts(home, "up", "--detach"), facts(home, "up", "--detach")
    assert (first["pid"], first["address"]) == (second["pid"], second["address"])

    refused = retail.command(home, "up")
    assert refused.returncode == 1
    assert f"process {first['pid']}" in refused.stderr
    assert "bedplate stop" in refused.stderr

    assert facts(home, "stop")["pid"] == first["pid"]
    assert facts(home, "stop")["pid"] is None


def test_a_login_link_lets_one_browser_in(home: Path):
    """Once: the second use is refused, and without the cookie nothing is shown."""
    up = facts(home, "up", "--detach")
    with httpx.Client() as browser, httpx.Client() as another:
        assert another.get(up["address"]).status_code == 401
        entered = browser.get(up["link"])
        assert entered.status_code == 200
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert browser.get(up["address"]).status_code == 200

        again = another.get(up["link"])
        assert again.status_code == 401
        assert "set-cookie" not in again.headers
        assert another.get(facts(home, "login")["link"]).status_code == 200
        assert another.get(up["address"]).status_code == 200


def test_a_busy_port_is_said(home: Path):
    """In the foreground and in the background, with what to do, and nothing stays behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments in (("up",), ("up", "--detach")):
            refused = retail.command(home, *arguments, BEDPLATE_PORT=port)
            assert refused.returncode == 1
            assert port in refused.stderr
            assert "BEDPLATE_PORT" in refused.stderr
            assert "Traceback" not in refused.stderr
    assert facts(home, "status")["owner"] is None
    assert facts(home, "up", "--detach")["address"]


def test_a_backup_of_a_running_home_is_a_home_elsewhere(home: Path, starter: Path, tmp_path: Path):
    """Taken while a run is under way; restored, it verifies, says what it is, and carries on."""
    facts(home, "up", "--detach")
    running = retail.start(home, "run", str(starter))
    for line in running.stdout:
        if "] ingest " in line and line.rstrip().endswith(" s"):
            break
    copied = facts(home, "backup", str(tmp_path / "backup"))
    assert copied["files"] > 10
    running.communicate(timeout=250)
    assert running.returncode == 0

    elsewhere = tmp_path / "elsewhere"
    assert retail.command(elsewhere, "restore", str(tmp_path / "backup"), str(elsewhere)).returncode == 0
    facts(home, "stop")
    assert facts(elsewhere, "audit", "verify")["verified"]
    assert [use_case["name"] for use_case in facts(elsewhere, "status")["use_cases"]] == ["starter"]
    resumed = retail.command(elsewhere, "run", str(starter))
    assert resumed.returncode == 0, resumed.stderr
    # A restored home measures the machine it is on now, which its plan rests on; nothing else is done twice.
    done = flow_entries(elsewhere)
    assert done.pop("flow.plan") <= 2
    assert done == Counter(f"flow.{stage}" for stage in STAGES if stage != "plan")
