import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bedplate.data.folder import open_folder, storage_options_of
from bedplate.data.tables import Tables
from bedplate.errors import StorageError
from tests import syscalls
from tests.data.refused_writer import rows
from tests.forked import Program
from tests.serve.support import eventually

SCRIPT = str(Path(__file__).with_name("full_disk.py"))
WRITER = Path(__file__).with_name("refused_writer.py")
WRITES = 16
MOUNT = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" "$3" "$1" tmpfs'


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


class _Refusing(BaseHTTPRequestHandler):
    """A store that knows who asks, and lets nobody change or see anything."""

    def _refuse(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _refuse  # noqa: N815 -- names of the class above

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


@pytest.mark.parametrize("call", ["put", "get", "size", "files", "children", "delete"])
def test_a_store_that_refuses_is_a_storage_error(call: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        options = {"endpoint": f"http://127.0.0.1:{server.server_address[1]}", "access_key_id": "a"}
        options |= {"secret_access_key": "b", "region": "r"}
        folder = open_folder("s3://bucket/tables", storage_options_of("s3://bucket/tables", options))
        arguments = {"put": ("a", b"b"), "children": ()}.get(call, ("a",))
        with pytest.raises(StorageError) as caught:
            getattr(folder, call)(*arguments)
        assert "s3://bucket/tables" in str(caught.value)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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


@contextmanager
def _writing(folder: Path, writes: int) -> Iterator[Program]:
    """A writer that waits to begin, and is told to end after the block; it writes down what it ``said``."""
    writer = Program(WRITER, folder, writes)
    try:
        assert writer.stdout.readline() == "ready\n"
        yield writer
        (folder / "end").touch()
        code, said, errors = writer.end()
        assert code == 0, errors
        (folder / "said").write_text(said)
    finally:
        writer.close()


def test_a_write_is_on_disk_when_it_is_acknowledged(tmp_path: Path) -> None:
    """Rows and their names before the commit; commit, its name, and the note of it before the answer."""
    log = tmp_path / "log"
    with _writing(tmp_path, 2) as writer, syscalls.traced(writer.pid, log, "link", "linkat", "mkdir"):
        (tmp_path / "begin").touch()
        eventually(lambda: (tmp_path / "over").exists())
    made = syscalls.calls(log.read_text().splitlines())
    answered = next(call.begun for call in made if call.name == "mkdir" and call.texts[0].endswith(b"/over"))
    synced = [call for call in made if call.name in ("fsync", "fdatasync") and call.result == 0]
    named = {}
    for call in made:
        if call.name in ("rename", "link", "linkat") and call.result == 0:
            names = [Path(text.decode()) for text in call.texts]
            named[names[-1].name[-7:]] = call, names
    assert set(named) == {"parquet", "01.json", "wledged"}
    committed = named["01.json"][0].begun
    for what, (call, names) in named.items():
        until = committed if what == "parquet" else answered
        assert any(each.file in map(str, names) and each.ended < until for each in synced)
        assert any(each.file == str(names[-1].parent) and call.ended < each.begun < until for each in synced)


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
    with _writing(tmp_path, WRITES) as writer, syscalls.refusing(writer.pid, what):
        (tmp_path / "begin").touch()
        eventually(lambda: (tmp_path / "over").exists())
    said = (tmp_path / "said").read_text()
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
