import subprocess
import sys
from pathlib import Path

import pytest

from bedplate.data.tables import Tables
from tests import syscalls
from tests.data.refused_writer import WRITES, rows
from tests.forked import Program
from tests.serve.support import eventually

SCRIPT = str(Path(__file__).with_name("full_disk.py"))
WRITER = Path(__file__).with_name("refused_writer.py")
MOUNT = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" "$3" "$1" tmpfs'


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


def test_a_file_over_the_limit_is_a_storage_error_with_nothing_half_done(tmp_path: Path) -> None:
    done = _run(sys.executable, SCRIPT, str(tmp_path), "limited")
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout


def test_a_full_disk_is_named_with_nothing_half_done(tmp_path: Path) -> None:
    if _run("unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)).returncode:
        pytest.skip("this machine does not let a user mount a small disk")
    done = _run("unshare", "-rm", "sh", "-c", MOUNT, "sh", str(tmp_path), sys.executable, SCRIPT)
    assert done.returncode == 0, done.stderr
    assert "the disk is full" in done.stdout


@pytest.mark.parametrize(
    "what",
    [
        "fsync:error=EIO:when=3+7",  # each write has five in its thread: every one of them is met
        "fsync:error=ENOSPC:when=1",  # that of each file of rows
        "rename:error=ENOSPC:when=1+2",
        "link,linkat:error=ENOSPC:when=1+2",  # how a commit gets its name
        "unlink:error=EIO:when=1+2",
    ],
)
def test_a_disk_that_refuses_any_call_leaves_what_was_before_or_after(what: str, tmp_path: Path) -> None:
    writer = Program(WRITER, tmp_path)
    try:
        assert writer.stdout.readline() == "ready\n"
        with syscalls.refusing(writer.pid, what):
            (tmp_path / "begin").touch()
            eventually(lambda: (tmp_path / "over").exists())
        (tmp_path / "end").touch()
        code, said, errors = writer.end()
    finally:
        writer.close()
    assert code == 0, errors
    told = dict(line.split() for line in said.splitlines())
    assert len(told) == WRITES - 1
    tables = Tables(tmp_path / "tables")
    there = tables.scan(tables.current("t")).read_all()["write"].to_pylist()
    assert len(there) == 3 * len(set(there))
    assert set(there) >= {0, *(int(number) for number, how in told.items() if how == "acknowledged")}
    for number in range(WRITES):  # it goes on, and what was refused is written once by its key
        tables.write("t", rows(number), mode="append", key=str(number))
    assert tables.current("t").rows == 3 * WRITES
    assert tables.verify("t").sound
    tables.collect("t")
    assert len(list(tmp_path.rglob("*.parquet"))) == WRITES
