"""Bad input ends in a clear message and exit code and leaves nothing half done: a good run follows on the same home."""

import contextlib
import resource
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bedplate import settings, store
from tests import retail

pytestmark = [pytest.mark.slow, pytest.mark.long]


def spoil(folder: Path, name: str, *changes: tuple[str, str]) -> None:
    """Change a file of a use case."""
    retail.change(folder / name, *changes)


BAD = {
    # what is wrong: (what to change, exit code, what the message says)
    "no file": (lambda folder: (folder / "usecase.yaml").unlink(), 2, "usecase.yaml"),
    "unknown key": (lambda folder: spoil(folder, "usecase.yaml", (r"\nowner:", "\nownr:")), 2, "ownr"),
    "wrong unit": (lambda folder: spoil(folder, "usecase.yaml", ("p99: 50 ms", "p99: 50 kg")), 2, "50 kg"),
    "no data": (lambda folder: (folder / "data/invoices.csv").unlink(), 2, "invoices.csv"),
    "no contract": (lambda folder: (folder / "contracts/invoices.odcs.yaml").unlink(), 2, "invoices.odcs.yaml"),
    "another contract": (
        lambda folder: spoil(folder, "contracts/invoices.odcs.yaml", (r"name: paid_late", "name: paid_tardily")),
        2,
        "paid_tardily",
    ),
    "a sensitive column that is none": (
        lambda folder: spoil(
            folder, "usecase.yaml", (r"purpose: credit_control", "purpose: credit_control\n  sensitive: [paid_lat]")
        ),
        2,
        "did you mean 'paid_late'",
    ),
    "empty table": (
        lambda folder: (folder / "data/invoices.csv").write_text(
            (folder / "data/invoices.csv").read_text().splitlines()[0] + "\n"
        ),
        2,
        "invoices",
    ),
    "a function that raises": (
        lambda folder: (folder / "pipeline.py").write_text(
            "from bedplate import pipeline\n\n\n@pipeline.train(inputs={'invoices': ('paid_late',)})\n"
            "def train(task):\n    raise ValueError('the oven is cold')\n"
        ),
        1,
        "the oven is cold",
    ),
}


def refused(ended: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    """The command failed as it should: with this code, these words, and what to do; no traceback, no fault of ours."""
    told = ended.stdout + ended.stderr
    assert ended.returncode == code, told
    assert says in ended.stderr, told
    assert "Error:" in ended.stderr
    assert "Traceback" not in told
    assert "a fault in Bedplate" not in told


def whole(home: Path, folder: Path, **settings: str) -> None:
    """A good run on the home does everything to the end, and the ledger holds."""
    good = retail.command(home, "run", str(folder), **settings)
    assert good.returncode == 0, good.stderr
    assert "[13/13] trace" in good.stdout
    assert retail.command(home, "audit", "verify", **settings).returncode == 0
    left = [path for path in home.rglob("*") if path.suffix in (".tmp", ".partial")]
    assert not left


def half_done(home: Path) -> list[str]:
    """Executions that the store still believes to be running."""
    path = settings.Home(home).database
    if not path.exists():
        return []
    with contextlib.closing(store.open(path)) as opened, opened.read() as tx:
        return [row.id for row in tx.executions.running()]


def test_what_a_person_gets_wrong(starter: Path, tmp_path: Path):
    """Each mistake on its own copy of the starter, all on one home; then the starter itself."""
    home = tmp_path / "home"
    for number, (name, (change, code, says)) in enumerate(BAD.items()):
        folder = tmp_path / f"bad{number}"
        copied = subprocess.run(["cp", "-r", str(starter), str(folder)], check=True)
        assert copied.returncode == 0
        change(folder)
        refused(retail.command(home, "run", str(folder)), code, says)
        assert not half_done(home), name
    whole(home, starter)


def test_a_port_of_an_endpoint_that_is_taken(starter: Path, tmp_path: Path):
    """It is named; once it is free the stage can be done."""
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        spoil(starter, "usecase.yaml", (r"\nserve:\n", f"\nserve:\n  port: {port}\n"))
        refused(retail.command(home, "run", str(starter)), 1, f"port {port} is taken by another program")
    assert not half_done(home)
    assert retail.command(home, "run", str(starter), "--only", "serve").returncode == 0


def limited(home: Path, size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that may write no file beyond ``size`` bytes: what a full disk does to it."""
    return subprocess.run(
        [sys.executable, "-m", "bedplate", *arguments],
        capture_output=True,
        text=True,
        env=retail.environment(home),
        timeout=250,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        check=False,
    )


def test_a_disk_that_is_full(starter: Path, tmp_path: Path):
    """Wherever it strikes: at the keys, in the database, in the tables, in what is served."""
    home = tmp_path / "home"
    for size in (1 << 8, 1 << 12, 1 << 16, 300 << 10, 1 << 20):
        ended = limited(home, size, "run", str(starter))
        if ended.returncode != 0:
            refused(ended, 1, "Fix:")
    whole(home, starter)


def test_a_disk_that_has_no_space_left(starter: Path, tmp_path: Path):
    """A small one of its own, made larger each time: it strikes somewhere else, and in the end nowhere."""
    probe = ("unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path))
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a user mount a small disk")
    script = ("unshare", "-rm", sys.executable, "-m", "tests.flow.full_disk", str(tmp_path / "disk"), str(starter))
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        script, capture_output=True, text=True, timeout=280, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_home_of_another_version(tmp_path: Path, starter: Path):
    """It is named with its format, and not touched."""
    home = tmp_path / "home"
    assert retail.command(home, "up", "--detach").returncode == 0
    assert retail.command(home, "stop").returncode == 0
    manifest = home / "home.json"
    before = manifest.read_bytes()
    manifest.write_bytes(msgspec.json.encode(msgspec.json.decode(before) | {"format": 99}))
    for arguments in (("run", str(starter)), ("up",), ("up", "--detach"), ("backup", str(tmp_path / "copy"))):
        refused(retail.command(home, *arguments), 1, "format 99")
    manifest.write_bytes(before)
    assert retail.command(home, "status").returncode == 0


def test_a_lost_network(tmp_path: Path, starter: Path):
    """A database that nobody answers for is named; the folder is still good for a run without it."""
    home = tmp_path / "home"
    address = "postgresql://bedplate:secret@127.0.0.1:9/bedplate"
    for arguments in (("run", str(starter)), ("up",), ("status",), ("plan", str(starter))):
        ended = retail.command(home, *arguments, BEDPLATE_DATABASE=address)
        refused(ended, 1, "127.0.0.1")
        assert "secret" not in ended.stdout + ended.stderr
    unverified = retail.command(home, "audit", "verify", BEDPLATE_DATABASE=address)
    assert unverified.returncode == 4
    assert "127.0.0.1" in unverified.stdout
    assert "secret" not in unverified.stdout
