"""A template forks limited processes, comes again when it is gone, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bedplate.data.parsing.template import TEMPLATE
from bedplate.data.sources import Opened, opened
from bedplate.errors import ContractError
from bedplate.isolation.template import shared_memory
from bedplate.usecase.types import Source
from tests.serve.support import eventually

OWNER = """
import os, sys, time
from pathlib import Path
from bedplate.data.sources import opened
from bedplate.data.parsing.template import TEMPLATE
from bedplate.usecase.types import Source
with opened(Source(kind="parquet", path="n.parquet"), Path(sys.argv[1])) as files:
    files.total()
    print(TEMPLATE._running.process.pid, files._worker.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"n": [1, 2, 3]}), tmp_path / "n.parquet")
    return tmp_path


def _there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _total(folder: Path) -> int | None:
    with opened(Source(kind="parquet", path="n.parquet"), folder) as files:
        return files.total()


def test_nothing_outlives_an_owner_that_is_killed(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert all(map(_there, pids))
        owner.kill()
    eventually(lambda: not any(map(_there, pids)))


def test_a_template_that_was_killed_takes_its_forks_along_and_comes_again(folder: Path) -> None:
    with opened(Source(kind="parquet", path="n.parquet"), folder) as files:
        assert files.total() == 3
        running, worker = TEMPLATE._running, files._worker
        assert running is not None
        assert worker is not None
        os.kill(running.process.pid, signal.SIGKILL)
        eventually(lambda: worker.ended())
        with pytest.raises(ContractError, match="cannot be read"):
            files.total()
        eventually(lambda: not _there(worker.pid))
    assert _total(folder) == 3


def test_what_was_forked_is_confined_and_holds_nothing_of_another(folder: Path) -> None:
    def isolation(files: Opened) -> tuple[int, list[str]]:
        assert files.total() == 3
        assert files._worker is not None
        assert files._worker.isolation.isolated
        links = [os.readlink(path).partition(":")[0] for path in Path(f"/proc/{files._worker.pid}/fd").iterdir()]
        return files._worker.pid, sorted(links)

    source = Source(kind="parquet", path="n.parquet")
    with opened(source, folder) as one, opened(source, folder) as other:
        (first, held), (second, also) = isolation(one), isolation(other)
    assert first != second
    assert held == also == ["/memfd", "/memfd", "pipe", "pipe", "socket", "socket"]
    eventually(lambda: not _there(first) and not _there(second))


def test_nobody_changes_the_size_of_shared_memory() -> None:
    file = shared_memory(4096)
    for size in (0, 8192):
        with pytest.raises(PermissionError):
            os.ftruncate(file, size)
    os.close(file)
