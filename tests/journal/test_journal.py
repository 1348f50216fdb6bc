"""Segments: what was acknowledged stays, what was torn is told apart, and a seal means what it says."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError, IntegrityError, StorageError
from bedplate.ids import digest_bytes
from bedplate.journal import Backlog, Writer, read, recover, segments
from tests.serve.support import eventually


def everything(folder: Path) -> list[bytes]:
    return [record for segment in segments(folder) for record in read(segment)]


def test_records_come_back_in_order_and_the_seal_names_them(tmp_path: Path) -> None:
    with Writer(tmp_path, "durable") as writer:
        for number in range(20):
            writer.append(b"%d" % number)

    (segment,) = segments(tmp_path, sealed_only=True)
    assert list(read(segment)) == [b"%d" % number for number in range(20)]
    data = segment.path.read_bytes()
    assert (segment.count, segment.digest) == (20, digest_bytes(data[: data.rindex(b"\xff\xff\xff\xff")]))


def test_a_durable_append_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "durable")
    writer.append(b"now")

    assert everything(tmp_path) == [b"now"]
    writer.close()


def test_a_buffered_append_reaches_the_disk_within_a_second(tmp_path: Path) -> None:
    with Writer(tmp_path, "buffered", flush_seconds=0.05) as writer:
        writer.append(b"soon")
        writer.flush()
        assert everything(tmp_path) == [b"soon"]


def test_a_writer_that_has_nothing_to_do_sleeps_until_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float | None] = []
    wait = threading.Condition.wait

    def noted(condition: threading.Condition, timeout: float | None = None) -> bool:
        if threading.current_thread().name == "journal":
            slept.append(timeout)
        return wait(condition, timeout)

    monkeypatch.setattr(threading.Condition, "wait", noted)
    with Writer(tmp_path, "buffered", flush_seconds=0.001, sync_seconds=0.001, seal_seconds=1e6) as writer:
        eventually(lambda: slept == [None])
        for number in range(3):
            writer.append(b"%d" % number)
            eventually(lambda: len(everything(tmp_path)) == number + 1)  # noqa: B023  it is asked in this turn
            eventually(lambda: (slept[-1] or 0.0) > 1e5)  # synced as well: until it is to be sealed
        writer.seal()
        eventually(lambda: slept[-1] is None)
    assert everything(tmp_path) == [b"0", b"1", b"2"]


def test_segments_are_sealed_by_size_and_on_demand(tmp_path: Path) -> None:
    with Writer(tmp_path, "durable", seal_bytes=2000) as writer:
        for _ in range(10):
            writer.append(b"x" * 1000)
        writer.append(b"last")
        writer.seal()
        assert all(segment.sealed for segment in segments(tmp_path))
        assert len(segments(tmp_path)) > 3
    assert len(everything(tmp_path)) == 11


def test_a_segment_that_is_sealed_after_it_was_listed_is_read(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "durable")
    writer.append(b"one")
    (listed,) = segments(tmp_path)
    writer.close()

    assert not listed.sealed
    assert list(read(listed)) == [b"one"]


def test_an_unused_writer_leaves_nothing(tmp_path: Path) -> None:
    Writer(tmp_path).close()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("record", [b""])
def test_records_have_bounds(tmp_path: Path, record: bytes) -> None:
    with Writer(tmp_path) as writer, pytest.raises(InputError):
        writer.append(record)
    with pytest.raises(StorageError, match="closed"):
        writer.append(b"late")


def test_many_threads_share_one_sync(tmp_path: Path) -> None:
    with Writer(tmp_path, "durable") as writer:
        threads = [
            threading.Thread(target=lambda n=n: [writer.append(b"%d-%d" % (n, i)) for i in range(25)]) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(everything(tmp_path)) == sorted(b"%d-%d" % (n, i) for n in range(8) for i in range(25))


def abandoned(folder: Path, count: int = 5) -> Path:
    """An open segment as kill -9 leaves it."""
    code = (
        "import os, pathlib, sys; from bedplate.journal import Writer; w = Writer(pathlib.Path(sys.argv[1]));"
        "[w.append(b'record %d' % i) for i in range(int(sys.argv[2]))]; os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), str(count)], check=False)
    (path,) = folder.glob("*.open")
    return path


@given(st.data())
def test_a_torn_tail_never_passes_as_data(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("journal")
    whole = _ABANDONED or _ABANDONED.setdefault("bytes", abandoned(tmp_path_factory.mktemp("source")).read_bytes())
    raw = whole["bytes"] if isinstance(whole, dict) else whole
    cut = data.draw(st.integers(0, len(raw)))
    tail = data.draw(st.sampled_from([b"", b"\0" * 40, b"\xff" * 40, os.urandom(40)]))
    (folder / "seg_0.open").write_bytes(raw[:cut] + tail)

    recover(folder)

    found = everything(folder)
    assert found == [b"record %d" % i for i in range(len(found))]
    if cut == len(raw):
        assert len(found) == 5
    kept = b"".join(path.read_bytes() for path in folder.glob("*.torn"))
    assert bool(kept) <= bool(cut < len(raw) or tail)


_ABANDONED: dict[str, bytes] = {}


def test_recovery_seals_what_a_killed_writer_left_and_keeps_its_hands_off_the_living(tmp_path: Path) -> None:
    abandoned(tmp_path)
    with Writer(tmp_path) as first:
        first.append(b"alive")
        Writer(tmp_path).close()
        assert len([s for s in segments(tmp_path) if not s.sealed]) == 1
        first.append(b"still")

    assert everything(tmp_path) == [*(b"record %d" % i for i in range(5)), b"alive", b"still"]


@given(st.data())
def test_any_flipped_bit_in_a_sealed_segment_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    with Writer(folder) as writer:
        for number in range(3):
            writer.append(b"record %d" % number)
    (segment,) = segments(folder)
    raw = bytearray(segment.path.read_bytes())
    position = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[position // 8] ^= 1 << position % 8
    segment.path.write_bytes(raw)

    with pytest.raises(IntegrityError):
        list(read(segments(folder)[0]))


def test_kill_9_loses_and_doubles_no_acknowledged_record(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from bedplate.journal import Writer; w = Writer(pathlib.Path(sys.argv[1]), 'durable')\n"
        "for i in range(100000):\n"
        " r = b'%s-%d' % (sys.argv[2].encode(), i); w.append(r); sys.stdout.buffer.write(r + b'\\n');"
        " sys.stdout.buffer.flush()"
    )
    acknowledged: list[bytes] = []
    for run in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), f"run{run}"], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            for _ in range(7 + run * 5):
                acknowledged.append(process.stdout.readline().strip())
            process.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in process.stdout if line.endswith(b"\n")]
    recover(tmp_path)

    found = everything(tmp_path)
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    assert len(found) - len(acknowledged) <= 5  # on disk, and killed before it could say so


def test_a_full_disk_is_told_and_then_forgotten(tmp_path: Path) -> None:
    code = """
