"""The entry of a limited predictor: ``python -m bedplate.serve.inside <pid of the replica>``.

It reads a header from the socket that it was given, gives up everything but the interpreter and its working folder,
and only then loads the code of the bundle and answers requests, one after the other, until the socket closes.
"""

import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from bedplate.isolation import confine, wire

_HEADER_LIMIT = 1 << 20
_REQUEST_LIMIT = 1 << 30
_PIPELINE, _MODEL = "pipeline.py", "model.pt2"

Function = Callable[[dict[str, Any]], Mapping[str, Any]]


def main() -> None:
    """Load, then answer."""
    confine.die_with_parent(int(sys.argv[1]))
    requests = io.BufferedReader(io.FileIO(0, closefd=False), 1 << 16)
    answers = io.BufferedWriter(io.FileIO(os.dup(0), "wb"), 1 << 20)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    frame = wire.read(requests, {"header": _HEADER_LIMIT})
    if frame is None:
        return
    header = json.loads(frame[1])
    confine.limit(memory=header["memory"], cpu_seconds=None)
    isolation = confine.confine(readable=[], scratch=Path(header["scratch"]))
    wire.write(answers, "confined", json.dumps(isolation).encode())
    if not isolation.isolated:
        return
    try:
        import bedplate.serve.limited  # noqa: F401  with NumPy, which the first request would pay otherwise

        function = _python(header["function"]) if header["kind"] == "python" else _torch_export(header)
    except BaseException as error:  # noqa: BLE001  whatever the user's code raises is why it cannot be loaded
        wire.write(answers, "error", _described(error))
        return
    wire.write(answers, "result", b"")
    _serve(function, header["outputs"], requests, answers)


def _serve(function: Function, outputs: dict[str, str], requests: BinaryIO, answers: BinaryIO) -> None:
    from bedplate.serve import limited  # NumPy starts threads: only after the process is confined

    while (frame := wire.read(requests, {"request": _REQUEST_LIMIT})) is not None:
        try:
            message = limited.pack(limited.arrays_of(function(limited.unpack(frame[1])), outputs), outputs)
        except Exception as error:  # noqa: BLE001  it fails one request
            wire.write(answers, "error", _described(error))
        else:
            wire.write(answers, "result", message)


def _python(name: str) -> Function:
    """The function that ``pipeline.py`` marks with ``@predictor``, of several the one of that name."""
    import importlib.util

    from bedplate.pipeline import mark_of

    spec = importlib.util.spec_from_file_location("pipeline", Path(_PIPELINE).resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pipeline"] = module
    spec.loader.exec_module(module)
    marked = [
        value
        for value in vars(module).values()
        if (mark := mark_of(value)) and mark.kind == "predictor" and name in ("", mark.name)
    ]
    if len(marked) != 1:
        called = f" called {name}" if name else ""
        raise LookupError(f"{_PIPELINE} marks {len(marked)} functions{called} with @predictor, and one is called")
    function: Function = marked[0]
    return function


def _torch_export(header: dict[str, Any]) -> Function:
    """The program in ``model.pt2``, called with the inputs of the signature in their order."""
    import torch  # only here: it is in no trusted process, and only where somebody serves such a program

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    module = torch.export.load(Path(_MODEL).resolve()).module()
    names, wanted = header["inputs"], list(header["outputs"])

    def call(inputs: dict[str, Any]) -> Mapping[str, Any]:
        with torch.no_grad():
            found = module(*(torch.from_numpy(inputs[name].copy()) for name in names))
        values = found if isinstance(found, tuple | list) else [found]
        if isinstance(found, dict):
            values = [found[name] for name in wanted]
        return {name: value.numpy() for name, value in zip(wanted, values, strict=True)}

    return call


def _described(error: BaseException) -> bytes:
    """What was raised, and where: a line of the user's file, since ours would tell the user nothing."""
    from bedplate.errors import InputError

    lines = [f.lineno or 0 for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == _PIPELINE]
    if isinstance(error, SyntaxError):
        lines = [error.lineno or 0]
    ours = isinstance(error, InputError)
    message = error.message if isinstance(error, InputError) else str(error)
    told = {"type": type(error).__name__, "message": message[:8000], "line": lines[-1] if lines else 0, "ours": ours}
    return json.dumps(told).encode()


if __name__ == "__main__":
    main()
