"""Collecting content: what nothing names goes, and nobody who names, writes or reads it at that moment loses it."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from bedplate import clock, ids
from bedplate.errors import NotFoundError
from bedplate.ids import Digest
from tests.tracking.conftest import WORKSPACE, Kept

START = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = timedelta(days=1)


def digest(data: bytes) -> Digest:
    return ids.digest_bytes(data)


def collect(kept: Kept, after: timedelta, **options: object) -> tuple[int, int, int]:
    """Collect at a moment after the start; what was seen, waits and was removed."""
    with clock.frozen(START + after):
        sweep = kept.contents.collect(GRACE, **options)  # type: ignore[arg-type]
    return sweep.seen, sweep.waiting, sweep.removed


def test_what_nothing_names_goes_after_the_grace_period(kept: Kept) -> None:
    with clock.frozen(START):
        kept.put("a", b"deleted")
        kept.put("b", b"replaced")
        kept.put("c", b"stays")
    with clock.frozen(START + timedelta(hours=1)):
        kept.delete("a")
        kept.put("b", b"new")

    assert collect(kept, timedelta(hours=24)) == (4, 2, 0)
    assert collect(kept, timedelta(hours=26)) == (4, 0, 2)
    assert set(kept.place.digests()) == {digest(b"stays"), digest(b"new")}
    assert (kept.get("b"), kept.get("c")) == (b"new", b"stays")
    assert collect(kept, timedelta(hours=90)) == (2, 0, 0)


def test_what_was_never_named_goes_too(kept: Kept) -> None:
    kept.place.put(b"its writer was killed")

    assert collect(kept, timedelta(hours=0)) == (1, 1, 0)
    assert collect(kept, timedelta(hours=23)) == (1, 1, 0)
    assert collect(kept, timedelta(hours=25)) == (1, 0, 1)


def test_a_dry_run_changes_nothing(kept: Kept) -> None:
    kept.place.put(b"orphan")
    with clock.frozen(START):
        kept.put("a", b"deleted")
        kept.delete("a")

    assert collect(kept, timedelta(hours=25), dry_run=True) == (2, 1, 1)
    assert collect(kept, timedelta(hours=25), dry_run=True) == (2, 1, 1)
    assert len(list(kept.place.digests())) == 2


def test_naming_again_begins_the_grace_period_anew(kept: Kept) -> None:
    with clock.frozen(START):
        kept.put("a", b"x")
        kept.delete("a")
    with clock.frozen(START + timedelta(hours=23)):
        kept.put("a", b"x")
        kept.delete("a")

    assert collect(kept, timedelta(hours=30)) == (1, 1, 0)


def test_evidence_and_uploads_keep_what_they_name(kept: Kept) -> None:
    with clock.frozen(START):
        trained = kept.contents.put(b"model")
        with kept.store.transaction() as tx:
            tx.facts.put("training", "shop", {"artifacts": {"model.onnx": trained}})
        upload = kept.uploads.begin(WORKSPACE, "big", 1, by=kept.ana).id
        kept.part(upload, 1, b"part")

    assert collect(kept, timedelta(days=30)) == (2, 0, 0)
    kept.uploads.abort(WORKSPACE, "big", upload)
    assert kept.place.has(trained)


def test_a_stale_condemnation_of_named_content_is_lifted(kept: Kept) -> None:
    with clock.frozen(START):
        kept.put("a", b"x")
        with kept.store.transaction() as tx:
            tx.condemned.condemn([digest(b"x")])

    assert collect(kept, timedelta(hours=30)) == (1, 0, 0)
    with kept.store.read() as tx:
        assert tx.condemned.since(digest(b"x")) is None


def test_a_reader_in_the_middle_finishes(kept: Kept) -> None:
    data = random.Random(1).randbytes(5_000_000)
    with clock.frozen(START):
        kept.put("a", data)
        content = kept.artifacts.read(kept.artifacts.find(WORKSPACE, "a"))
        first = next(content)
        kept.delete("a")

    assert collect(kept, timedelta(hours=25)) == (1, 1, 0)  # somebody reads it
    assert first + b"".join(content) == data
    content.close()
    assert collect(kept, timedelta(hours=25)) == (1, 0, 1)


def test_what_is_being_named_is_not_removed(kept: Kept) -> None:
    """Between the bytes being in place and their name being committed, a collection passes them over."""
    with clock.frozen(START):
        kept.put("a", b"x")
        kept.delete("a")
    with kept.contents.admitted(digest(b"x")):
        assert collect(kept, timedelta(hours=25)) == (1, 1, 0)
        with kept.store.transaction() as tx:
            tx.condemned.condemn([digest(b"x")])
        assert collect(kept, timedelta(hours=80)) == (1, 1, 0)
        assert kept.place.has(digest(b"x"))


def test_a_put_that_comes_during_a_removal_writes_the_bytes_again(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The put finds the content in place, the removal takes it away: afterwards it is there."""
    with clock.frozen(START):
        kept.put("a", b"x")
        kept.delete("a")
    remove, removing, done = kept.place.delete, threading.Event(), threading.Event()

    def slowly(which: Digest) -> None:
        removing.set()
        time.sleep(0.3)
        remove(which)
        done.set()

    monkeypatch.setattr(kept.place, "delete", slowly)
    with clock.frozen(START + timedelta(hours=25)):
        collector = threading.Thread(target=kept.contents.collect, args=(GRACE,))
        collector.start()
        assert removing.wait(10)
        assert kept.place.has(digest(b"x"))
        kept.put("b", b"x")
        assert done.is_set()
        collector.join()

    assert kept.get("b") == b"x"


