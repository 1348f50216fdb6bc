"""Run code that is not ours in a limited process, and take back only bytes and JSON.

The process has no files but the interpreter and its own ``pipeline.py``, no network, no other process in reach, a clean
environment, and limits of memory and time (see :mod:`bedplate.isolation.confine`). It gets rows as Arrow over a pipe.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn

import msgspec

from bedplate import clock, errors
from bedplate.compute.task import Progress
from bedplate.errors import BedplateError, InputError, UserCodeError
from bedplate.isolation import processes, wire
from bedplate.isolation.confine import Isolation, available
from bedplate.pipeline import Kind
from bedplate.usecase.types import Resources

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 1 << 17
_PIPE_BYTES = 1 << 20
_POLL_SECONDS = 0.05
_LOG_BYTES = 64 << 10
_USAGE_SECONDS = 1.0
_ERRORS = {c.code: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, BedplateError)}


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """One marked function of a ``pipeline.py``: its role, its options, and for a feature view its SQL."""

    name: str
    kind: Kind
    options: dict[str, Any]
    sql: str | None
    line: int
    file: str = "pipeline.py"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a limited process gave back. ``log`` is the end of what the code printed."""

    files: dict[str, bytes]
    result: dict[str, Any]
    isolated: bool
    seconds: float
    log: str = ""


class Limit(NamedTuple):
    """Seconds after which a process is ended, and why it is then."""

    seconds: float
    why: str = "it took longer than allowed"


DAY = Limit(86_400.0)


class Usage(NamedTuple):
    """What the process used, ``seconds`` after it began: processor seconds so far, private memory in bytes."""

    seconds: float
    cpu_seconds: float
    memory: int
    threads: int


OnUsage = Callable[[Usage], None]
"""Told about once a second, from another thread, what the process uses."""


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    message: str
    code: str | None
    where: str | None
    fix: str | None
    frames: tuple[tuple[int, str, str], ...]
    trace: tuple[str, ...]


def isolation() -> Isolation:
    """What this machine can hold user code with; ``status`` and the pages show it."""
    return available()


def describe(pipeline: Path, *, require_isolation: bool = False) -> tuple[Declared, ...]:
    """The marked functions of ``pipeline``, in file order.

    Raises:
        InputError: there is no such file.
        UserCodeError: the file does not load, or a feature view does not return SQL.
    """
    reply = _call(
        None,
        pipeline=pipeline,
        tables={},
        parameters={},
        files={},
        resources=Resources(),
        seed=0,
        on_progress=None,
        on_usage=None,
        require_isolation=require_isolation,
        limit=Limit(60.0),
    )
    try:
        return msgspec.convert(reply.result.get("declared"), tuple[Declared, ...])
    except msgspec.ValidationError as error:
        raise UserCodeError(f"the answer of the file cannot be used: {error}", where=str(pipeline)) from error


def call(
    entry: str,
    *,
    pipeline: Path | None = None,
    tables: "Mapping[str, pa.Table | pa.RecordBatchReader] | None" = None,
    parameters: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
    resources: Resources | None = None,
    seed: int = 7,
    on_progress: Progress | None = None,
    on_usage: OnUsage | None = None,
    require_isolation: bool = False,
    limit: Limit = DAY,
    watch: float | None = None,
) -> Reply:
    """Call ``entry`` in a limited process.

    ``entry`` is ``pipeline:<function>`` or a dotted ``bedplate.train.<recipe>:<function>``; the function gets a
    :class:`~bedplate.compute.task.Task` and returns a :class:`~bedplate.compute.task.Result`. A ``@dataset`` function
    gets its table and returns a table, which comes back as the file ``table.arrow``. ``tables`` are streamed: a reader
    is never held in memory here. ``files``, by flat name, come with the task. With ``watch`` it is only watched, for so
    many seconds at most, and answers as :mod:`bedplate.compute.watched` says.

    Raises:
        UserCodeError: the code raised, ran out of memory or time, or answered something that cannot be used.
        BedplateError: of the type that our own recipe raised.
        InputError: ``pipeline`` is missing or ``entry`` is of neither form.
    """
    module, _, name = entry.rpartition(":")
    if not name.isidentifier() or not (module == "pipeline" or module.startswith("bedplate.train.")):
        raise InputError(
            f"{entry!r} cannot be run", fix="name pipeline:<function> or bedplate.train.<recipe>:<function>"
        )
    if module == "pipeline" and pipeline is None:
        raise InputError(f"{entry!r} needs a pipeline.py", fix="add pipeline.py beside usecase.yaml")
    return _call(
        entry,
        pipeline=pipeline,
        tables=tables or {},
        parameters=parameters or {},
        files=files or {},
        resources=resources or Resources(),
        seed=seed,
        on_progress=on_progress,
        on_usage=on_usage,
        require_isolation=require_isolation,
        limit=limit,
        watch=watch,
    )


