"""Group commit: many pieces in one transaction, each with its own answer, none told what is not so."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from bedplate import store as stores
from bedplate.errors import ConflictError, StorageError, UnavailableError
from bedplate.store import writer

PATIENCE = 60.0
"""Seconds for what takes none: a busy machine may hold a thread up."""
KILLED = """
import os, sys, threading
from bedplate import store as stores
opened = stores.open(sys.argv[1])
def write(thread):
    for number in range(10_000):
        opened.writer.submit(lambda tx: tx.facts.put("note", "shop", {"n": [thread, number]})).result()
        os.write(1, f"{thread} {number}\\n".encode())
threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
for thread in threads:
    thread.start()
"""


@pytest.fixture
def store(tmp_path):
    opened = stores.open(tmp_path / "test.db")
    yield opened
    opened.close()


def put(number):
    return lambda tx: tx.facts.put("note", "shop", {"n": number}).digest


def kept(store):
    with store.read() as tx:
        return {
            fact.body["n"] if isinstance(fact.body["n"], int) else tuple(fact.body["n"])
            for fact in tx.facts.list("shop", "note", 100_000)
        }


def test_every_thread_gets_its_own_answer(store):
    with ThreadPoolExecutor(16) as pool:
        digests = list(pool.map(lambda n: store.writer.submit(put(n)).result(), range(200)))

    with store.read() as tx:
        assert [tx.facts.get(digest).body["n"] for digest in digests] == list(range(200))


def test_many_pieces_share_a_commit(store):
    """While one piece holds the writer, others gather; they are written in one transaction."""
    begun, go, connections = threading.Event(), threading.Event(), []

    def slow(tx):
        begun.set()
        go.wait(PATIENCE)

    def where(tx):
        connections.append(id(tx))

    first = store.writer.submit(slow)
    begun.wait(PATIENCE)
    futures = [store.writer.submit(where) for _ in range(20)]
    go.set()
    for future in [first, *futures]:
        future.result(PATIENCE)

    assert len(set(connections)) == 1


def test_an_event_loop_commits_what_its_coroutines_append_in_small_pieces(store):
    """All that is ready goes into one transaction, in the loop's own thread; what fails among it fails alone."""
    threads, transactions = set(), set()

    def write(tx, items):
        threads.add(threading.get_ident())
        transactions.add(id(tx))
        for number in items:
            put(number)(tx)
        return [ConflictError("seven") if number == 7 else number for number in items]

    async def many():
        return await asyncio.gather(
            *(store.writer.appended(write, number, small=True) for number in range(20)), return_exceptions=True
        )

    answers = asyncio.run(many())

    assert threads == {threading.get_ident()}
    assert len(transactions) == 1
    assert [str(answer) for answer in answers] == [str(n) if n != 7 else "seven" for n in range(20)]
    assert kept(store) == set(range(20))


def test_an_event_loop_never_waits_for_another_write(store):
    """While somebody writes, the loop goes on, and the thread takes the pieces."""
    begun, go, threads = threading.Event(), threading.Event(), []

    def slow(tx):
        begun.set()
        go.wait(PATIENCE)

    def write(tx, items):
        threads.append(threading.get_ident())
        return [put(number)(tx) for number in items]

    async def both():
        piece = asyncio.ensure_future(store.writer.appended(write, 1, small=True))
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert not piece.done()
        go.set()
        return await piece

    first = store.writer.submit(slow)
    begun.wait(PATIENCE)
    asyncio.run(both())
    first.result(PATIENCE)

    assert threads != [threading.get_ident()]
    assert kept(store) == {1}


def test_a_slow_disk_is_left_to_the_thread(store, monkeypatch):
    monkeypatch.setattr(writer, "SLOW", -1.0)
    monkeypatch.setattr(writer, "AGAIN", 1000.0)
    threads = []

    def write(tx):
        threads.append(threading.get_ident())
        return put(len(threads))(tx)

    async def twice():
        await store.writer.submitted(write, small=True)
        await store.writer.submitted(write, small=True)

    asyncio.run(twice())

    assert threads[0] == threading.get_ident() != threads[1]
    assert kept(store) == {1, 2}


def test_a_closed_writer_refuses_what_a_loop_was_about_to_commit(store):
    async def late():
        piece = asyncio.ensure_future(store.writer.submitted(put(1), small=True))
        await asyncio.sleep(0)  # it is on its way, its loop has not come to it
        store.writer.close()
        with pytest.raises(UnavailableError):
            await piece

    asyncio.run(late())
    assert kept(store) == set()


def test_a_piece_that_fails_undoes_itself_alone(store):
    done = []

    def fails(tx):
        tx.after_commit(lambda: done.append("never"))
        put(2)(tx)
        raise ConflictError("no")

    def works(tx):
        tx.after_commit(lambda: done.append("done"))
        put(3)(tx)

    futures = [store.writer.submit(work) for work in (put(1), fails, works)]

    with pytest.raises(ConflictError):
        futures[1].result()
    futures[2].result()
    assert kept(store) == {1, 3}
    assert done == ["done"]


def test_items_of_one_batch_are_written_together_and_answered_one_by_one(store):
    sizes = []

    def batch(tx, items):
        sizes.append(len(items))
        return [ConflictError("odd") if item % 2 else put(item)(tx) for item in items]

    begun, go = threading.Event(), threading.Event()
    holding = store.writer.submit(lambda tx: (begun.set(), go.wait(PATIENCE)))
    begun.wait(PATIENCE)
    futures = [store.writer.append(batch, number) for number in range(10)]
    go.set()
    holding.result()

    assert [future.exception() is not None for future in futures] == [number % 2 == 1 for number in range(10)]
    assert sizes == [10]
    assert kept(store) == {0, 2, 4, 6, 8}


def test_closing_writes_what_waits_and_takes_no_more(tmp_path):
    opened = stores.open(tmp_path / "test.db")
    futures = [opened.writer.submit(put(number)) for number in range(50)]
    writer = opened.writer
    opened.close()

    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(UnavailableError):
        writer.submit(put(51))


def test_writers_beside_it_wait_for_their_turn(store):
    """Sixteen threads, half through the writer and half in transactions of their own: no lock error, nothing lost."""

    def write(number):
        if number % 2:
            store.writer.submit(put(number)).result()
        else:
            with store.transaction() as tx:
                put(number)(tx)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(320)))

    assert kept(store) == set(range(320))


def test_a_full_disk_answers_everybody_and_keeps_what_it_acknowledged(store):
    """When the disk is full SQLite may give a whole transaction up: nobody in it is told otherwise."""
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    sa.event.listen(
        store._engine, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages + 60}"), insert=True
    )

    def wide(number):
        return lambda tx: tx.facts.put("note", "shop", {"n": number, "text": "x" * 20_000})

    futures = {number: store.writer.submit(wide(number) if number % 3 == 0 else put(number)) for number in range(300)}
    errors = {number: future.exception() for number, future in futures.items()}

    assert any(isinstance(error, StorageError) for error in errors.values())
    assert kept(store) == {number for number, error in errors.items() if error is None}


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "test.db")], stdout=subprocess.PIPE, text=True
    )
    output = "".join(process.stdout.readline() for _ in range(200))
    process.kill()
    output += process.communicate()[0]
    # The last line may be cut; every whole one was printed after its commit.
    lines = output.splitlines()[:-1] if not output.endswith("\n") else output.splitlines()
    acknowledged = {tuple(int(part) for part in line.split()) for line in lines if len(line.split()) == 2}

    opened = stores.open(tmp_path / "test.db")
    assert len(acknowledged) >= 199
    assert acknowledged <= kept(opened)
    opened.close()
