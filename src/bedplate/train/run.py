"""One training run: rows to a limited process, artifacts and figures back."""

import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from bedplate import graph as graphs
from bedplate import ids
from bedplate.bundle import onnx
from bedplate.bundle.formats import PIPELINE
from bedplate.bundle.manifest import check_name
from bedplate.compute import sandbox
from bedplate.errors import InputError, UserCodeError
from bedplate.graph import Graph
from bedplate.ids import Digest
from bedplate.records import Comparison, FeatureSet, Metric, ModelSignature, TableVersion, TrainResult
from bedplate.usecase import Loaded
from bedplate.usecase.types import UseCase

if TYPE_CHECKING:
    import pyarrow as pa

    from bedplate.data.reads import Reader

WIRED = "bedplate.train.wired:train"
RECIPES = {"recommender": "bedplate.train.recommender:train", "tabular": "bedplate.train.tabular:train"}
_GRACE = 60.0
"""Seconds in which one that is watched has to come to an end, and its trace to be written."""
_LIBRARIES = ("bedplate", "lightgbm", "implicit", "numpy", "onnx", "onnxruntime", "pyarrow", "scikit-learn", "scipy")


class Artifacts(Protocol):
    """Where files are kept under their digest."""

    def put(self, data: bytes, /) -> Digest:
        """Keep the bytes of one file."""
        ...


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a training function must say beside its files; more is allowed and ignored.

    ``signature`` is left out where the file wires a graph: that follows from its models.
    """

    signature: ModelSignature | None = None
    metrics: tuple[Metric, ...]
    comparisons: tuple[Comparison, ...] = ()
    parameters: dict[str, Any] = {}
    split: dict[str, Any] = {}
    checks: dict[str, Any] = {}


class Prepared(NamedTuple):
    """What a training is called with: its entry, the file that it comes from (None: a recipe), rows and files."""

    entry: str
    pipeline: Path | None
    tables: "dict[str, pa.RecordBatchReader]"
    versions: tuple[TableVersion, ...]
    files: dict[str, bytes]
    parameters: dict[str, Any]


def prepare(
    loaded: Loaded,
    reader: "Reader",
    inputs: Mapping[str, TableVersion],
    features: FeatureSet | None,
    *,
    pipeline: Path | None = None,
    declared: Iterable[sandbox.Declared] = (),
) -> Prepared:
    """The function that ``pipeline.py`` marks, else the workload's recipe, and what it works on.

    ``inputs`` maps data sets to the versions to read; rows come through ``reader``, so policy applies to training too.

    Raises:
        InputError: nothing trains that kind of workload, or a data set or model is not there.
    """
    use_case = loaded.use_case
    function = next((d for d in declared if d.kind == "train"), None)
    kind = use_case.workload.kind
    if function is None and use_case.graph is None and kind not in RECIPES:
        raise InputError(
            f"{kind} is a kind that Bedplate plans and has no recipe to train",
            where="workload.kind",
            fix="mark a function of pipeline.py that trains it; `bedplate plan` says on which machines",
        )
    recipe = RECIPES.get(kind, kind) if use_case.graph is None else WIRED
    tables, versions = _tables(reader, inputs, features, function)
    models = imported(loaded)
    if use_case.graph is not None:
        models[graphs.FILE] = msgspec.json.encode(use_case.graph)
        if function is None:
            _wired(loaded, use_case.graph, models)  # nothing that training makes could mend it
    return Prepared(
        entry=f"pipeline:{function.name}" if function else recipe,
        pipeline=pipeline if function else None,
        tables=tables,
        versions=versions,
        files=models,
        parameters=_parameters(use_case, features),
    )


def call(
    loaded: Loaded,
    made: Prepared,
    *,
    on_progress: Callable[[str, float | None, float | None], None] | None = None,
    on_usage: sandbox.OnUsage | None = None,
    limit: sandbox.Limit = sandbox.DAY,
    watch: float | None = None,
) -> sandbox.Reply:
    """Call a training in a limited process.

    With ``watch`` it is only watched: see :func:`~.sandbox.call`.

    Raises:
        UserCodeError: the training function raised, was stopped, or its answer cannot be used.
    """
    train = loaded.use_case.train
    return sandbox.call(
        made.entry,
        pipeline=made.pipeline,
        tables=made.tables,
        parameters=made.parameters,
        files=made.files,
        resources=train.resources,
        seed=train.seed,
        on_progress=on_progress,
        on_usage=on_usage,
        require_isolation=loaded.use_case.risk.level == "high",
        limit=limit if watch is None else sandbox.Limit(watch + _GRACE),
        watch=watch,
    )


def run(
    loaded: Loaded,
    made: Prepared,
    artifacts: Artifacts,
    *,
    pipeline: Path | None = None,
    on_progress: Callable[[str, float | None, float | None], None] | None = None,
    on_usage: sandbox.OnUsage | None = None,
    limit: sandbox.Limit = sandbox.DAY,
) -> TrainResult:
    """Train as the file says, and keep what came out.

    What the file wires as a graph is released as one, and so is ``pipeline.py`` where it answers requests.

    Raises:
        UserCodeError: the training function raised, was stopped, or its answer cannot be used.
        InputError: the data or the parameters do not suit the recipe.
        StorageError: an artifact cannot be kept.
    """
    use_case, entry = loaded.use_case, made.entry
    code = ids.digest_of({"entry": entry, "pipeline": ids.digest_file(made.pipeline) if made.pipeline else None})
    reply = call(loaded, made, on_progress=on_progress, on_usage=on_usage, limit=limit)
    answer = _answer(reply, str(pipeline or entry), entry)
    if not reply.files and not use_case.train.models:
        raise UserCodeError(f"{entry} made no file", where=str(pipeline or entry), fix="return the model in files")
    files, signature = _released(loaded, reply.files, made.files, answer.signature, pipeline, entry)
    return TrainResult(
        run_id=ids.new_id("run"),
        workload=use_case.workload.kind,
        artifacts={name: artifacts.put(data) for name, data in sorted(files.items())},
        signature=signature,
        parameters=answer.parameters,
        metrics=answer.metrics,
        comparisons=answer.comparisons,
        split={**answer.split, "checks": answer.checks},
        inputs=made.versions,
        code_digest=code,
        environment_digest=environment(),
        seed=use_case.train.seed,
        seconds=reply.seconds,
        isolated=reply.isolated,
    )


def imported(loaded: Loaded) -> dict[str, bytes]:
    """The ONNX models that the file names, by their own names.

    Raises:
        InputError: one cannot be read, or is not an ONNX model that runs no code and is whole.
    """
    found = {}
    for i, path in enumerate(loaded.use_case.train.models):
        where = f"{loaded.path}:{loaded.line('train', 'models', i)}"
        try:
            name, data = Path(path).name, (loaded.folder / path).read_bytes()
            check_name(name)
            onnx.check(data)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}", where=where, fix="correct the path") from error
        except ValueError as error:
            raise InputError(f"{path} cannot be used: {error}", where=where, fix="export it again, whole") from error
        found[name] = data
    return found


def _answer(reply: sandbox.Reply, where: str, entry: str) -> _Answer:
    try:
        return msgspec.convert(reply.result, _Answer)
    except msgspec.ValidationError as error:
        raise _unusable(entry, where, str(error)) from error


def _unusable(entry: str, where: str, reason: str) -> UserCodeError:
    return UserCodeError(
        f"the answer of {entry} cannot be used: {reason}",
        where=where,
        fix="return Result(files, result) with signature and metrics, as the recipes do",
    )


def _wired(loaded: Loaded, graph: Graph, files: Mapping[str, bytes]) -> ModelSignature:
    from bedplate.serve import graph as wiring  # with ONNX Runtime, which only a graph needs here

    try:
        return wiring.signature(graph, files)
    except wiring.WiringError as error:
        line = f"{loaded.path}:{loaded.line('graph', *error.keys)}"
        raise InputError(f"the graph cannot answer: {error.message}", where=line, fix=error.fix) from error


def _released(
    loaded: Loaded,
    made: Mapping[str, bytes],
    models: Mapping[str, bytes],
    said: ModelSignature | None,
    pipeline: Path | None,
    entry: str,
) -> tuple[dict[str, bytes], ModelSignature]:
    """The files of the release, and its signature."""
    graph, where = loaded.use_case.graph, str(pipeline or entry)
    if twice := sorted(made.keys() & models.keys()):
        raise UserCodeError(f"{entry} made {twice[0]}, which the file brings", where=where, fix="rename one of them")
    files = {**models, **made}
    answers = graph.runs_functions if graph is not None else said is not None and said.predictor == "python"
    if answers and pipeline is not None:
        files.setdefault(PIPELINE, pipeline.read_bytes())
    if graph is None:
        if said is None:
            raise _unusable(entry, where, "it says no signature")
        return files, said
    signature = _wired(loaded, graph, files)
    if said not in (None, signature):
        raise _unusable(entry, where, "its signature is not that of the graph; leave it out")
    return files, signature


def environment() -> Digest:
    """The digest of the interpreter and the libraries that can change what a recipe makes."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return ids.digest_of(versions)


