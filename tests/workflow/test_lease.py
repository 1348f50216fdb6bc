"""One owner per shared database: real processes that are killed, stopped and woken on a real PostgreSQL."""

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from bedplate import ledger
from bedplate import store as stores
from bedplate.app import home as homes
from bedplate.errors import FencedError, UnavailableError
from bedplate.settings import Home
from bedplate.store import Store
from bedplate.workflow.lease import NAME, Lease, LeasedError, holder_of
from bedplate.workflow.owner import Owner
from tests.forked import Program
from tests.link import to_postgresql
from tests.servers import Postgresql

pytestmark = pytest.mark.slow

PROCESS = Path(__file__).with_name("lease_process.py")
PATIENCE = 100.0
Start = Callable[[str, float], Program]


@pytest.fixture
def database(postgresql: Postgresql) -> str:
    """The address of a new database."""
    return postgresql.store()


@pytest.fixture
def first(database: str) -> Iterator[Store]:
    """The database, as one machine sees it."""
    with contextlib.closing(stores.open(database, wait=10)) as opened:
        yield opened


@pytest.fixture
def second(database: str) -> Iterator[Store]:
    """And as another one does."""
    with contextlib.closing(stores.open(database, wait=10)) as opened:
        yield opened


@pytest.fixture
def start(database: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a process that takes the lease and writes; returns once it has written."""
    started: list[Program] = []
    (tmp_path / "key").write_text(ledger.new_key("test"))

    def begin(holder: str, seconds: float) -> Program:
        process = Program(PROCESS, database, tmp_path, holder, seconds)
        started.append(process)
        line = process.stdout.readline()
        assert line[:1].isdigit(), line + process.stderr.read()
        return process

    yield begin
    for process in started:
        process.close()


def end(process: Program, number: signal.Signals = signal.SIGKILL) -> list[str]:
    """Send a signal, and return what the process printed to its end."""
    process.send_signal(number)
    return process.end(PATIENCE)[1].splitlines()


@contextlib.contextmanager
def take_over(store: Store, holder: str) -> Iterator[Lease]:
    """Hold the lease, as soon as it has run out."""
    deadline = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            lease = Lease(store, holder)
            try:
                stack.enter_context(lease)
                break
            except LeasedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield lease


def actors(store: Store) -> list[int]:
    """The token under which each entry of the ledger was written, in order."""
    with store.read() as tx:
        rows = list(tx.ledger.entries(0, tx.ledger.head()[0]))
    return [int(msgspec.json.decode(row.entry)["actor"]) for row in rows]


def test_a_second_owner_is_refused_and_told_who_and_until_when(first: Store, second: Store) -> None:
    """As long as the first one renews it; what is given back can be had at once."""
    with Lease(first, "home /a on one", 1.5):
        for wait in (2.0, 0.0):
            with pytest.raises(LeasedError) as raised, Lease(second, "home /b on two", 0.5):
                pass
            assert raised.value.message.startswith("home /a on one owns this database until 20")
            assert raised.value.fix
            time.sleep(wait)  # longer than the lease lasts
        with first.transaction() as tx:
            tx.executions.start("u", "ana")
    with Lease(second, "home /b on two", 0.5) as taken:
        assert taken.previous is None


def test_whoever_takes_over_shuts_out_the_holder_before(first: Store, second: Store) -> None:
    """The database decides it, whatever the first one's clock or thread believe."""
    lost: list[bool] = []
    with Lease(first, "one", 3600) as mine:
        mine.when_lost(lambda: lost.append(True))
        with second.transaction() as tx:
            held = tx.leases.get(NAME)
            assert held is not None
            tx.leases.renew(NAME, held, -1)  # as if an hour had passed on the database's clock
        with Lease(second, "two", 3600) as taken:
            assert taken.previous == "one"
            mine.check_lost()  # it does not know it yet
            for _ in range(2):
                with pytest.raises(FencedError, match="two has taken this database over"), first.transaction():
                    pytest.fail("a transaction began")
            with pytest.raises(FencedError):
                first.check_fence()
            with pytest.raises(FencedError):
                mine.check_lost()
            with first.read() as tx:
                assert tx.executions.running() == []
            with second.transaction() as tx:
                tx.executions.start("u", "ana")
    assert lost == []  # its thread sleeps for an hour; the next test has one that does not


def test_a_thread_says_that_it_was_lost(first: Store, second: Store) -> None:
    """Without anything being written."""
    with Lease(first, "one", 0.3) as mine:
        woken: list[str] = []
        mine.when_lost(lambda: woken.append("one"))
        with second.transaction() as tx:
            held = tx.leases.get(NAME)
            assert held is not None
            tx.leases.renew(NAME, held, -1)
            assert tx.leases.take(NAME, "two", "owner", 60) is not None
        deadline = time.monotonic() + PATIENCE
        while not woken and time.monotonic() < deadline:
            time.sleep(0.02)
        assert woken == ["one"]


def test_a_transaction_under_way_is_waited_for(first: Store, second: Store) -> None:
    """Who takes over comes after it, not in the middle of it; one that stands still is ended by the server."""
    with Lease(first, "one", 1.0) as mine:

        def stand_still() -> None:
            with first.transaction() as tx:
                execution = tx.executions.start("u", "ana").id
                mine._ended.set()  # renewed no more: this process stands for one that is stopped
                began = time.monotonic()
                with take_over(second, "two"):
                    assert time.monotonic() - began >= 0.9
                tx.executions.end(execution, "failed", "never")

        with pytest.raises(UnavailableError):
            stand_still()
    with second.read() as tx:
        assert tx.executions.running() == []


def test_the_same_home_owns_at_once_after_kill_9(start: Start, first: Store, tmp_path: Path) -> None:
    """Its lock says that the holder has ended. A copy of the home is another one."""
    home, copy = (homes.create_or_open(Home(tmp_path / name)).home for name in ("home", "copy"))
    with Owner(home), Owner(copy):
        assert holder_of(home) != holder_of(copy)
        end(start(holder_of(home), 60))
        with pytest.raises(LeasedError, match="home on"), Lease(first, holder_of(copy), 60):
            pass
        with Lease(first, holder_of(home), 60) as taken:
            assert taken.previous is None


@pytest.mark.slow
def test_a_killed_holder_is_followed_when_its_time_is_over(start: Start, first: Store) -> None:
    """Not before; what it had acknowledged is there."""
    process = start("one", 1.5)
    with pytest.raises(LeasedError, match="one owns this database"), Lease(first, "two"):
        pass
    acknowledged = [line.split() for line in end(process) if line[:1].isdigit() and line.count(" ") == 1]
    with take_over(first, "two") as taken:
        assert taken.previous == "one"
        written = actors(first)
        assert all(written[int(index)] == int(token) for token, index in acknowledged)


@pytest.mark.parametrize("rounds", [2, pytest.param(12, marks=[pytest.mark.long, pytest.mark.sweep])])
def test_a_stopped_holder_that_wakes_writes_nothing(database: str, start: Start, rounds: int) -> None:
    """Stopped at a random moment, mostly in a transaction, until another took over: no zombie's entry, ever."""
    seed = random.randrange(1 << 30)
    moments = random.Random(seed)
    for number in range(rounds):
        process = start(f"holder-{number}", 0.6)
        time.sleep(moments.uniform(0, 0.2))
        process.send_signal(signal.SIGSTOP)
        with contextlib.closing(stores.open(database, wait=10)) as store, take_over(store, f"heir-{number}") as heir:
            with store.transaction() as tx:
                before = tx.ledger.head()[0]
            said = end(process, signal.SIGCONT)
            assert said[-1].startswith(f"ended: FencedError: heir-{number} has taken"), (seed, said[-1])
            with store.read() as tx:
                assert tx.ledger.head()[0] == before, seed
            assert heir.previous == f"holder-{number}"
            written = actors(store)
    assert written == sorted(written), seed
    assert len(set(written)) == rounds


def test_a_holder_that_was_cut_off(database: str, second: Store) -> None:
    """Back before anybody took over, it goes on, also after its time; back after that, it is refused."""
    with to_postgresql(database) as (network, address), contextlib.closing(stores.open(address, wait=2)) as far:
        with Lease(far, "far", 0.5) as lease:
            woken: list[str] = []
            lease.when_lost(lambda: woken.append("far"))
            network.cut()
            with pytest.raises(UnavailableError), far.transaction():
                pytest.fail("a transaction began")
            time.sleep(1.0)
            network.mend()
            with far.transaction() as tx:
                tx.executions.start("u", "ana")
            network.cut()
            with take_over(second, "near"):
                network.mend()
                with pytest.raises(FencedError, match="near has taken this database over"), far.transaction():
                    pytest.fail("a transaction began")
                deadline = time.monotonic() + PATIENCE
                while not woken and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert woken == ["far"]
        with second.read() as tx:
            assert len(tx.executions.running()) == 1
