"""Runs of a server in a process of its own: what it acknowledged survives kill -9, whoever else writes meanwhile."""

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

pytestmark = pytest.mark.slow

API = "/api/2.0/mlflow"
WRITERS = 16
LEAST = 130
"""Writes that the server acknowledges before it is killed."""


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=[pytest.mark.long, pytest.mark.sweep])])
def test_kill_9_loses_nothing_that_runs_logged(server, rounds):
    """Sixteen writers log while the server is killed: what it acknowledged is there once, in one chain."""
    acknowledged, doubtful, errors = Counter(), Counter(), Counter()
    guard, steps = threading.Lock(), itertools.count()
    running = server()
    runs = [begin(running.client) for _ in range(WRITERS)]

    def write(running, stop, run):
        with httpx.Client(base_url=running.client.base_url, headers=running.client.headers, timeout=30) as client:
            while not stop.is_set():
                row = (run, next(steps))
                try:
                    answer = client.post(
                        f"{API}/runs/log-metric",
                        json={"run_id": run, "key": "loss", "value": 0.5, "timestamp": 1, "step": row[1]},
                    )
                except httpx.TransportError:
                    with guard:
                        doubtful[row] += 1  # it was killed before it answered: the row may be there or not
                    return
                with guard:
                    if answer.status_code == 200:
                        acknowledged[row] += 1
                    else:
                        errors[answer.text] += 1

    for _ in range(rounds):
        stop = threading.Event()
        with ThreadPoolExecutor(WRITERS) as pool:
            for run in runs:
                pool.submit(write, running, stop, run)
            enough, deadline = len(acknowledged) + random.randrange(LEAST, 2 * LEAST), time.monotonic() + 60
            while len(acknowledged) < enough and time.monotonic() < deadline:
                time.sleep(0.01)
            running.kill()
            stop.set()
        running = server()
    kept = Counter((run, point["step"]) for run in runs for point in history(running.client, run))
    running.stop()

    assert errors == {}
    assert len(acknowledged) >= rounds * LEAST
    assert set(acknowledged) <= set(kept) <= set(acknowledged) | set(doubtful)
    assert set(kept.values()) == {1}
    environment = {**os.environ, "BEDPLATE_HOME": str(running.home.root)}
    verified = subprocess.run(
        [sys.executable, "-m", "bedplate", "audit", "verify", "--json"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert json.loads(verified.stdout)["verified"], verified.stdout


def begin(client):
    """Begin a run in the default experiment."""
    return client.post(f"{API}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]


def history(client, run):
    """Everything that was logged as the run's loss."""
    answer = client.get(f"{API}/metrics/get-history", params={"run_id": run, "metric_key": "loss"})
    return answer.json().get("metrics", [])
