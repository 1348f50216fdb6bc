"""Verification finds every way to change the past."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from bedplate import store as stores
from bedplate.errors import InputError
from bedplate.ledger import Ledger, Signer, merkle, new_key, verify
from bedplate.ledger.ledger import Entry
from bedplate.store import Store
from tests.ledger.conftest import KEY, fill

SIZE = 300
Attack = Callable[[sqlite3.Connection], None]


@pytest.fixture
def kept(store: Store, ledger: Ledger) -> str:
    """A ledger of 300 entries, closed; the checkpoint that an operator kept elsewhere."""
    fill(store, ledger, SIZE)
    ledger.close()
    note = ledger.checkpoint()
    store.close()
    return note


def leaf(entry: bytes) -> bytes:
    """The hash an attacker would put beside a changed entry."""
    return merkle.leaf_hash(entry)


def rehead(db: sqlite3.Connection) -> None:
    """Recompute the tree in the database, as an attacker who knows how it works would."""
    rows = db.execute("SELECT leaf FROM ledger_entries ORDER BY position").fetchall()
    size, frontier = merkle.extend(0, [], [bytes(row[0]) for row in rows])
    db.execute("UPDATE ledger_head SET size = ?, frontier = ?", (size, b"".join(frontier)))


def edit(db: sqlite3.Connection) -> None:
    """Change one entry's text."""
    db.execute("UPDATE ledger_entries SET entry = replace(entry, 'ana', 'eve') WHERE position = 17")


def edit_with_hash(db: sqlite3.Connection) -> None:
    """Change one entry, its hash and the tree."""
    entry = bytes(db.execute("SELECT entry FROM ledger_entries WHERE position = 17").fetchone()[0])
    entry = entry.replace(b"ana", b"eve")
    db.execute("UPDATE ledger_entries SET entry = ?, leaf = ? WHERE position = 17", (entry, leaf(entry)))
    rehead(db)


def delete(db: sqlite3.Connection) -> None:
    """Remove one entry."""
    db.execute("DELETE FROM ledger_entries WHERE position = 17")
    rehead(db)


def delete_and_close_the_gap(db: sqlite3.Connection) -> None:
    """Remove one entry and number the others anew."""
    db.execute("DELETE FROM ledger_entries WHERE position = 17")
    for position in range(18, SIZE):
        db.execute("UPDATE ledger_entries SET position = ? WHERE position = ?", (position - 1, position))
    rehead(db)


def insert(db: sqlite3.Connection) -> None:
    """Append an entry that nobody made, within what was signed, by moving the last one."""
    db.execute("UPDATE ledger_entries SET position = ? WHERE position = ?", (SIZE, SIZE - 1))
    row = db.execute("SELECT leaf, entry, actor, action, resource FROM ledger_entries WHERE position = 3").fetchone()
    db.execute("INSERT INTO ledger_entries VALUES (?, ?, ?, ?, ?, ?)", (SIZE - 1, *row))
    rehead(db)


def swap(db: sqlite3.Connection) -> None:
    """Exchange two entries."""
    for old, new in ((17, -1), (18, 17), (-1, 18)):
        db.execute("UPDATE ledger_entries SET position = ? WHERE position = ?", (new, old))
    rehead(db)


def truncate(db: sqlite3.Connection) -> None:
    """Cut the end off."""
    db.execute("DELETE FROM ledger_payloads WHERE position >= 290")
    db.execute("DELETE FROM ledger_entries WHERE position >= 290")
    rehead(db)


def duplicate(db: sqlite3.Connection) -> None:
    """Repeat an entry in another's place."""
    row = db.execute("SELECT leaf, entry FROM ledger_entries WHERE position = 3").fetchone()
    db.execute("UPDATE ledger_entries SET leaf = ?, entry = ? WHERE position = 4", row)
    rehead(db)


def change_payload(db: sqlite3.Connection) -> None:
    """Change what an entry only commits to."""
    db.execute("UPDATE ledger_payloads SET payload = '{}' WHERE position = 17")


def lose_payload(db: sqlite3.Connection) -> None:
    """Erase a payload without saying so."""
    db.execute("DELETE FROM ledger_payloads WHERE position = 17")


def change_head(db: sqlite3.Connection) -> None:
    """Change what the next append builds on."""
    db.execute("UPDATE ledger_head SET frontier = zeroblob(length(frontier))")


ATTACKS = [
    edit,
    edit_with_hash,
    delete,
    delete_and_close_the_gap,
    insert,
    swap,
    truncate,
    duplicate,
    change_payload,
    lose_payload,
    change_head,
]


