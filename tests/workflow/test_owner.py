"""One owner per home."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bedplate.errors import HomeError, StorageError
from bedplate.settings import Home
from bedplate.workflow import owner
from bedplate.workflow.owner import Owner

_HOLD = """
import sys, time
from pathlib import Path
from bedplate.settings import Home
from bedplate.workflow.owner import Owner
with Owner(Home(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_owner_is_refused_and_told_who_owns(tmp_path: Path) -> None:
    """Within one process and, below, between two."""
    home = Home(tmp_path)
    with Owner(home):
        with pytest.raises(HomeError, match=f"process {os.getpid()} "), Owner(home):
            pass
        holder = owner.current(home)
        assert holder is not None
        assert holder.pid == os.getpid()
    assert owner.current(home) is None
    with Owner(home):
        pass


def test_a_killed_owner_holds_nothing(tmp_path: Path) -> None:
    """While it lives its home is taken; after kill -9 it is free at once, whatever the file says."""
    home = Home(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(HomeError, match=f"process {process.pid} ") as raised, Owner(home):
        pass
    assert raised.value.fix
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    assert owner.current(home) is None
    with Owner(home):
        pass


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    """No folder, no lock; nobody owns it."""
    assert owner.current(Home(tmp_path / "none")) is None
    with pytest.raises(StorageError), Owner(Home(tmp_path / "none")):
        pass