def test_a_removal_that_fails_is_done_by_the_next_collection(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    with clock.frozen(START):
        for number in range(3):
            kept.put(f"{number}", b"%d" % number)
            kept.delete(f"{number}")
    remove, calls = kept.place.delete, []

    def breaking(which: Digest) -> None:
        calls.append(which)
        remove(which)
        if len(calls) == 2:
            raise RuntimeError("power failed")

    with monkeypatch.context() as patched:
        patched.setattr(kept.place, "delete", breaking)
        with pytest.raises(RuntimeError):
            collect(kept, timedelta(hours=25))
    collect(kept, timedelta(hours=25))

    assert list(kept.place.digests()) == []
    with kept.store.read() as tx:
        assert tx.condemned.due(clock.milliseconds()) == []


def test_content_is_never_lost_between_writers_and_collections(kept: Kept) -> None:
    """Threads put, replace, read and delete a handful of contents while others collect without any grace at all."""
    contents = [b"%d" % number * 300 for number in range(4)]
    stop, seconds = threading.Event(), 2.0
    lost: list[str] = []
    reads = [0]

    def write(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            path, data = f"w{seed}/{chance.randrange(3)}", chance.choice(contents)
            kept.put(path, data)
            # What was acknowledged is there: nobody else touches this name.
            if kept.get(path) != data:
                lost.append(path)
            reads[0] += 1
            if chance.random() < 0.5:
                kept.delete(path)

    def train(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            data = chance.choice(contents)
            with kept.contents.admitted(digest(data)):
                kept.place.put(data)
                if kept.place.get(digest(data)) != data:
                    lost.append("admitted")

    def sweep() -> None:
        while not stop.is_set():
            kept.contents.collect(timedelta(0))

    with ThreadPoolExecutor(7) as pool:
        futures = [pool.submit(write, seed) for seed in range(4)]
        futures += [pool.submit(train, 9), pool.submit(sweep), pool.submit(sweep)]
        time.sleep(seconds)
        while reads[0] <= 20 and not any(future.done() for future in futures):
            time.sleep(0.05)
        stop.set()
        for future in futures:
            future.result()

    assert lost == []
    assert reads[0] > 20
    kept.contents.collect(timedelta(0))
    kept.contents.collect(timedelta(0))
    with kept.store.read() as tx:
        named = {row.digest for seed in range(4) for row in tx.artifacts.walk(WORKSPACE, f"w{seed}")}
    assert set(kept.place.digests()) == named


def test_content_that_is_gone_is_said_to_be(kept: Kept) -> None:
    with pytest.raises(NotFoundError):
        kept.contents.read(digest(b"never"))
    with pytest.raises(NotFoundError):
        kept.contents.get(digest(b"never"))

    assert not kept.contents._held
