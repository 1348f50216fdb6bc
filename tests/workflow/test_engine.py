"""Durable steps, in the same process and over kill -9, on SQLite and on PostgreSQL."""

import json
import logging
import sqlite3
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bedplate.errors import ConflictError, FencedError, GateError, HomeError, StorageError, UnavailableError
from bedplate.records import Event
from bedplate.workflow import Engine, Step
from bedplate.workflow import engine as module
from tests.forked import Program
from tests.link import to_postgresql
from tests.servers import Postgresql

PROCESS = Path(__file__).with_name("flow_process.py")


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a new record of steps can be made."""
    if request.param == "sqlite":
        return tmp_path / "workflow.db"
    return str(request.getfixturevalue("postgresql").database())


@pytest.fixture
def engine(location: Path | str) -> Iterator[Engine]:
    """An open engine."""
    with Engine(location) as opened:
        yield opened


def steps(count: int, ran: list[str], fail: Callable[[int], None] = lambda _: None) -> list[Step]:
    """Steps that note when they run."""

    def step(number: int) -> Step:
        def run() -> dict[str, Any]:
            fail(number)
            ran.append(f"step-{number}")
            return {"number": number}

        return Step(f"step-{number}", run)

    return [step(i) for i in range(count)]


def test_steps_run_in_order_and_once(engine: Engine) -> None:
    """The second execution of an id runs nothing and gives the same results."""
    ran: list[str] = []
    events: list[tuple[str, str]] = []

    first = engine.execute("flow", steps(3, ran), lambda event: events.append((event.stage, event.state)))
    again = engine.execute("flow", steps(3, ran), lambda event: events.append((event.stage, event.state)))
    other = engine.execute("other", steps(3, ran))

    assert first == again == other == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert ran == ["step-0", "step-1", "step-2"] * 2
    assert events == [
        *((f"step-{i}", state) for i in range(3) for state in ("started", "finished")),
        *((f"step-{i}", "skipped") for i in range(3)),
    ]


def test_steps_run_in_the_callers_thread(engine: Engine) -> None:
    """So that interrupts reach them."""
    threads: list[threading.Thread] = []
    engine.execute("flow", [Step("a", lambda: {"n": len(threads.append(threading.current_thread()) or "")})])

    assert threads == [threading.current_thread()]


def test_a_failed_step_is_where_it_goes_on(engine: Engine) -> None:
    """The error is raised as it was; executing again begins with the step that failed, as often as it fails."""
    ran: list[str] = []
    seen: list[tuple[str, str]] = []

    def fail(number: int) -> None:
        if number == 2:
            raise GateError("not better", fix="train more")

    for _ in range(2):
        with pytest.raises(GateError, match="not better") as raised:
            engine.execute("flow", steps(4, ran, fail))
        assert raised.value.fix == "train more"
    engine.execute("flow", steps(4, ran), lambda event: seen.append((event.stage, event.state)))

    assert ran == ["step-0", "step-1", "step-2", "step-3"]
    assert seen[:3] == [("step-0", "skipped"), ("step-1", "skipped"), ("step-2", "started")]


def test_an_interrupt_leaves_it_to_be_taken_up(engine: Engine) -> None:
    """Ctrl-C in a step is no outcome: executing again goes on, in the same process."""
    ran: list[str] = []

    def interrupt(number: int) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.execute("flow", steps(3, ran, interrupt))

    assert len(engine.execute("flow", steps(3, ran))) == 3
    assert ran == ["step-0", "step-1", "step-2"]


def test_a_database_that_goes_away(postgresql: Postgresql) -> None:
    """Between two steps or within one: an error at once, not a wait without a word; then it goes on where it was."""
    ran: list[str] = []
    with to_postgresql(postgresql.database()) as (network, address), Engine(address) as engine:

        def lose(number: int) -> None:
            if number == 1:
                network.cut()

        with pytest.raises(UnavailableError, match="cannot be reached"):
            engine.execute("flow", steps(3, ran, lose))
        with pytest.raises(UnavailableError):
            engine.execute("flow", steps(3, ran))
        network.mend()
        assert len(engine.execute("flow", steps(3, ran))) == 3
    assert ran == ["step-0", "step-1", "step-1", "step-2"]


@pytest.mark.parametrize("error", [FencedError("another owner"), UnavailableError("no answer")])
def test_what_is_no_outcome_leaves_it_to_be_taken_up(engine: Engine, error: Exception) -> None:
    """That another owner took over, or that a server is gone, says nothing about the step: it is done again."""
    ran: list[str] = []

    def fail(number: int) -> None:
        if number == 1:
            raise error

    with pytest.raises(type(error)):
        engine.execute("flow", steps(3, ran, fail))
    assert len(engine.execute("flow", steps(3, ran))) == 3
    assert ran == ["step-0", "step-1", "step-2"]


def test_other_steps_under_an_id_are_refused(engine: Engine) -> None:
    """An id stands for its list of steps, finished or not; nothing that was recorded is lost by trying."""
    ran: list[str] = []

    def fail(number: int) -> None:
        if number == 1:
            raise StorageError("full")

    with pytest.raises(StorageError):
        engine.execute("flow", steps(3, ran, fail))
    for other in ([Step("else", dict)], [*steps(1, ran), Step("else", dict)], [Step("else", dict), *steps(3, ran)]):
        with pytest.raises(ConflictError, match="other steps"):
            engine.execute("flow", other)
    engine.execute("flow", steps(3, ran))
    with pytest.raises(ConflictError, match="other steps"):
        engine.execute("flow", steps(4, ran))

    assert ran == ["step-0", "step-1", "step-2"]


def test_one_engine_and_one_execution_of_an_id_at_a_time(engine: Engine, location: Path | str) -> None:
    """A second one is told so."""
    with pytest.raises(HomeError), Engine(location):
        pass

    def nested() -> dict[str, Any]:
        with pytest.raises(ConflictError):
            engine.execute("flow", [Step("a", dict)])
        return {}

    assert engine.execute("flow", [Step("a", nested)]) == [{}]


def test_a_closed_engine_runs_nothing(location: Path | str) -> None:
    """And closing twice is nothing."""
    engine = Engine(location)
    with pytest.raises(HomeError):
        engine.execute("flow", [])
    engine.open()
    engine.close()
    engine.close()


def test_workflows_side_by_side(engine: Engine) -> None:
    """Executions of several ids, from several threads."""
    ran: Counter[int] = Counter()

    def one(number: int) -> None:
        engine.execute(
            f"flow-{number}", [Step(f"s{i}", lambda: {"n": ran.update([number]) or number}) for i in range(5)]
        )

    threads = [threading.Thread(target=one, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ran == Counter(dict.fromkeys(range(4), 5))


# ------------------------------------------------------------------------------------------------------------ kill -9


def run(location: Path | str, folder: Path, workflow_id: str, count: int, death: str) -> tuple[int, str, str]:
    """Run the workflow in a process of its own: its code, and what it wrote."""
    return Program(PROCESS, location, folder, workflow_id, count, death).end()


@pytest.mark.slow
def test_after_kill_9_it_goes_on_where_it_was(location: Path | str, tmp_path: Path) -> None:
    """Killed before, inside and after steps, many times over one workflow: only an unrecorded step runs again."""
    deaths = ["0:before", "0:after", "1:recorded-previous", "2:before", "2:after", "3:recorded-previous", "end"]
    for death in deaths:
        assert run(location, tmp_path, "flow", 4, death)[0] == -9, death
    code, out, err = run(location, tmp_path, "flow", 4, "-")
    results = json.loads(out)

    assert (code, err) == (0, "")
    assert [result["step"] for result in results] == [0, 1, 2, 3]
    # Steps 0 and 2 were killed between their effect and its record: only they ran twice.
    assert Counter((tmp_path / "effects").read_text().split()) == Counter({"0": 2, "1": 1, "2": 2, "3": 1})
    assert run(location, tmp_path, "flow", 4, "-") == (code, out, err)


def test_what_a_killed_process_left_waits_for_who_asks(tmp_path: Path) -> None:
    """Starting takes up only what is executed again, and the rest is there for later, also after other work."""
    location, ran = tmp_path / "workflow.db", []
    for name in ("one", "two"):
        assert run(location, tmp_path, name, 3, "1:before")[0] == -9
    (tmp_path / "effects").unlink()

    with Engine(location) as engine:
        engine.execute("new", [Step("a", dict)])
        time.sleep(0.5)  # long enough for anything that would start by itself
        assert not (tmp_path / "effects").exists()
        assert len(engine.execute("two", steps(3, ran))) == 3
        # The internal of DBOS that this rests on, how often its own queue is polled, is what DBOS itself goes by.
        assert engine._dbos._registry.get_internal_queue().polling_interval_sec == module._POLL_SECONDS
        assert len(engine.execute("one", steps(3, ran))) == 3

    assert ran == ["step-1", "step-2"] * 2


# -------------------------------------------------------------------------------------------- the rules of the design


def test_the_record_is_private_json_in_a_write_ahead_log(tmp_path: Path) -> None:
    """Mode 0600, WAL, our executor id and format; nothing pickled."""
    location = tmp_path / "workflow.db"
    with Engine(location) as engine:
        engine.execute("flow", [Step("a", lambda: {"x": 1})])
        with pytest.raises(GateError):
            engine.execute("bad", [Step("a", _refuse)])
    with sqlite3.connect(location) as connection:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        outputs = connection.execute("SELECT output, error, serialization FROM operation_outputs").fetchall()
        rows = connection.execute("SELECT executor_id, application_version FROM workflow_status").fetchall()
    connection.close()

    assert stat.S_IMODE(location.stat().st_mode) == 0o600
    assert mode == "wal"
    assert {row[2] for row in outputs} == {"bedplate_json"}
    assert json.loads(outputs[0][0]) == {"x": 1}
    assert {tuple(row) for row in rows} == {("owner", "1")}


def _refuse() -> dict[str, Any]:
    raise GateError("no")


def test_nothing_is_written_to_the_console(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither on the way nor when a step fails."""
    with Engine(tmp_path / "workflow.db") as engine, pytest.raises(GateError):
        engine.execute("bad", [Step("a", _refuse)])

    assert capfd.readouterr() == ("", "")
    handlers = logging.getLogger("dbos").handlers
    # pytest adds handlers of its own, which record and write nothing.
    odd = [
        h for h in handlers if not isinstance(h, logging.NullHandler) and not type(h).__module__.startswith("_pytest")
    ]
    assert odd == []


def test_a_record_that_cannot_be_kept(tmp_path: Path) -> None:
    """The error names the file and what to do; the engine can be opened again."""
    (tmp_path / "broken.db").write_bytes(b"this is no database, and long enough to be read as one" * 100)
    for location in (tmp_path / "broken.db", tmp_path / "none" / "workflow.db"):
        with Engine(location) as engine, pytest.raises(StorageError) as raised:
            engine.execute("flow", [Step("a", dict)])
        assert raised.value.where
    with Engine(tmp_path / "workflow.db") as engine:
        assert engine.execute("flow", [Step("a", dict)]) == [{}]


def test_events_say_how_long_a_step_took(engine: Engine) -> None:
    """Finished events carry seconds."""
    events: list[Event] = []
    engine.execute("flow", [Step("a", lambda: {"slept": time.sleep(0.05) or 1})], events.append)

    assert events[-1].seconds is not None
    assert events[-1].seconds >= 0.05
