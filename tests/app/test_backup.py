"""A home is copied while it runs, and the copy is a home."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bedplate import blobs, settings
from bedplate import store as stores
from bedplate.app import backup as backups
from bedplate.app import home as homes
from bedplate.errors import HomeError, InputError, IntegrityError, StorageError
from bedplate.identity import Identity
from bedplate.ids import Digest
from bedplate.ledger import Ledger, verify
from bedplate.settings import Home
from bedplate.workflow import Engine, Step

HERE = settings.load({})


@contextmanager
def opened(home: Home) -> Iterator[tuple[stores.Store, Ledger]]:
    """Store and ledger of a home."""
    made = homes.create_or_open(home)
    store = stores.open(home.database)
    ledger = Ledger(store, home.ledger, made.ledger_key)
    try:
        yield store, ledger
    finally:
        ledger.close()
        store.close()


def write(home: Home, store: stores.Store, ledger: Ledger, number: int) -> None:
    """What a stage does: an artifact, then the row that names it, with its entry."""
    digest = blobs.open(home.blobs).put(b"artifact %d" % number)
    with store.transaction() as tx:
        fact = tx.facts.put("artifact", "shop", {"blob": digest})
        ledger.record(tx, actor="ana", action="test.put", resource=fact.digest, payload={"number": number})


def check(home: Home) -> int:
    """That everything a row names is there and the ledger verifies; returns the number of facts."""
    with opened(home) as (store, _), store.read() as tx:
        facts = tx.facts.list("shop", "artifact", 1 << 30)
    for fact in facts:
        blobs.open(home.blobs).get(Digest(fact.body["blob"]))
    report = verify(home)
    assert report.ok, report.problems
    return len(facts)


def test_a_home_is_copied_while_it_is_written(tmp_path: Path) -> None:
    """Several backups under a writer: each is a whole home at another path, with what was acknowledged before it."""
    home, stop, written = Home(tmp_path / "home"), threading.Event(), [0]
    with opened(home) as (store, ledger):
        key = Identity(store, home.keys, ledger).administrator_key()
        with Engine(home.workflow) as engine:
            engine.execute("flow", [Step("a", lambda: {"n": 1})])
        home.prices.write_bytes(b"{}")

        def writer() -> None:
            while not stop.is_set():
                write(home, store, ledger, written[0])
                written[0] += 1
                if written[0] % 10 == 0:
                    ledger.checkpoint()

        thread = threading.Thread(target=writer)
        thread.start()
        try:
            acknowledged = []
            for number in range(3):
                acknowledged.append(written[0])
                report = backups.backup(home, tmp_path / f"backup-{number}")
                assert report.files > 5
                assert "private keys" in report.warning
        finally:
            stop.set()
            thread.join()

    for number, least in enumerate(acknowledged):
        copy = Home(tmp_path / "elsewhere" / str(number))
        backups.restore(tmp_path / f"backup-{number}", copy.root, HERE)
        assert copy.prices.read_bytes() == b"{}"
        assert least <= check(copy) <= written[0]
        with opened(copy) as (store, ledger):
            assert Identity(store, copy.keys, ledger).authenticate(key).name == "administrator"
    with Engine(copy.workflow) as engine:
        assert engine.execute("flow", [Step("a", dict)]) == [{"n": 1}]


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A small backup."""
    with opened(Home(tmp_path / "home")) as (store, ledger):
        write(Home(tmp_path / "home"), store, ledger, 1)
    backups.backup(Home(tmp_path / "home"), tmp_path / "backup")
    return tmp_path / "backup"


def test_a_damaged_backup_is_refused(backup: Path, tmp_path: Path) -> None:
    """A changed, missing or added file; nothing is restored then."""
    for path in [path for path in backup.rglob("*") if path.is_file()]:
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if data else b"x")
        with pytest.raises((IntegrityError, HomeError)):
            backups.restore(backup, tmp_path / "target", HERE)
        path.unlink()
        with pytest.raises((IntegrityError, InputError)):
            backups.restore(backup, tmp_path / "target", HERE)
        path.write_bytes(data)
    (backup / "added").write_text("x")
    with pytest.raises(IntegrityError, match="added"):
        backups.restore(backup, tmp_path / "target", HERE)
    (backup / "added").unlink()

    assert not (tmp_path / "target").exists()
    backups.restore(backup, tmp_path / "target", HERE)
    assert check(Home(tmp_path / "target")) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"home", "backup", "target"}


def test_nothing_is_overwritten(backup: Path, tmp_path: Path) -> None:
    """A path that holds anything is refused, as is a backup within its own home, or of no home."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError):
        backups.restore(backup, tmp_path / "full", HERE)
    with pytest.raises(InputError):
        backups.backup(Home(tmp_path / "home"), tmp_path / "full")
    with pytest.raises(InputError):
        backups.backup(Home(tmp_path / "home"), tmp_path / "home" / "backup")
    with pytest.raises(HomeError):
        backups.backup(Home(tmp_path / "full"), tmp_path / "other")
    with pytest.raises(InputError):
        backups.restore(tmp_path / "full", tmp_path / "other", HERE)

    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "other").exists()


def test_a_full_disk_leaves_no_backup(backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither half of one nor its temporary folder."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        backups.backup(Home(tmp_path / "home"), tmp_path / "other")

    assert {path.name for path in tmp_path.iterdir()} == {"home", "backup"}
