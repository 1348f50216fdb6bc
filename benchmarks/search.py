"""Searching runs: pages of 100 with all that belongs to a run, at the beginning, in the middle and at the end.

Run: ``python benchmarks/search.py [sizes] [rounds] [http]``, such as ``100000 40``; without sizes 10,000, 30,000 and
100,000 runs in one experiment, each with three metrics, three params and four tags. On SQLite and on PostgreSQL,
milliseconds: the median, then the 95th and 99th percentile, and after a + the processor time of a page, client and
server together, which says more where other programs use the machine too. With ``http`` a server is asked for the
pages, over one connection, and the processor time is that of who asks. "New" is the first page of a question that was
never asked: what all questions told of themselves is forgotten before it, which only the process itself can do. "By
hand" is what somebody writes who knows the question beforehand: one SELECT for the first page along the best index,
then one for each of metrics, params and tags.
The questions take turns, so that a busy machine is busy for all of them.
"""

import random
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import psycopg
import sqlalchemy as sa

from bedplate import store as stores
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store, learnt, schema
from bedplate.store.filters import parse, parse_order
from bedplate.store.sql import Upsert
from bedplate.tracking import filters, runs

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import servers

from tracking import Raw, Server, bedplate

SIZES = (10_000, 30_000, 100_000)
PAGE = 100
EXPERIMENT = 0
AIM_MS = 60.0
WARM = 6
TABLES = (schema.runs, schema.params, schema.tags, schema.metrics, schema.latest_metrics)


class Question(NamedTuple):
    """What is searched for, and how somebody would write its first page who knew it beforehand."""

    name: str
    filter: str
    order_by: tuple[str, ...]
    by_hand: str


_BY_VALUE = """SELECT r.key FROM latest_metrics o JOIN runs r ON r.key = o.run WHERE o.experiment = 0 AND o.key = 'acc'
AND o.is_nan = false AND r.lifecycle = 'active' {} ORDER BY o.value DESC, o.started DESC, r.id LIMIT 100"""
_BY_START = """SELECT r.key FROM runs r WHERE r.experiment = 0 AND r.lifecycle = 'active' {}
ORDER BY r.started DESC, r.id LIMIT 100"""
_AUC = "AND EXISTS (SELECT 1 FROM latest_metrics m WHERE m.run = r.key AND m.key = 'auc' AND m.value > 0.5)"
_MODEL = "AND EXISTS (SELECT 1 FROM params p WHERE p.run = r.key AND p.key = 'model' AND p.value = 'gbm')"
_TEAM = "AND EXISTS (SELECT 1 FROM tags t WHERE t.run = r.key AND t.key = 'team' AND t.value = 'a')"
_DATA = """AND r.key IN (SELECT run FROM tags WHERE experiment = 0 AND key = 'data' AND value = 'v7')"""
_NONE = """AND r.key IN (SELECT run FROM params WHERE experiment = 0 AND key = 'seed' AND value = 'none')"""

