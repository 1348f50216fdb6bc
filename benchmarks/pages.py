"""Pages of tracking: what the server does for one page, from the question to the HTML, without the network.

Run: ``python benchmarks/pages.py [runs] [rounds]``; without them 100,000 runs in one experiment and 20 rounds, on
SQLite. Milliseconds: the median, the greatest, and the median of the processor's time, which says more where other
programs use the machine too. A page of the table holds 50 runs with the usual columns. Pages are taken at the beginning
and after 50,000 runs, where there are so many. The last row is one curve of 200,000 values.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import search

from bedplate import store as stores
from bedplate.app import run_pages, tracking_pages
from bedplate.app.tracking_pages import Query
from bedplate.store import Store
from bedplate.tracking import runs
from bedplate.ui.frame import View
from bedplate.ui.render import render
from bedplate.ui.tracking import Sheet

EXPERIMENT = str(search.EXPERIMENT)
POINTS = 200_000
AIM_MS = 150.0
VIEW = View(user="ana", csrf="", path="/", version="")
QUESTIONS = (
    Query(),
    Query(order="metrics.acc DESC"),
    Query(order="params.model ASC"),
    Query(order="run_name ASC"),
    Query(filter="metrics.auc > 0.5", order="metrics.acc DESC"),
    Query(filter="params.model = 'gbm' AND tags.team = 'a' AND metrics.auc > 0.5", order="metrics.acc DESC"),
    Query(filter="tags.data = 'v7'", order="metrics.acc DESC"),
)


def table(store: Store, query: Query) -> str:
    """The page of the runs of the experiment."""
    found = tracking_pages.run_table(store, "default", EXPERIMENT, query)
    context = {
        "view": VIEW,
        "now": 0,
        "problem": None,
        "table": found,
        "sheet": Sheet(VIEW, found),
        "name_column": tracking_pages.NAME,
        "of_runs": tracking_pages.OF_RUNS,
    }
    return render("runs.html", context)


def later(store: Store, query: Query, after: int) -> Query | None:
    """The same question, so many runs later; None if they end before."""
    order_by = [query.order] if query.order else []
    with store.read() as tx:
        page = runs.listed(tx, "default", [EXPERIMENT], filter=query.filter, order_by=order_by, max_results=after)
    return msgspec.structs.replace(query, page=page.next_page_token) if page.next_page_token else None


def log_curve(store: Store, run: int) -> None:
    """Log many values of one metric."""
    with store.transaction() as tx:
        for start in range(0, POINTS, 10_000):
            steps = range(start, start + 10_000)
            tx.metrics.log([(run, int(EXPERIMENT), 0, "curve", 1 / (1 + i), i, i, 10**9 + i) for i in steps])


def timed(work: Callable[[], object], rounds: int) -> str:
    """Median and greatest of some rounds, and the median of the processor's time."""
    times, busy = [], []
    for _ in range(rounds):
        started, used = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - started) * 1000)
        busy.append((time.process_time() - used) * 1000)
    return f"{statistics.median(times):8.1f} {max(times):8.1f} {statistics.median(busy):8.1f}"


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    with tempfile.TemporaryDirectory() as folder:
        store = stores.open(Path(folder) / "pages.db")
        search.fill(store, count)
        print(f"{count:,} runs, {rounds} rounds; ms, aim {AIM_MS:.0f}      median  greatest  processor")
        for query in QUESTIONS:
            for where, asked in (("first", query), ("later", later(store, query, min(count // 2, 50_000)))):
                if asked is not None:
                    name = f"{where}: {query.filter or 'all'}, {query.order or 'newest first'}"
                    print(f"{name[:95]:96}{timed(lambda asked=asked: table(store, asked), rounds)}")
        with store.read() as tx:
            row = tx.runs.rows(tx.overview.newest(int(EXPERIMENT)))[0]
        detail = timed(lambda: run_pages.run_detail(store, "default", row.id, lambda name: True), rounds)
        print(f"{'one run':96}{detail}")
        log_curve(store, row.key)
        curve = timed(lambda: run_pages.curves(store, "default", [row.id], ["curve"]), 3)
        print(f"{f'one curve of {POINTS:,} values':96}{curve}")
        store.close()


if __name__ == "__main__":
    main()
