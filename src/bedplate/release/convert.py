"""Make ONNX of a version that would run code when loaded, and show that it says the same.

Two limited processes: one loads the model and hands over an ONNX file with what the model said about some rows; the
other, which never saw the model, runs that file on the same rows and compares. Here, where the keys are, the file is
checked to be plain ONNX and nothing else is read of what came back.
"""

from pathlib import PurePosixPath
from typing import Any

import msgspec

from bedplate.bundle import onnx
from bedplate.compute import sandbox
from bedplate.errors import InputError, IntegrityError, UserCodeError
from bedplate.ids import digest_bytes
from bedplate.release import foreign
from bedplate.release.foreign import Files, Findings
from bedplate.usecase.types import Resources

CONVERT, COMPARE = "bedplate.train.conversion:convert", "bedplate.train.conversion:compare"
RESOURCES = Resources(cpu=2, memory=4 << 30)
SECONDS = 300.0
AGREE = 0.99
"""Share of the rows on which both must say the same: a threshold of a tree may fall between two 32-bit numbers."""
SIZE_LIMIT = 1 << 30
"""Bytes of a model that is converted; all of it goes through a pipe."""
_EXAMPLE_LIMIT = 4 << 20
_EXAMPLE_ROWS = 256
_MODEL = "model.onnx"


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """How the converted model compares with the model, on ``rows`` rows."""

    rows: int
    largest: float
    mean: float
    agree: float
    labels: float | None
    tolerance: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX model, and the evidence for it as a fact keeps it."""

    model: bytes
    evidence: dict[str, Any]


def convert(files: Files, findings: Findings, *, seed: int = 7) -> Converted:
    """Convert a model. ``findings`` are what :func:`foreign.inspect` saw in the same files.

    Raises:
        InputError: there is no converter for it, or it is too large.
        UserCodeError: it could not be loaded or converted, or this machine cannot hold code that is not ours.
        MissingExtraError: the library that it needs is not installed.
        IntegrityError: what it was converted to is not plain ONNX, or says something else.
    """
    if findings.converter is None:
        raise InputError(
            f"there is no converter for {', '.join(findings.flavors) or 'this model'}",
            fix=f"log it as ONNX, or as one of {', '.join(foreign.CONVERTERS)}",
        )
    size = sum(file.size for file in files.values())
    if size > SIZE_LIMIT:
        raise InputError(f"the model has {size >> 20} MiB, at most {SIZE_LIMIT >> 20} are converted")
    made = _limited(CONVERT, {"files": _table(_needed(files, findings), "path")}, _parameters(files, findings), seed)
    model = made.files.get(_MODEL, b"")
    try:
        onnx.check(model)
    except ValueError as error:
        raise IntegrityError(f"what the model was converted to cannot be used: {error}", where=findings.data) from error
    said = _limited(COMPARE, {"answers": _table(made.files, "name")}, {}, seed)
    try:
        compared = msgspec.convert(said.result, Compared)
    except msgspec.ValidationError as error:
        raise UserCodeError(f"the comparison cannot be read: {error}") from error
    if compared.agree < AGREE or (compared.labels is not None and compared.labels < AGREE):
        raise IntegrityError(
            f"the converted model says something else: {compared.agree:.1%} of {compared.rows} rows are within "
            f"{compared.tolerance}, the largest difference is {compared.largest:g}"
            + (f", {compared.labels:.1%} have the same label" if compared.labels is not None else ""),
            where=findings.data,
            fix="log the model as ONNX from the code that trained it",
        )
    evidence = {
        "converter": findings.converter,
        "content": findings.content,
        "onnx": digest_bytes(model),
        "size": len(model),
        "isolated": made.isolated,
        "seconds": round(made.seconds + said.seconds, 3),
        "compared": msgspec.to_builtins(compared),
        "rows from": "the model's own example" if findings.example else "a generator with a fixed seed",
    }
    return Converted(model=model, evidence=evidence)


def _limited(entry: str, tables: dict[str, Any], parameters: dict[str, Any], seed: int) -> sandbox.Reply:
    return sandbox.call(
        entry, tables=tables, parameters=parameters, resources=RESOURCES, seed=seed, limit=sandbox.Limit(SECONDS),
        require_isolation=True,
    )  # fmt: skip


def _table(files: dict[str, bytes], name: str) -> Any:
    import pyarrow as pa  # heavy: only a conversion needs it

    return pa.table(
        {name: pa.array(list(files), pa.string()), "data": pa.array(list(files.values()), pa.large_binary())}
    )


def _needed(files: Files, findings: Findings) -> dict[str, bytes]:
    """The file that loading starts from, or all files of the folder that it is."""
    start = PurePosixPath(findings.data)
    wanted = [path for path in files if PurePosixPath(path) == start or start in PurePosixPath(path).parents]
    if not findings.data or not wanted:
        raise InputError(
            f"{foreign.MLMODEL} names {findings.data!r} as the model, and there is no such file", where=foreign.MLMODEL
        )
    return {path: b"".join(files[path].pieces()) for path in wanted}


def _parameters(files: Files, findings: Findings) -> dict[str, Any]:
    known: dict[str, Any] = {
        "converter": findings.converter,
        "data": findings.data,
        "form": findings.form,
        "model_class": findings.model_class,
    }
    example = _example(files, findings)
    inputs = findings.signature.get("inputs")
    if isinstance(inputs, list) and inputs and all(isinstance(each, dict) for each in inputs):
        tensor = inputs[0].get("tensor-spec")
        if inputs[0].get("type") == "tensor" and isinstance(tensor, dict):
            known |= {"shape": tensor.get("shape") or [], "dtype": str(tensor.get("dtype") or "float32")}
        else:
            known["columns"] = [_column(place, each, example) for place, each in enumerate(inputs)]
    if isinstance(example, list):
        known["example"] = example[:_EXAMPLE_ROWS]
    elif isinstance(example, dict) and "columns" not in example:
        known["example"] = example.get("inputs", example.get("data"))
    return known


def _column(place: int, spec: dict[str, Any], example: Any) -> dict[str, Any]:
    name = str(spec.get("name") or f"f{place}")
    column: dict[str, Any] = {"name": name, "type": str(spec.get("type") or "double")}
    if isinstance(example, dict) and isinstance(example.get("data"), list) and isinstance(example.get("columns"), list):
        at = example["columns"].index(name) if name in example["columns"] else None
        if at is not None:
            rows = [row for row in example["data"][:_EXAMPLE_ROWS] if isinstance(row, list) and len(row) > at]
            column["values"] = [row[at] for row in rows]
    return column


def _example(files: Files, findings: Findings) -> Any:
    """The example that the model came with, as JSON says it; None if there is none that can be read."""
    data = foreign.read(files, findings.example, _EXAMPLE_LIMIT) if findings.example else None
    try:
        return None if data is None else msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
