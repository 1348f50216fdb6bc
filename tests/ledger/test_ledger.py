"""Appending: in the change's own transaction, signed in time, taken up after a crash."""

from pathlib import Path

import pytest

from bedplate.errors import InputError, IntegrityError, NotFoundError, StorageError
from bedplate.ledger import Ledger, Signer, Verifier, merkle, verify
from bedplate.ledger import ledger as module
from bedplate.store import Store
from tests.ledger.conftest import KEY, fill


def note_size(folder: Path) -> int:
    """How many entries are signed."""
    return Verifier(Signer(KEY).public).open((folder / "checkpoint").read_text(), "").size


def test_an_entry_says_who_did_what(store: Store, ledger: Ledger) -> None:
    """Everything given is kept; the payload apart."""
    with store.transaction() as tx:
        index = ledger.record(
            tx,
            actor="prn_1",
            action="model.approve",
            resource="use_case/shop",
            decision="deny",
            payload={"reason": "no"},
            auth="session",
            policies=["p1", "p2"],
            request_id="req_1",
            purpose="audit",
        )
        entry, payload = ledger.entry(tx, index)

    assert payload == {"reason": "no"}
    assert entry.index == 0
    assert (entry.actor, entry.auth, entry.action, entry.resource) == (
        "prn_1",
        "session",
        "model.approve",
        "use_case/shop",
    )
    assert (entry.decision, entry.policies, entry.request_id, entry.purpose) == ("deny", ("p1", "p2"), "req_1", "audit")


def test_an_undone_change_leaves_no_entry(store: Store, ledger: Ledger, folder: Path) -> None:
    """Entry and change are one transaction: neither without the other."""
    fill(store, ledger, 3)

    def fail() -> None:
        with store.transaction() as tx:
            ledger.record(tx, actor="ana", action="x", resource="y")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    fill(store, ledger, 1)

    assert verify(folder, ledger.checkpoint(), database=store).entries == 4


def test_a_change_that_cannot_be_recorded_does_not_happen(store: Store, ledger: Ledger) -> None:
    """The ledger's table refuses: the change beside it is undone."""
    with store.transaction() as tx:
        tx._connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON ledger_entries BEGIN SELECT RAISE(ABORT, 'read only'); END"
        )

    def change() -> None:
        with store.transaction() as tx:
            tx.facts.put("kind", "shop", {})
            ledger.record(tx, actor="ana", action="x", resource="y")

    with pytest.raises(Exception, match="read only"):
        change()
    with store.read() as tx:
        assert tx.facts.list("shop", "kind") == []


def test_an_entry_too_long_is_refused(store: Store, ledger: Ledger) -> None:
    """A user cannot grow an entry without bound; a payload may be long."""
    with store.transaction() as tx:
        ledger.record(tx, actor="ana", action="x", resource="y", payload={"long": "x" * 100_000})
    with pytest.raises(InputError), store.transaction() as tx:
        ledger.record(tx, actor="ana", action="x", resource="y" * 40_000)


def test_signed_after_256_entries(store: Store, ledger: Ledger, folder: Path) -> None:
    """Nobody has to ask for it, and nobody waits for it."""
    fill(store, ledger, 255)
    assert note_size(folder) == 0

    with ledger._lock:  # while it is being signed, others append
        fill(store, ledger, 2)
        assert ledger._timer is not None
        waiting = ledger._timer
    waiting.join(10)

    assert note_size(folder) == 257


def test_what_cannot_be_signed_fails_no_change(
    store: Store, ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in the log, and signed with what is appended next."""
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", _full)
        patched.setattr(module, "CHECKPOINT_SECONDS", 0.01)
        fill(store, ledger, 1)
        timer = ledger._timer
        if timer is not None:
            timer.join(10)
    assert note_size(folder) == 0
    assert "could not be signed" in caplog.text

    ledger.checkpoint()

    assert note_size(folder) == 1


def test_signed_after_a_while(store: Store, ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single entry is signed within the interval."""
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.05)
    fill(store, ledger, 1)
    assert ledger._timer is not None

    ledger._timer.join(10)

    assert note_size(folder) == 1


def test_signed_when_closed(store: Store, ledger: Ledger, folder: Path) -> None:
    """And what a crash left unsigned is signed by the next start."""
    fill(store, ledger, 5)
    ledger.close()
    assert note_size(folder) == 5
    fill(store, ledger, 2)

    Ledger(store, folder, Signer(KEY))

    assert note_size(folder) == 7