def _tables(
    reader: "Reader",
    inputs: Mapping[str, TableVersion],
    features: FeatureSet | None,
    function: sandbox.Declared | None,
) -> tuple[dict[str, "pa.RecordBatchReader"], tuple[TableVersion, ...]]:
    asked = function.options.get("inputs") if function else None
    wanted: Mapping[str, Any] = dict.fromkeys(inputs) if asked is None else asked
    tables, versions = {}, []
    for name, columns in wanted.items():
        if name not in inputs:
            raise InputError(
                f"training asks for {name!r}, which is no data set of this use case",
                where="pipeline.py",
                fix=f"name one of {', '.join(inputs)}",
            )
        tables[name] = reader.read(inputs[name], None if columns is None else list(columns))
        versions.append(inputs[name])
    for name, version in (features.views if features else {}).items():
        if name in tables:
            raise InputError(f"{name!r} is both a data set and a feature view", where="features", fix="rename one")
        tables[name] = reader.read(version)
        versions.append(version)
    return tables, tuple(versions)


def _as_declared(joined: dict[str, Any], features: FeatureSet) -> dict[str, Any]:
    """What the file says of the features that are joined, over what their views declare."""
    named = joined.get("view")
    chosen = [features.declared[name] for name in ([named] if isinstance(named, str) else named or ())
              if name in features.declared]  # fmt: skip
    ages = [view.ttl for view in chosen if view.ttl is not None]
    return {
        **({"max_age": f"{min(ages)!r} s"} if ages else {}),
        "on_demand": {name: text for view in chosen for name, text in view.on_demand.items()},
        **joined,
        "defaults": {name: value for view in chosen for name, value in view.defaults.items()}
        | joined.get("defaults", {}),
    }


def _parameters(use_case: UseCase, features: FeatureSet | None) -> dict[str, Any]:
    parameters: dict[str, Any] = {"threads": use_case.train.resources.cpu, **use_case.train.parameters}
    if features is not None:
        parameters["as_of"] = list(features.as_of)
        if isinstance(joined := parameters.get("features"), dict):
            parameters["features"] = _as_declared(joined, features)
    if use_case.workload.kind == "recommender":
        parameters.setdefault("latency", use_case.requirements.p99)
    if use_case.workload.kind == "tabular":
        parameters |= {"target": use_case.workload.target, "task": use_case.workload.task}
        if use_case.train.holdout is not None:
            parameters["holdout"] = use_case.train.holdout
    return parameters
