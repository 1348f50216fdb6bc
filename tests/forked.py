"""Programs in processes of their own that begin with our modules loaded, for tests that kill them; see also `replicas`.

A new interpreter takes most of a second to load what writes to a store or a table. Here one process of each worker
loads it once, and every program is forked from that one; a signal ends it as it ends any other process.
"""

import multiprocessing
import os
import runpy
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TextIO

CONTEXT = multiprocessing.get_context("forkserver")
"""The only one: all that are made have one server, which loads what was asked for last."""
CONTEXT.set_forkserver_preload(
    [
        "bedplate.store",
        "bedplate.ledger",
        "bedplate.workflow.engine",
        "dbos",
        "bedplate.workflow.lease",
        "bedplate.data.tables",
        "bedplate.serve.replica",
    ]
)


class Program:
    """A running program: a file of Python, or its text. ``stdout`` and ``stderr`` are what it writes."""

    def __init__(self, program: Path | str, *arguments: object) -> None:
        outputs = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
        words = [str(argument) for argument in arguments]
        self._process = CONTEXT.Process(target=_run, args=([write for _, write in outputs], program, words))
        self._process.start()
        for _, write in outputs:
            write.close()
        self.stdout, self.stderr = (_reader(read) for read, _ in outputs)

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()

    def end(self, timeout: float = 60.0) -> tuple[int, str, str]:
        """Wait until it has ended: its code, negative for a signal, and the rest of what it wrote."""
        with self.stdout, self.stderr:
            out, err = self.stdout.read(), self.stderr.read()
        self._process.join(timeout)
        assert self._process.exitcode is not None, "it has closed its outputs and goes on"
        return self._process.exitcode, out, err

    def close(self) -> None:
        """Kill it where it still runs, and let go of what it wrote."""
        self._process.kill()
        self._process.join()
        self.stdout.close()
        self.stderr.close()


def _reader(connection: Connection) -> TextIO:
    with connection:
        return os.fdopen(os.dup(connection.fileno()), "r", encoding="utf-8")


def _run(outputs: list[Connection], program: Path | str, words: list[str]) -> None:
    for number, write in enumerate(outputs, 1):
        os.dup2(write.fileno(), number)
        write.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    sys.argv = [str(program), *words]
    if isinstance(program, Path):
        runpy.run_path(str(program), run_name="__main__")
    else:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