def _call(
    entry: str | None,
    *,
    pipeline: Path | None,
    tables: "Mapping[str, pa.Table | pa.RecordBatchReader]",
    parameters: Mapping[str, Any],
    files: Mapping[str, bytes],
    resources: Resources,
    seed: int,
    on_progress: Progress | None,
    on_usage: OnUsage | None,
    require_isolation: bool,
    limit: Limit,
    watch: float | None = None,
) -> Reply:
    if pipeline is not None and not pipeline.is_file():
        raise InputError("the file does not exist", where=str(pipeline), fix="write it, or correct the path")
    began = clock.monotonic()
    with tempfile.TemporaryDirectory(prefix="bedplate-", ignore_cleanup_errors=True) as scratch:
        header = {
            "entry": entry,
            "pipeline": str(pipeline.resolve()) if pipeline else None,
            "tables": list(tables),
            "parameters": dict(parameters),
            "files": list(files),
            "seed": seed,
            "memory": resources.memory,
            "cpu_seconds": int(limit.seconds * max(resources.cpu, 1)) + 1,
            "scratch": scratch,
            "require_isolation": require_isolation,
            "watch": watch,
        }
        for name, data in files.items():
            (Path(scratch) / name).write_bytes(data)
        process = _start(Path(scratch), resources, seed)
        run = _Run(process, entry or "describe", pipeline, resources, began, limit, on_progress, on_usage)
        try:
            files, result = run.exchange(json.dumps(header).encode(), tables)
        finally:
            run.end()
    seconds_taken = clock.monotonic() - began
    return Reply(files=files, result=result, isolated=run.isolated, seconds=seconds_taken, log=run.log())