import pathlib, resource, signal, sys
from bedplate.errors import StorageError
from bedplate.journal import Writer, segments, read
import bedplate.journal.writer as w
import os, errno
folder = pathlib.Path(sys.argv[1])
real = os.pwrite
full = [False]
def limited(fd, data, offset):
    if full[0]:
        real(fd, bytes(data)[:3], offset)
        raise OSError(errno.ENOSPC, "No space left on device")
    return real(fd, data, offset)
os.pwrite = limited
writer = Writer(folder, "durable")
writer.append(b"one")
full[0] = True
try:
    writer.append(b"two")
except StorageError as error:
    print(error.fix)
full[0] = False
writer.append(b"three")
writer.close()
print([r.decode() for s in segments(folder) for r in read(s)])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)

    assert done.stdout.split("\n")[:2] == ["free disk space", "['one', 'three']"]


def appending(folder: Path, code: str) -> "subprocess.Popen[bytes]":
    """A process with a buffered ``writer`` that writes all the time and never syncs by itself; it is to be killed."""
    start = (
        "import os, pathlib, sys; from bedplate.journal import Backlog, Writer, read, segments\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "writer = Writer(folder, 'buffered', flush_seconds=0.001, sync_seconds=1e9)\n"
        "writer.append(b'0'); writer.flush()\n"
    )
    return subprocess.Popen([sys.executable, "-c", start + code, str(folder)], stdout=subprocess.PIPE)


def test_what_was_written_and_not_synced_outlives_its_process(tmp_path: Path) -> None:
    code = """
for number in range(1, 1000):
    writer.append(b'%d' % number)
while sum(1 for segment in segments(folder) for _ in read(segment)) < 1000:
    pass
os.kill(os.getpid(), 9)
"""
    with appending(tmp_path, code) as process:
        assert process.wait(30) == -signal.SIGKILL
    recover(tmp_path)

    assert everything(tmp_path) == [b"%d" % number for number in range(1000)]


def test_what_nobody_waits_for_is_synced_seldom_and_what_somebody_waits_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fdatasync

    def counted(descriptor: int) -> None:
        sync(descriptor)
        synced.append(len(everything(tmp_path)))

    monkeypatch.setattr(os, "fdatasync", counted)
    with Writer(tmp_path, "buffered", flush_seconds=0.001, sync_seconds=1e9) as writer:
        writer.append(b"first")
        eventually(lambda: synced == [1])
        for number in range(20):
            writer.append(b"%d" % number)
            eventually(lambda: everything(tmp_path)[-1] == b"%d" % number)  # noqa: B023  it is asked in this turn
        assert synced == [1]

        on_disk = threading.Event()
        writer.submit(b"waited for", lambda error: on_disk.set() if error is None else None)
        assert on_disk.wait(10)
        assert synced == [1, 22]
        writer.append(b"asked for")
        writer.flush()
        assert synced == [1, 22, 23]
        writer.append(b"last")
    assert synced[-1] == 24


def test_after_a_sync_that_failed_everything_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path, "buffered", flush_seconds=0.001, sync_seconds=1e9)
    writer.append(b"good")
    writer.flush()
    monkeypatch.setattr(os, "fdatasync", _failing)
    writer.append(b"written, and perhaps dropped")

    with pytest.raises(StorageError, match="could not be written"):
        writer.flush()
    with pytest.raises(StorageError, match="could not be written"):
        writer.append(b"another")
    writer.close()

    assert everything(tmp_path)[0] == b"good"


def _failing(descriptor: int) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("outlives", [False, True])
def test_buffered_records_wait_for_room_and_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outlives: bool
) -> None:
    """Also where they lie in memory that outlives the process, of which both halves wait then."""
    pwrite, full, refused = os.pwrite, threading.Event(), list[int]()

    def limited(descriptor: int, data: bytes, offset: int) -> int:
        if full.is_set():
            refused.append(pwrite(descriptor, bytes(data)[:3], offset))
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", limited)
    backlog = Backlog() if outlives else None
    with Writer(tmp_path, "buffered", flush_seconds=0.001, sync_seconds=1e9, backlog=backlog) as writer:
        writer.append(b"before")
        eventually(lambda: everything(tmp_path) == [b"before"])
        full.set()
        for number in range(5):
            refusals = len(refused)
            writer.append(b"%d" % number)
            eventually(lambda seen=refusals: len(refused) > seen + 1)
        full.clear()
        writer.append(b"after")
        writer.flush()

    assert everything(tmp_path) == [b"before", *(b"%d" % number for number in range(5)), b"after"]
