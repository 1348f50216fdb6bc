"""A home is made whole or not at all."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bedplate.app import home as homes
from bedplate.errors import HomeError, StorageError
from bedplate.settings import Home

# Dies at the given durable write, or goes through.
_MAKER = """
import os, signal, sys
from pathlib import Path
from bedplate import files
from bedplate.app import home
from bedplate.settings import Home
left, write = int(sys.argv[2]), files.write
def counted(*arguments, **named):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments, **named)
files.write = counted
home.create_or_open(Home(Path(sys.argv[1])))
"""


def test_a_new_home_is_private_and_stays_the_same(tmp_path: Path) -> None:
    """Folders 0700, secrets 0600; opening again changes nothing."""
    home = Home(tmp_path / "deep" / "home")
    first = homes.create_or_open(home)
    again = homes.create_or_open(home)

    assert first.new
    assert not again.new
    assert (first.id, first.created, first.journal_salt) == (again.id, again.created, again.journal_salt)
    assert first.ledger_key.public == again.ledger_key.public
    assert first.signing_key.exists()
    assert first.signing_public.exists()
    for path in [home.root, *home.root.iterdir()]:
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for name in ("ledger.key", "signing.key", "journal.salt"):
        assert stat.S_IMODE((home.keys / name).stat().st_mode) == 0o600
    assert not (home.root / ".making").exists()


def test_an_empty_folder_becomes_a_home(tmp_path: Path) -> None:
    """It need not be missing."""
    assert homes.create_or_open(Home(tmp_path)).new


def test_many_that_make_it_at_once_get_one_home(tmp_path: Path) -> None:
    """All see the same keys."""
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: homes.create_or_open(Home(tmp_path / "home")), range(8)))

    assert len({each.id for each in opened}) == 1
    assert len({each.journal_salt for each in opened}) == 1


@pytest.mark.long
def test_a_home_killed_while_it_was_made_heals(tmp_path: Path) -> None:
    """At every write: the next start makes it whole."""
    home, deaths, done = Home(tmp_path / "home"), 0, 1
    while done != 0:
        deaths += 1
        command = [sys.executable, "-c", _MAKER, str(home.root), str(deaths)]
        done = subprocess.run(command, check=False, env=dict(os.environ)).returncode
        assert done in (0, -signal.SIGKILL)
        assert home.manifest.exists() is (done == 0)

    assert deaths >= 5
    assert not homes.create_or_open(home).new


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    """One with other things in it, or a file, is refused and not touched."""
    (tmp_path / "thesis.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(HomeError) as raised:
            homes.create_or_open(Home(path))
        assert "BEDPLATE_HOME" in (raised.value.fix or "")

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ['{"format":2,"id":"home_x","created":"x"}', "{", "[]", ""])
def test_another_format_or_a_damaged_manifest_is_refused(tmp_path: Path, content: str) -> None:
    """Nothing is guessed, nothing is changed."""
    home = Home(tmp_path / "home")
    homes.create_or_open(home)
    home.manifest.write_text(content)

    with pytest.raises(HomeError) as raised:
        homes.create_or_open(home)

    assert raised.value.where == str(home.manifest)
    assert home.manifest.read_text() == content


@pytest.mark.parametrize("name", ["ledger.key", "signing.key", "journal.salt"])
def test_a_key_that_is_lost_or_open_is_told(tmp_path: Path, name: str) -> None:
    """A new key in its place would be another identity."""
    home = Home(tmp_path / "home")
    homes.create_or_open(home)
    (home.keys / name).chmod(0o644)
    with pytest.raises(HomeError, match="others can read"):
        homes.create_or_open(home)
    (home.keys / name).unlink()
    with pytest.raises(HomeError, match="missing"):
        homes.create_or_open(home)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is clear, and the next start with space makes the home."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(StorageError, match="No space left") as raised:
            homes.create_or_open(Home(tmp_path / "home"))
        assert raised.value.fix

    assert homes.create_or_open(Home(tmp_path / "home")).new