def test_70_000_entries(store: Store, ledger: Ledger, folder: Path) -> None:
    """The layout of the specification: three levels of tiles, and the proofs read from them."""
    leaves = [merkle.leaf_hash(b"%d" % i) for i in range(70_000)]
    tiles = ledger._tiles
    tiles.append(0, leaves[:1000], [b"x"] * 1000)
    tiles.append(1000, leaves[1000:], [b"x"] * 69_000)
    root = merkle.frontier_root(merkle.extend(0, [], leaves)[1])
    names = {str(path.relative_to(folder / "tile")) for path in (folder / "tile").rglob("*") if path.is_file()}

    assert {"0/000", "0/272", "0/273.p/112", "1/000", "1/001.p/17", "2/000.p/1"} <= names
    assert "0/000.p" not in {name.rpartition("/")[0] for name in names}
    for index in (0, 255, 256, 65_535, 65_536, 69_999):
        proof = merkle.inclusion_proof(index, 70_000, tiles.node(70_000))
        assert merkle.verify_inclusion(index, 70_000, leaves[index], proof, root)


def test_proofs_come_with_the_checkpoint_they_are_of(store: Store, ledger: Ledger) -> None:
    """Somebody with the note, the proof and the entry needs nothing else."""
    fill(store, ledger, 300)
    before = Verifier(Signer(KEY).public).open(ledger.checkpoint(), "")
    fill(store, ledger, 41)
    note, proof = ledger.prove(299)
    _, consistency = ledger.prove_consistency(300)
    after = Verifier(Signer(KEY).public).open(note, "")
    with store.read() as tx:
        leaf = tx.ledger.leaves(299, 300)[0]

    assert merkle.verify_inclusion(299, after.size, leaf, proof, after.root)
    assert merkle.verify_consistency(300, after.size, before.root, after.root, consistency)


def test_an_erased_payload_is_gone_and_everything_verifies(store: Store, ledger: Ledger, folder: Path) -> None:
    """The erasure is an entry itself; erasing twice is refused."""
    fill(store, ledger, 10)
    kept = ledger.checkpoint()
    with store.transaction() as tx:
        ledger.erase(tx, 4, actor="ana", reason="asked for")
    with pytest.raises(NotFoundError), store.transaction() as tx:
        ledger.erase(tx, 4, actor="ana", reason="again")
    with store.read() as tx:
        entry, payload = ledger.entry(tx, 4)
    report = verify(folder, kept, database=store)

    assert payload is None
    assert entry.resource == "thing/4"
    assert (report.ok, report.erased, report.unsigned) == (True, 1, 1)


def test_a_database_set_back_is_never_signed_over(store: Store, ledger: Ledger, folder: Path) -> None:
    """What was signed stays the past: a database cut or restored to an older state stops the ledger."""
    fill(store, ledger, 10)
    ledger.close()
    with store.transaction() as tx:
        for table in ("ledger_payloads", "ledger_entries"):
            tx._connection.exec_driver_sql(f"DELETE FROM {table} WHERE position >= 5")
        _, frontier = merkle.extend(0, [], tx.ledger.leaves(0, 5))
        tx._connection.exec_driver_sql("UPDATE ledger_head SET size = 5, frontier = ?", (b"".join(frontier),))

    with pytest.raises(IntegrityError, match="does not continue"):
        Ledger(store, folder, Signer(KEY))


def test_a_missing_checkpoint_or_tile_stops_the_ledger(store: Store, ledger: Ledger, folder: Path) -> None:
    """A removed file is noticed at the next start, not signed over."""
    fill(store, ledger, 10)
    ledger.close()
    tile = next((folder / "tile" / "0").rglob("10"))
    data = tile.read_bytes()
    tile.unlink()
    fill(store, ledger, 1)
    with pytest.raises(IntegrityError, match="missing"):
        Ledger(store, folder, Signer(KEY))
    tile.parent.mkdir(exist_ok=True)
    tile.write_bytes(data)
    (folder / "checkpoint").unlink()
    with pytest.raises(IntegrityError, match="missing"):
        Ledger(store, folder, Signer(KEY))


def test_a_full_disk_stops_the_checkpoint_not_the_record(
    store: Store, ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is in the database; the checkpoint is written when there is space again."""
    fill(store, ledger, 3)
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", _full)
        with pytest.raises(StorageError):
            ledger.checkpoint()

    ledger.checkpoint()

    assert verify(folder, database=store).signed == 3


def _full(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")
