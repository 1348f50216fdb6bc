"""What one durable step costs: ours, DBOS as it comes, and the limit (one synced commit of SQLite), side by side.

Run: ``python benchmarks/durable_step.py [rounds]``. Each runs in a process of its own, in turns, so that a busy machine
is busy for all of them; workflows of several sizes show how the cost grows. The step does nothing; what is left is the
cost of making it durable. Milliseconds per step: the median and the range of the rounds.
"""

import json
import logging
import math
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TARGET_MS = 4.0
SIZES = (50, 200, 800)


def limit(folder: Path, steps: int) -> float:
    """One read and one synced write transaction per step, by hand."""
    connection = sqlite3.connect(folder / "limit.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE steps (workflow TEXT, step INTEGER, output TEXT, PRIMARY KEY (workflow, step))")
    begun = time.perf_counter()
    for step in range(steps):
        connection.execute("SELECT output FROM steps WHERE workflow = 'w' AND step = ?", (step,)).fetchone()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO steps VALUES ('w', ?, '{}')", (step,))
        connection.execute("COMMIT")
    return time.perf_counter() - begun


def ours(folder: Path, steps: int) -> float:
    """The engine of Bedplate."""
    from bedplate.workflow import Engine, Step

    with Engine(folder / "ours.db") as engine:
        engine.execute("warm", [Step("s", dict)])
        begun = time.perf_counter()
        engine.execute("flow", [Step(f"s{i}", dict) for i in range(steps)])
        return time.perf_counter() - begun


def dbos(folder: Path, steps: int) -> float:
    """DBOS with its defaults, on SQLite."""
    from dbos import DBOS, DBOSConfig

    logging.getLogger("dbos").addHandler(logging.NullHandler())
    config = DBOSConfig(name="benchmark", system_database_url=f"sqlite:///{folder}/dbos.db", log_level="CRITICAL")
    DBOS(config=config)

    def step() -> dict[str, int]:
        return {}

    @DBOS.workflow()
    def flow(count: int) -> None:
        for _ in range(count):
            DBOS.run_step(None, step)

    DBOS.launch()
    flow(1)
    begun = time.perf_counter()
    flow(steps)
    seconds = time.perf_counter() - begun
    DBOS.destroy()
    return seconds


KINDS: dict[str, Callable[[Path, int], float]] = {"limit": limit, "ours": ours, "dbos": dbos}
NAMES = {"limit": "SQLite, one synced commit", "ours": "Bedplate", "dbos": "DBOS as it comes"}


def main() -> None:
    """Run all, in turns, and print the table."""
    if sys.argv[1:2] == ["--one"]:
        kind, steps = sys.argv[2], int(sys.argv[3])
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(KINDS[kind](Path(folder), steps) / steps * 1000))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    found: dict[tuple[str, int], list[float]] = {(kind, steps): [] for steps in SIZES for kind in KINDS}
    for _ in range(rounds):
        for kind, steps in found:
            command = [sys.executable, __file__, "--one", kind, str(steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[kind, steps].append(float(done.stdout))
    print(f"{rounds} rounds; ms a step: median [lowest, highest]")
    for (kind, steps), values in found.items():
        middle = statistics.median(values)
        print(f"{steps:4} steps  {NAMES[kind]:28} {middle:6.2f} [{min(values):.2f}, {max(values):.2f}]")
    for kind in KINDS:
        print(f"{NAMES[kind]:28} time grows with the steps to the power {exponent(found, kind):.2f}")
    met = all(statistics.median(found["ours", steps]) < TARGET_MS for steps in SIZES)
    print(f"target: under {TARGET_MS} ms: {'met' if met else 'MISSED'}")


def exponent(found: dict[tuple[str, int], list[float]], kind: str) -> float:
    """The slope of the logarithms of the quietest rounds' time, between the smallest and the largest workflow."""
    first, last = SIZES[0], SIZES[-1]
    ratio = min(found[kind, last]) * last / (min(found[kind, first]) * first)
    return math.log(ratio) / math.log(last / first)


if __name__ == "__main__":
    main()
