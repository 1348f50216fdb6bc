"""The entry of a limited process: ``python -m bedplate.compute.limited <pid of the owner>``.

It reads a header from standard input, gives up everything it does not need, and only then imports anything heavy, reads
rows and runs the code it was asked to run. Whatever that code prints goes to standard error; answers go out as frames.
"""

import contextlib
import importlib
import importlib.util
import inspect
import io
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

from bedplate.compute.task import Result, Task
from bedplate.errors import BedplateError, NotFoundError
from bedplate.extensions import require
from bedplate.isolation import confine, wire
from bedplate.pipeline import Mark, mark_of

if TYPE_CHECKING:
    import pyarrow as pa

    from bedplate.compute.watched import Watch

_HEADER_LIMIT = 64 << 20
_BUFFER = 1 << 20


def main() -> None:
    """Serve one call, then end."""
    confine.die_with_parent(int(sys.argv[1]))
    rows = io.BufferedReader(io.FileIO(0, closefd=False), _BUFFER)
    answers = io.BufferedWriter(io.FileIO(os.dup(1), "wb"), _BUFFER)
    os.dup2(2, 1)  # print() of user code must not mix with the frames
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # the owner does not wait for buffers once it has the answer
    frame = wire.read(rows, {"header": _HEADER_LIMIT})
    if frame is None:
        return
    header = json.loads(frame[1])
    pipeline = Path(header["pipeline"]) if header["pipeline"] else None
    confine.limit(memory=header["memory"], cpu_seconds=header["cpu_seconds"])
    isolation = confine.confine(readable=[pipeline] if pipeline else [], scratch=Path(header["scratch"]))
    wire.write(answers, "confined", json.dumps(isolation).encode())
    if header["require_isolation"] and not isolation.isolated:
        return
    try:
        _serve(header, pipeline, rows, answers)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises is its answer
        wire.write(answers, "error", json.dumps(_describe_error(error, pipeline)).encode())


def _serve(header: dict[str, Any], pipeline: Path | None, rows: BinaryIO, answers: BinaryIO) -> None:
    if header["entry"] is None:
        assert pipeline is not None
        _answer(answers, Result(result={"declared": _declared(_load(pipeline))}))
        return

    watch = _watch(header, answers)

    def progress(message: str, done: float | None = None, total: float | None = None) -> None:
        event = [str(message), None if done is None else float(done), None if total is None else float(total)]
        with watch.telling() if watch is not None else contextlib.nullcontext():
            wire.write(answers, "progress", json.dumps(event).encode())

    tables = _read_tables(header["tables"], rows)
    if watch is not None:
        watch.load()
    function = _function(header["entry"], pipeline)
    files = {name: (Path(header["scratch"]) / name).read_bytes() for name in header["files"]}
    task = Task(
        tables=tables, files=files, parameters=header["parameters"], seed=header["seed"], progress=progress
    )  # fmt: skip
    mark = mark_of(function)
    if mark is not None and mark.kind == "dataset":
        _answer(answers, _cleaned(function, mark, tables))
        return
    if mark is not None and mark.kind == "network":
        _answer(answers, _exported(function))
        return
    if watch is not None:
        watch.work(pipeline.read_text(errors="replace") if pipeline else "")
        function(task)
        watch.finish()
        return
    result = function(task)
    if not isinstance(result, Result):
        raise TypeError(f"{header['entry']} returned {type(result).__name__}, not bedplate.compute.task.Result")
    _answer(answers, result)


def _watch(header: dict[str, Any], answers: BinaryIO) -> "Watch | None":
    """What watches the work from its first row on, where somebody wants to know what it waits for."""
    if header["watch"] is None:
        return None
    from bedplate.compute.watched import Watch  # most work is not watched

    watch = Watch(header["watch"], Path(header["scratch"]), lambda result: _answer(answers, result))
    watch.start()
    import pyarrow as pa  # noqa: F401  as reading rows would do first

    watch.wait()
    return watch