def test_an_untouched_ledger_verifies(kept: str, folder: Path, tmp_path: Path) -> None:
    """With and without a kept checkpoint, from a copy of both, from the folder alone."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy / "ledger")
    shutil.copy(folder.with_name("test.db"), copy / "test.db")

    for checkpoint in (None, kept):
        report = verify(copy / "ledger", checkpoint, database=copy / "test.db")
        assert (report.ok, report.entries, report.signed, report.problems) == (True, SIZE, SIZE, ())
    assert verify(copy / "ledger", kept).ok


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_changed_database_is_found_out(attack: Attack, kept: str, folder: Path) -> None:
    """Every change is found, also by somebody who kept no checkpoint: the one in the folder is signed."""
    database = folder.with_name("test.db")
    with sqlite3.connect(database) as db:
        attack(db)
    db.close()

    assert not verify(folder, database=database).ok
    assert not verify(folder, kept, database=database).ok


def test_every_single_entry_is_covered(kept: str, folder: Path) -> None:
    """One changed byte in any entry is found."""
    database = folder.with_name("test.db")
    pristine = database.read_bytes()
    for position in range(0, SIZE, 23):
        with sqlite3.connect(database) as db:
            db.execute(
                "UPDATE ledger_entries SET entry = replace(entry, 'test', 'tast') WHERE position = ?", (position,)
            )
        db.close()
        assert f"entry {position} was changed" in "".join(verify(folder, database=database).problems)
        database.write_bytes(pristine)
    assert verify(folder, database=database).ok


def test_a_rebuilt_ledger_is_found_out(kept: str, folder: Path, tmp_path: Path) -> None:
    """A whole new ledger: with another key the signature tells; with the stolen key the kept checkpoint tells."""
    for key, without_checkpoint in ((new_key("bedplate/test"), False), (KEY, True)):
        forged = tmp_path / f"forged-{without_checkpoint}"
        forged.mkdir()
        (forged / "ledger.pub").write_text(Signer(KEY).public)
        database = stores.open(forged / "test.db")
        ledger = Ledger(database, forged, Signer(key))
        fill(database, ledger, SIZE)
        ledger.close()
        database.close()

        assert verify(forged, database=forged / "test.db").ok is without_checkpoint
        assert not verify(forged, kept, database=forged / "test.db").ok


def test_a_ledger_cut_with_its_folder_is_found_out(store: Store, ledger: Ledger, folder: Path, tmp_path: Path) -> None:
    """Database, tiles and checkpoint set back together: only the kept checkpoint can tell, and does."""
    fill(store, ledger, 20)
    ledger.checkpoint()
    shutil.copytree(folder, tmp_path / "old")
    with store.transaction() as tx:
        tx.after_commit(lambda: None)
    with sqlite3.connect(folder.with_name("test.db")) as source, sqlite3.connect(tmp_path / "old.db") as target:
        source.backup(target)
    source.close()
    target.close()
    fill(store, ledger, 5)
    kept = ledger.checkpoint()

    assert verify(tmp_path / "old", database=tmp_path / "old.db").ok
    assert not verify(tmp_path / "old", kept, database=tmp_path / "old.db").ok


def test_every_file_of_the_folder_is_covered(kept: str, folder: Path) -> None:
    """One flipped bit in any tile, bundle of entries or checkpoint, or a missing file, is found."""
    for path in [p for p in folder.rglob("*") if p.is_file() and p.name != "ledger.pub"]:
        data = path.read_bytes()
        for place in (0, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            assert not verify(folder, database=folder.with_name("test.db")).ok, (path, place)
        path.write_bytes(data[: len(data) // 2])
        assert not verify(folder, database=folder.with_name("test.db")).ok, path
        path.unlink()
        assert not verify(folder, database=folder.with_name("test.db")).ok, path
        path.write_bytes(data)
    assert verify(folder, database=folder.with_name("test.db")).ok


def test_two_heads_of_one_size_are_found_out(kept: str, folder: Path, tmp_path: Path) -> None:
    """The owner signed another tree of the same size: whoever kept the first note has the proof."""
    forked = Signer(KEY).sign(SIZE, b"\x00" * 32)

    assert not verify(folder, forked, database=folder.with_name("test.db")).ok


def test_naming_no_ledger_is_an_input_error(tmp_path: Path) -> None:
    """A wrong path is told apart from a damaged ledger."""
    with pytest.raises(InputError):
        verify(tmp_path)
    with pytest.raises(InputError):
        verify(tmp_path, tmp_path / "no-note")


def test_entries_are_what_the_specification_lists() -> None:
    """Index, time, actor, auth method, action, resource, decision, policies, request, purpose, salted hash."""
    assert set(Entry.__struct_fields__) == {
        *("index", "time", "actor", "auth", "action", "resource"),
        *("decision", "policies", "request_id", "purpose", "payload"),
    }