def _start(scratch: Path, resources: Resources, seed: int) -> "subprocess.Popen[bytes]":
    environment = processes.environment(scratch, threads=max(resources.cpu, 1), seed=seed)
    return subprocess.Popen(
        [sys.executable, "-P", "-s", "-B", "-m", "bedplate.compute.limited", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=scratch,
        env=environment,
        start_new_session=True,  # no terminal of ours in its reach
    )


class _Run:
    """One limited process from its first frame to its end."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        entry: str,
        pipeline: Path | None,
        resources: Resources,
        began: float,
        limit: Limit,
        on_progress: Progress | None,
        on_usage: OnUsage | None,
    ) -> None:
        self.process = process
        self.entry = entry
        self.pipeline = pipeline
        self.resources = resources
        self.began, self.deadline, self.late = began, began + limit.seconds, limit.why
        self.on_progress = on_progress
        self.on_usage = on_usage
        self.isolated = False
        self.killed: str | None = None
        self._log = bytearray()
        self._feed_error: BaseException | None = None
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def exchange(
        self, header: bytes, tables: "Mapping[str, pa.Table | pa.RecordBatchReader]"
    ) -> tuple[dict[str, bytes], dict[str, Any]]:
        """Send the header and the rows, take the answer."""
        for target, arguments in ((self._feed, (header, tables)), (self._drain, ()), (self._watch, ())):
            thread = threading.Thread(target=target, args=arguments, daemon=True)
            self._threads.append(thread)
            thread.start()
        try:
            return self._answer()
        except ValueError as error:
            self._kill("its answer cannot be read")
            raise self._error(f"the answer of {self.entry} cannot be used: {error}") from error

    def end(self) -> None:
        """Leave nothing running, whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None and not stream.closed:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # rows that were never read: the process ended before it wanted them

    def log(self) -> str:
        """The end of what the process printed."""
        return self._log.decode(errors="replace")

    # ------------------------------------------------------------------------------------------------------- threads

    def _feed(self, header: bytes, tables: "Mapping[str, pa.Table | pa.RecordBatchReader]") -> None:
        stream = self.process.stdin
        assert stream is not None
        try:
            _widen(stream)
            wire.write(stream, "header", header)
            for table in tables.values():
                _write_table(stream, table)
            stream.close()
        except (BrokenPipeError, ConnectionError):
            return  # it ended before it wanted the rows; why, the answer says
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            self._feed_error = error
            self._kill("its rows could not be read")

    def _drain(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        while block := stream.read1(1 << 16):  # type: ignore[attr-defined]
            self._log += block
            del self._log[:-_LOG_BYTES]

    def _watch(self) -> None:
        """Kill the process when it holds too much memory, makes too many threads, or takes too long."""
        memory, told = self.resources.memory, self.began
        while not self._ended.wait(_POLL_SECONDS) and self.process.poll() is None:
            held, threads, processor = processes.usage(self.process.pid)
            now = clock.monotonic()
            if self.on_usage is not None and held and now - told >= _USAGE_SECONDS:
                told = now
                self.on_usage(Usage(now - self.began, processor, held, threads))
            if held > memory:
                self._kill(
                    f"it held {processes.size_of(held)} of memory, and train.resources.memory allows"
                    f" {processes.size_of(memory)}"
                )
            elif threads > processes.THREADS:
                self._kill(f"it ran {threads} threads at once, and {processes.THREADS} are allowed")
            elif now > self.deadline:
                self._kill(self.late)

    def _kill(self, reason: str) -> None:
        self.killed = self.killed or reason
        self.process.kill()

    # -------------------------------------------------------------------------------------------------------- answers

    def _answer(self) -> tuple[dict[str, bytes], dict[str, Any]]:
        stream = self.process.stdout
        assert stream is not None
        limits: dict[wire.Kind, int] = {
            "confined": 1 << 16,
            "progress": 1 << 16,
            "name": 255,
            "file": self.resources.memory,
            "result": 64 << 20,
            "error": 1 << 20,
        }
        files: dict[str, bytes] = {}
        name = ""
        while (frame := wire.read(stream, limits)) is not None:
            kind, payload = frame
            if kind == "confined":
                self.isolated = msgspec.json.decode(payload, type=Isolation).isolated
                del limits["confined"]  # said once, before any code of the user runs
            elif kind == "progress" and self.on_progress is not None:
                event = msgspec.json.decode(payload, type=tuple[str, float | None, float | None])
                self.on_progress(*event)
            elif kind == "name":
                name = payload.decode()
            elif kind == "file":
                files[name] = payload
                limits["file"] -= len(payload)  # all files together stay within the memory of the run
            elif kind == "error":
                self._fail(msgspec.json.decode(payload, type=_Failure))
            elif kind == "result":
                return files, msgspec.json.decode(payload, type=dict[str, Any])
        raise self._ended_without_answer()

    def _fail(self, failure: _Failure) -> NoReturn:
        if failure.code in _ERRORS and not failure.frames:
            raise _ERRORS[failure.code](failure.message, where=failure.where, fix=failure.fix)
        what = f"{self.entry} raised {failure.type}: {failure.message}"
        if failure.type == "MemoryError":
            what = f"{self.entry} ran out of memory"
            raise self._error(what, fix="raise train.resources.memory, or work on fewer rows at a time")
        if failure.frames and self.pipeline is not None:
            shown = "\n".join(f"  line {n}{f' in {f}' if f else ''}: {text}" for n, f, text in failure.frames)
            line = failure.frames[-1][0]
            raise UserCodeError(
                f"{what}\n{shown}", where=f"{self.pipeline}:{line}", fix=f"correct line {line} of {self.pipeline.name}"
            )
        raise self._error("\n".join([what, *failure.trace]))

    def _ended_without_answer(self) -> BaseException:
        code = self.process.wait()
        if self._feed_error is not None:
            return self._feed_error
        if self.killed is not None:
            return self._error(
                f"{self.entry} was stopped: {self.killed}",
                fix="raise the limit in train.resources, or make the code use less",
            )
        if code == 0 and not self.isolated:
            return UserCodeError(
                f"{self.entry} was not run: {available().reason}",
                where=str(self.pipeline or self.entry),
                fix="a use case of high risk runs its code only in isolation: use a Linux kernel with Landlock",
            )
        reason = f"ended with status {code}" if code >= 0 else f"was killed by signal {-code}"
        if code == -24:  # SIGXCPU
            reason = "used more processor time than allowed"
        tail = self.log().strip()[-2000:]
        return self._error(f"{self.entry} {reason}{': ' + tail if tail else ''}")

    def _error(self, message: str, fix: str | None = None) -> UserCodeError:
        return UserCodeError(message, where=str(self.pipeline or self.entry), fix=fix)


def _widen(stream: IO[bytes]) -> None:
    """Ask for a larger pipe; the kernel's default of 64 KiB costs a switch between the processes for each of them."""
    import fcntl  # only where there are pipes to widen

    try:
        fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        return  # over the user's allowance: slower, not wrong


def _write_table(stream: IO[bytes], table: "pa.Table | pa.RecordBatchReader") -> None:
    import pyarrow as pa  # heavy: not every command runs user code

    with pa.ipc.new_stream(pa.PythonFile(stream, mode="w"), table.schema) as writer:
        if isinstance(table, pa.Table):
            writer.write_table(table, max_chunksize=_BATCH_ROWS)
        else:
            for batch in table:
                writer.write_batch(batch)