QUESTIONS = (
    Question("the newest", "", (), _BY_START.format("")),
    Question("metric, by itself", "metrics.acc > 0.5", ("metrics.acc DESC",), _BY_VALUE.format("AND o.value > 0.5")),
    Question("metric, by another", "metrics.auc > 0.5", ("metrics.acc DESC",), _BY_VALUE.format(_AUC)),
    Question("param, by start", "params.model = 'gbm'", ("start_time DESC",), _BY_START.format(_MODEL)),
    Question("param and metric", "params.model = 'gbm' AND metrics.auc > 0.5", (),
             _BY_START.format(f"{_MODEL} {_AUC}")),
    Question("tag, by metric", "tags.team = 'a'", ("metrics.acc DESC",), _BY_VALUE.format(_TEAM)),
    Question("one in a thousand", "tags.data = 'v7'", ("metrics.acc DESC",), _BY_VALUE.format(_DATA)),
    Question("nothing", "params.seed = 'none'", ("metrics.acc DESC",), _BY_VALUE.format(_NONE)),
    Question("status, by metric", "status = 'FAILED'", ("metrics.acc DESC",),
             _BY_VALUE.format("AND r.status = 'FAILED'")),
    Question("every third in three", "params.model = 'gbm' AND tags.team = 'a' AND metrics.auc > 0.5",
             ("metrics.acc DESC",), _BY_VALUE.format(f"{_MODEL} {_TEAM} {_AUC}")),
    Question("by param, then metric", "", ("params.model", "metrics.acc DESC"),
             """SELECT r.key FROM params p JOIN runs r ON r.key = p.run LEFT JOIN latest_metrics o ON o.run = r.key
             AND o.key = 'acc' WHERE p.experiment = 0 AND p.key = 'model' AND p.value = 'gbm'
             AND r.lifecycle = 'active' ORDER BY o.value DESC, p.started DESC, r.id LIMIT 100"""),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ the runs


def made_up(count: int) -> Iterator[tuple[sa.Table, tuple[Any, ...]]]:
    """Rows of so many runs, each with the table it belongs to."""
    chance = random.Random(count)
    position = 0
    for key in range(1, count + 1):
        identifier = uuid.UUID(int=chance.getrandbits(128), version=4).hex
        started = 1_700_000_000_000 + key * 1000 + chance.randrange(1000)
        status = "FINISHED" if chance.random() < 0.9 else chance.choice(("FAILED", "RUNNING", "KILLED"))
        uri = f"mlflow-artifacts:/{EXPERIMENT}/{identifier}/artifacts"
        of_run = (key, identifier, EXPERIMENT, f"run-{key}", "ana", status)
        yield schema.runs, (*of_run, started, started + 60_000, "active", None, uri)
        params = {
            "lr": repr(round(10 ** chance.uniform(-5, -1), 6)),
            "model": chance.choice(("gbm", "mlp", "rf", "linear")),
            "seed": str(key),
        }
        for name, value in params.items():
            position += 1
            yield schema.params, (key, name, EXPERIMENT, started, value, None, position)
        tags = {
            "data": f"v{chance.randrange(1000)}",
            "mlflow.runName": f"run-{key}",
            "mlflow.user": "ana",
            "team": chance.choice(("a", "b", "c", "d", "e")),
        }
        for name, value in tags.items():
            yield schema.tags, (key, name, EXPERIMENT, started, value, None)
        for name, number in {"acc": chance.random(), "auc": chance.random(), "loss": chance.expovariate(1)}.items():
            position += 1
            yield schema.metrics, (key, name, started + 10, 0, number, False, position)
            yield schema.latest_metrics, (key, name, EXPERIMENT, started, 0, started + 10, number, False)


def fill(store: Store, count: int, *, new: bool = True) -> None:
    """Load the runs the quick way, past the repositories. ``new``: nobody has written to the store."""
    rows: dict[sa.Table, list[tuple[Any, ...]]] = {table: [] for table in TABLES}
    for table, row in made_up(count):
        rows[table].append(row)
    with store.transaction() as tx:
        connection = tx._connection
        for table, listed in rows.items():
            if not store.postgresql:
                Upsert(table).many(connection, listed)
                continue
            names = ", ".join(column.name for column in table.columns)
            cursor: Any = connection.connection.cursor()
            with cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
                for row in listed:
                    copy.write_row(row)
    if new:  # one entry of the ledger: a store without any was not written by us, and nothing of its runs is remembered
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(Ledger(store, Path(folder), Signer(new_key("bench")))) as ledger,
            store.transaction() as tx,
        ):
            ledger.record(tx, actor="bench", action="run.load", resource=f"experiment/{EXPERIMENT}")
    if store.postgresql:
        with store._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


# ----------------------------------------------------------------------------------------------------------- measuring


