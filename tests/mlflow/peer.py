"""A running ``mlflow server``, as its documentation starts it: one worker, SQLite, artifacts through the server."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests import ports
from tests.mlflow import environment

_START = 100.0
"""Seconds in which it must answer: it takes 5 on an idle machine and 40 on a busy one."""


class Peer(NamedTuple):
    """A running server. ``group`` is the process group that it and its workers form."""

    address: str
    group: int


@contextmanager
def running(*options: str, workers: int = 1, folder: Path | None = None, **settings: str) -> Iterator[Peer]:
    """A server, with more options and settings if given, gone with its processes and data when the block ends."""
    place = Path(tempfile.mkdtemp(prefix="bedplate-mlflow-", dir=folder))
    (port,) = ports.free(1)
    command = [
        *(str(environment.python()), "-m", "mlflow", "server", "--workers", str(workers)),
        *("--backend-store-uri", f"sqlite:///{place}/mlflow.db"),
        *("--serve-artifacts", "--artifacts-destination", str(place / "artifacts")),
        *("--host", "127.0.0.1", "--port", str(port)),
        *options,
    ]
    environ = environment.variables(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", **settings)
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=place, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}/version", process, place / "log")
        yield Peer(address, process.pid)
    finally:
        _end(process)
        shutil.rmtree(place, ignore_errors=True)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text("utf-8", errors="replace")[-3000:]) from error
            time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole session that the command began: it starts its workers as processes of their own.

    What it holds goes with it, so it is not asked to end in good order, which takes it ten seconds.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10.0)
