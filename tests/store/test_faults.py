"""What goes wrong with a database file is told, and leaves nothing half done."""

import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bedplate import store as stores
from bedplate.errors import StorageError, UnavailableError
from bedplate.store import Store
from tests.forked import Program

_WRITER = """
import sys
from pathlib import Path
from bedplate import store
opened = store.open(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 1 << 30):
    with opened.transaction() as tx:
        fact = tx.facts.put("write", "shop", {"number": number})
        tx.stages.finish("shop", f"stage-{number}", fact.digest, {}, fact.digest, 0.0)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with one fact."""
    opened = stores.open(tmp_path / "test.db")
    with opened.transaction() as tx:
        tx.facts.put("kind", "shop", {"text": "x" * 2000})
    opened.close()
    return tmp_path / "test.db"


def put(store: Store, size: int) -> None:
    """Put a fact of some size."""
    with store.transaction() as tx:
        tx.facts.put("kind", "shop", {"text": "y" * size})


def test_only_the_owner_can_read(path: Path) -> None:
    """The file and its log have mode 0600."""
    opened = stores.open(path)
    put(opened, 1)

    for name in (path, Path(f"{path}-wal")):
        assert stat.S_IMODE(name.stat().st_mode) == 0o600
    opened.close()


def test_the_file_is_set_for_acknowledged_writes(path: Path) -> None:
    """Write-ahead log, synced at each commit, foreign keys enforced."""
    opened = stores.open(path)
    with opened.read() as tx:
        found = [
            tx._connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    opened.close()

    assert found == ["wal", 2, 1]


def test_a_full_disk(path: Path) -> None:
    """The write fails as a whole, says so, and the next succeeds once there is space."""
    opened = stores.open(path)
    with opened.transaction() as tx:
        pages = tx._connection.exec_driver_sql("PRAGMA page_count").scalar()
        tx._connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageError, match="full") as raised:
        put(opened, 1_000_000)
    assert (raised.value.where, raised.value.http_status) == (str(path), 507)
    assert raised.value.fix
    with opened.transaction() as tx:
        tx._connection.exec_driver_sql("PRAGMA max_page_count=1000000")

    put(opened, 1_000_000)

    with opened.read() as tx:
        assert len(tx.facts.list("shop", "kind")) == 2
    opened.close()


def test_a_locked_file(path: Path) -> None:
    """Another writer that does not end is waited for, then told."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    opened = stores.open(path, wait=0.1)
    with pytest.raises(UnavailableError, match="another process"):
        put(opened, 1)
    other.execute("ROLLBACK")
    other.close()

    put(opened, 1)
    opened.close()


@pytest.mark.parametrize("content", [b"no database at all, " * 200, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    """It is not overwritten, and the error says to restore."""
    path = tmp_path / "test.db"
    path.write_bytes(content)

    with pytest.raises(StorageError, match="damaged") as raised:
        stores.open(path)

    assert "restore" in (raised.value.fix or "")
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(StorageError) as raised:
        stores.open(tmp_path / "none" / "test.db")

    assert raised.value.where == str(tmp_path / "none" / "test.db")


def test_opening_read_only_makes_nothing(tmp_path: Path, path: Path) -> None:
    """A copy can be read without being changed."""
    with pytest.raises(StorageError):
        stores.open(tmp_path / "none.db", read_only=True)
    assert not (tmp_path / "none.db").exists()
    opened = stores.open(path, read_only=True)
    with opened.read() as tx:
        assert len(tx.facts.list("shop", "kind")) == 1
    with pytest.raises(StorageError):
        put(opened, 1)
    opened.close()


def test_alembic_is_loaded_only_to_migrate(path: Path) -> None:
    """A database at the newest version opens without it."""
    code = "import sys; from bedplate import store; store.open(sys.argv[1]).close(); print('alembic' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def kill_writers(path: Path, kills: int) -> int:
    """Kill a writer again and again at moments spread over its writes; returns how many writes it acknowledged."""
    acknowledged, there = -1, 0
    for kill in range(kills):
        process = Program(_WRITER, path, there)
        for _ in range(1 + kill * 7 % 23):
            acknowledged = int(process.stdout.readline())
        process.kill()
        said = process.end()[1].split("\n")[:-1]
        acknowledged = int(said[-1]) if said else acknowledged
        opened = stores.open(path)
        with opened.read() as tx:
            # What lies further back was checked after an earlier kill.
            numbers = [fact.body["number"] for fact in tx.facts.list("shop", "write", 300)]
            finished = [tx.stages.latest("shop", f"stage-{number}") for number in numbers]
        opened.close()
        # Everything acknowledged is there once, in order; at most the one write under way beside it; whole or not.
        there = numbers[0] + 1
        assert numbers == list(range(max(0, there - 300), there))[::-1]
        assert acknowledged + 1 <= there <= acknowledged + 2
        assert None not in finished
    return acknowledged + 1


def test_killed_writers_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    """20 times kill -9: no acknowledged write lost or doubled, none half there."""
    assert kill_writers(tmp_path / "test.db", 20) > 200


@pytest.mark.crash
@pytest.mark.timeout(1800)
def test_killed_writers_lose_nothing_in_a_long_sweep(tmp_path: Path) -> None:
    """500 times."""
    assert kill_writers(tmp_path / "test.db", 500) > 5000
