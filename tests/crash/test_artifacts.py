"""Kill -9 at every call that changes a disk while artifacts change: what is there is as before, or as after."""

import shutil
import signal
import subprocess
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from bedplate import clock
from bedplate.ledger import new_key
from tests.crash.artifact_steps import open_home
from tests.forked import Program
from tests.tracking.conftest import WORKSPACE, Kept

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.sweep, pytest.mark.timeout(1200)]

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "unlink")
STEPS = Path(__file__).with_name("artifact_steps.py")


def carry_out(root: Path, step: str, upload: str, inject: str = "") -> bool:
    """Do a step, watched by a tracer that kills it at a call. Whether the step was acknowledged."""
    process = Program(STEPS, root, step, upload)
    assert process.stdout.readline() == "READY\n", process.end()
    tracer = None
    if inject:
        command = ["strace", "-f", "-p", str(process.pid), "-o", "/dev/null", "-e", f"inject={inject}"]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
    process.send_signal(signal.SIGUSR1)
    _, said, _ = process.end()
    if tracer is not None:
        tracer.communicate(timeout=30)
    return said == "DONE\n"


def state(root: Path) -> dict[str, object]:
    """Everything that a client can see, read to its last byte."""
    kept = open_home(root)
    with closing(kept.store):
        shown: dict[str, object] = {path: _content(kept, path) for path in ("r/old", "r/gone/a", "r/gone/b", "r/big")}
        with kept.store.read() as tx:
            uploads = tx.uploads.stale(2**62)
            shown["uploads"] = [(upload.digest is None, len(tx.uploads.parts(upload.id))) for upload in uploads]
            shown["parts"] = [(part.number, part.digest) for each in uploads for part in tx.uploads.parts(each.id)]
            shown["entries"] = [row.entry.decode().split('"action":"')[1].split('"')[0] for row in tx.ledger.recent()]
            digests = [part.digest for each in uploads for part in tx.uploads.parts(each.id)]
        for digest in digests:
            kept.place.get(digest)
        return shown


def _content(kept: Kept, path: str) -> bytes | None:
    with kept.store.read() as tx:
        there = tx.artifacts.find(WORKSPACE, path) is not None
    return kept.get(path) if there else None


def orphans(root: Path) -> set[str]:
    """What two collections, days apart, leave without a name."""
    kept = open_home(root)
    with closing(kept.store):
        for day in (2, 4):
            with clock.frozen(clock.now() + timedelta(days=day)):
                kept.contents.collect(timedelta(days=1))
        kept.place.tidy(0)
        there = list(kept.place.digests())
        with kept.store.read() as tx:
            named = tx.condemned.named(there)
        leftovers = {str(path) for path in (root / "blobs").rglob(".*")}
        return {str(digest) for digest in there if digest not in named} | leftovers


@pytest.mark.parametrize("step", ["put", "part", "complete", "delete", "collect"])
def test_every_crash_point_is_before_or_after(tmp_path: Path, step: str) -> None:
    """And the same step, done again, ends as if nothing had happened; what was half written goes by itself."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    prepared, root = tmp_path / "prepared", tmp_path / "home"
    prepared.mkdir()
    (prepared / "ledger.key").write_text(new_key("test"))
    _, upload, failed = Program(STEPS, prepared, "prepare").end()
    assert not failed
    upload = upload.strip()
    shutil.copytree(prepared, root)
    before = state(root)
    assert carry_out(root, step, upload)
    after, points, began = state(root), 0, time.monotonic()
    for call in CALLS:
        number = 0
        while True:
            number += 1
            shutil.rmtree(root)
            shutil.copytree(prepared, root)
            acknowledged = carry_out(root, step, upload, f"{call}:signal=SIGKILL:when={number}")
            found = state(root)
            if acknowledged:
                assert found == after, (call, number)
                break
            points += 1
            assert found in (before, after), (call, number)
            assert not orphans(root), (call, number)
            if found == before:
                assert carry_out(root, step, upload), (call, number)
            assert state(root) == after, (call, number)
    print(f"{step}: {points} crash points in {time.monotonic() - began:.0f} s")
    assert points > 3