def _answer(answers: BinaryIO, result: Result) -> None:
    for name, data in result.files.items():
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"file {name!r} is {type(data).__name__}, not bytes")
        wire.write(answers, "name", str(name).encode())
        wire.write(answers, "file", memoryview(data).cast("B"))
    wire.write(answers, "result", json.dumps(result.result, allow_nan=False).encode())


def _read_tables(names: list[str], rows: BinaryIO) -> "dict[str, pa.Table]":
    import pyarrow as pa  # heavy, and it starts threads: only after the process is confined

    # One Arrow IPC stream after the other; each ends with its own end-of-stream mark.
    return {name: pa.ipc.open_stream(pa.PythonFile(rows, mode="r")).read_all() for name in names}


def _cleaned(function: Callable[..., Any], mark: Mark, tables: "dict[str, pa.Table]") -> Result:
    """Run a ``@dataset`` function: Arrow table in, Arrow table out, which goes back as an Arrow IPC stream."""
    import pyarrow as pa  # see _read_tables

    table = function(tables[str(mark.options["name"])])
    if not isinstance(table, pa.Table):
        raise TypeError(f"{mark.name} returned {type(table).__name__}, not a pyarrow.Table")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Result(files={"table.arrow": sink.getvalue().to_pybytes()}, result={"rows": table.num_rows})


def _exported(function: Callable[..., Any]) -> Result:
    """Run a ``@network`` function; the graph of its module goes back as JSON, which is counted without torch."""
    torch = require("torch", "torch")
    from bedplate.plan import programs  # see _read_tables

    module, *example = function()
    archive = io.BytesIO()
    with torch.no_grad():
        torch.export.save(torch.export.export(module.eval(), tuple(example)), archive)
    return Result(files={programs.GRAPH: programs.description(archive)})


def _load(pipeline: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pipeline", pipeline)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pipeline"] = module
    spec.loader.exec_module(module)
    return module


def _function(entry: str, pipeline: Path | None) -> Callable[..., Any]:
    module_name, _, name = entry.rpartition(":")
    if module_name == "pipeline":
        assert pipeline is not None
        module = _load(pipeline)
    else:
        module = importlib.import_module(module_name)
    function = getattr(module, name, None)
    if not callable(function):
        raise NotFoundError(f"{module_name} has no function {name!r}", where=str(pipeline or module_name))
    return function  # type: ignore[no-any-return]


def _declared(module: ModuleType) -> list[dict[str, Any]]:
    """Every marked function of a pipeline, in file order; of a feature view also the SQL that it returns."""
    found: list[dict[str, Any]] = []
    for value in vars(module).values():
        mark = mark_of(value)
        if mark is None:
            continue
        sql = None
        if mark.kind == "feature_view":
            sql = value()
            if not isinstance(sql, str):
                raise TypeError(f"feature view {mark.name} returned {type(sql).__name__}, not SQL text")
        line = inspect.unwrap(value).__code__.co_firstlineno
        found.append({"name": mark.name, "kind": mark.kind, "options": dict(mark.options), "sql": sql, "line": line})
    return sorted(found, key=lambda declared: declared["line"])


def _describe_error(error: BaseException, pipeline: Path | None) -> dict[str, Any]:
    """What went wrong, and where: only frames of the user's file, since ours would tell the user nothing."""
    if isinstance(error, SyntaxError) and pipeline is not None and error.filename == str(pipeline):
        frames = [(error.lineno or 0, "", (error.text or "").strip())]
    else:
        frames = [
            (frame.lineno or 0, frame.name, frame.line or "")
            for frame in traceback.extract_tb(error.__traceback__)
            if pipeline is not None and frame.filename == str(pipeline)
        ]
    ours = error if isinstance(error, BedplateError) else None
    return {
        "type": type(error).__name__,
        "message": ours.message if ours else str(error),
        "code": ours.code if ours else None,
        "where": ours.where if ours else None,
        "fix": ours.fix if ours else None,
        "frames": frames[-20:],
        "trace": [] if ours or frames else traceback.format_exception(error)[-4:],
    }


if __name__ == "__main__":
    main()