def tokens(store: Store, question: Question) -> tuple[int, dict[str, str | None]]:
    """How many runs match, and the tokens of the first page, of one in the middle and of the last full one."""
    clauses = parse(question.filter, filters.RUNS)
    orders = parse_order(question.order_by, filters.RUNS)
    ways: dict[str, Any] = {"filter": question.filter, "order_by": question.order_by}
    with store.read() as tx:
        keys, _ = tx.search.runs([EXPERIMENT], clauses, orders, lifecycles=("active",), limit=10**9)
        found: dict[str, str | None] = {"first": None}
        for name, at in (("middle", len(keys) // 2), ("last", len(keys) - PAGE)):
            token, left = None, at
            while left > 0:
                page = runs.search(
                    tx, "default", [str(EXPERIMENT)], **ways, max_results=min(left, 50_000), page_token=token
                )
                token, left = page.next_page_token, left - len(page.runs)
            if at > PAGE:
                found[name] = token
    return len(keys), found


Way = Callable[[Store, Question, str | None], Callable[[], int]]


def ours(store: Store, question: Question, token: str | None) -> Callable[[], int]:
    """A page of ours."""

    def ask() -> int:
        with store.read() as tx:
            page = runs.search(
                tx, "default", [str(EXPERIMENT)], filter=question.filter, order_by=question.order_by,
                max_results=PAGE, page_token=token,
            )  # fmt: skip
        return len(page.runs)

    return ask


def new(store: Store, question: Question) -> Callable[[], int]:
    """The first page of a question that nothing is known of."""
    ask = ours(store, question, None)

    def forget_and_ask() -> int:
        learnt._learnt.clear()
        return ask()

    return forget_and_ask


def over_http(server: Server) -> Way:
    """The pages of a server, over one connection that is kept."""
    line = Raw(server.address, server.token)

    def way(_: Store, question: Question, token: str | None) -> Callable[[], int]:
        body = {"experiment_ids": [str(EXPERIMENT)], "filter": question.filter, "order_by": list(question.order_by)}
        body |= {"max_results": PAGE, "page_token": token} if token else {"max_results": PAGE}

        def ask() -> int:
            return line.call("runs/search", body).count(b'"run_id"')

        return ask

    return way


def by_hand(location: Path | str, question: Question) -> Callable[[], int]:
    """The first page, by somebody who knew the question."""
    postgresql = isinstance(location, str)
    connection: Any = psycopg.connect(location, autocommit=True) if postgresql else sqlite3.connect(location)
    among = "= ANY(%s)" if postgresql else "IN (SELECT value FROM json_each(?))"
    more = [f"SELECT * FROM {table} WHERE run {among}" for table in ("latest_metrics", "params", "tags")]

    def ask() -> int:
        keys = [row[0] for row in connection.execute(question.by_hand).fetchall()]
        bound = (keys,) if postgresql else (str(keys),)
        for statement in more:
            connection.execute(statement, bound).fetchall()
        return len(keys)

    return ask


def measure(store: Store, location: Path | str, rounds: int, way: Way = ours) -> Iterable[str]:
    """The table of one database, line by line."""
    asked: dict[tuple[str, str], Callable[[], int]] = {}
    matching: dict[str, int] = {}
    for question in QUESTIONS:
        matching[question.name], found = tokens(store, question)
        asked[question.name, "by hand"] = by_hand(location, question)
        if way is ours:  # before the first page, which it lets know again
            asked[question.name, "new"] = new(store, question)
        asked |= {(question.name, page): way(store, question, token) for page, token in found.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in asked}
    used = dict.fromkeys(asked, 0.0)
    processor = processor_time(store)
    for number in range(rounds + WARM):
        for key, ask in asked.items():
            before, begun = processor(), time.perf_counter()
            ask()
            if number >= WARM:
                times[key].append((time.perf_counter() - begun) * 1000)
                used[key] += (processor() - before) * 1000 / rounds
    pages = [page for page in ("new", "first", "middle", "last") if page != "new" or way is ours]
    yield "  ".join([f"{'':22} {'matches':>8}", f"{'by hand':>8}", *(f"{page:>24}" for page in pages)])
    slowest = {"one comparison or two": 0.0, "three": 0.0}
    for question in QUESTIONS:
        cells = []
        for page in pages:
            taken = times.get((question.name, page))
            spent = used.get((question.name, page), 0.0)
            cells.append("" if taken is None else "{:.1f} {:.1f} {:.1f} +{:.1f}".format(*percentiles(taken), spent))
            kind = "three" if question.filter.count(" AND ") == 2 else "one comparison or two"
            slowest[kind] = max(slowest[kind], percentiles(taken)[1] if taken else 0.0)
        hand = statistics.median(times[question.name, "by hand"])
        line = "  ".join(f"{cell:>24}" for cell in cells)
        yield f"{question.name:22} {matching[question.name]:>8,}  {hand:>8.1f}  {line}"
    for name, worst in slowest.items():
        verdict = "met" if worst < AIM_MS else "missed"
        yield f"the slowest 95th percentile, {name}: {worst:.1f} ms, the aim is {AIM_MS:.0f}: {verdict}"


def processor_time(store: Store) -> Callable[[], float]:
    """Reads the processor seconds of this thread, and of the server's process that works for it."""
    if not store.postgresql:
        return time.thread_time
    with store.read() as tx:
        server = psutil.Process(tx._connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
    return lambda: time.thread_time() + sum(server.cpu_times()[:2])


def percentiles(times: list[float]) -> tuple[float, float, float]:
    """The median, the 95th and the 99th percentile."""
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[94], cuts[98]


@contextmanager
def locations(folder: Path) -> Iterator[Callable[[str, int], Path | str]]:
    """Where a database of one kind and size is to lie."""
    with servers.postgresql() as server:
        yield lambda kind, size: folder / f"{size}.db" if kind == "SQLite" else server.database()


def main() -> None:
    """Measure all, and print a table for each."""
    sizes = [int(size) for size in sys.argv[1].split(",")] if len(sys.argv) > 1 else SIZES
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 25
    http = "http" in sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder, locations(Path(folder)) as place:
        for size in sizes:
            for kind in ("SQLite", "PostgreSQL"):
                location = place(kind, size)
                with served(Path(folder) / f"{kind}-{size}", location) if http else nullcontext(ours) as way:
                    if http and kind == "SQLite":
                        location = Path(folder) / f"{kind}-{size}" / "bedplate.db"
                    store = stores.open(location)
                    begun = time.perf_counter()
                    fill(store, size, new=not http)
                    print(f"\n{kind}, {size:,} runs (loaded in {time.perf_counter() - begun:.0f} s)\n")
                    for line in measure(store, location, rounds, way):
                        print(line, flush=True)
                    store.close()


@contextmanager
def served(home: Path, location: Path | str) -> Iterator[Way]:
    """The pages of a server with a home of its own; where ``location`` is an address, its metadata lies there."""
    settings = {"BEDPLATE_DATABASE": location} if isinstance(location, str) else {}
    with bedplate(home, 1, **settings) as server:
        yield over_http(server)


if __name__ == "__main__":
    main()
