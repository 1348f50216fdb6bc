"""Several models as one: each step takes tensors of the request or of steps before it; the answer is made of theirs.

A bundle of this kind holds ``graph.json`` (:class:`bedplate.graph.Graph`) beside the files that its steps name. ONNX
models run in this process, functions and programs each in a limited one. Models compute on the same threads, so they
run one after the other, in an order that the graph gives; what is computed elsewhere runs beside them and each other,
as far as the graph allows.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate import graph as graphs
from bedplate.bundle.formats import PIPELINE
from bedplate.errors import InputError, IntegrityError
from bedplate.graph import COMBINED, FILE, REQUEST, Graph, Keys, Step
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.durations import Durations
from bedplate.serve.limited import LimitedPredictor, arrays_of
from bedplate.serve.predictors import NO_FEATURES, ONNX_TYPES, Answer, FeatureReader
from bedplate.serve.sessions import Session, open_session, run
from bedplate.serve.tensors import ModelError

PROGRAM = "model.pt2"
"""The name under which a limited process finds a program of torch.export."""
Arrays = dict[str, npt.NDArray[Any]]
Run = Callable[[Arrays], Mapping[str, npt.NDArray[Any]]]
_MEANS = ("FP16", "FP32", "FP64")


class WiringError(InputError):
    """The steps of a graph do not fit each other. ``keys`` lead to the place in the graph."""

    def __init__(self, keys: Keys, message: str, fix: str) -> None:
        super().__init__(message, where=f"graph: {'.'.join(map(str, keys))}", fix=fix)
        self.keys = keys


class Wired(NamedTuple):
    """One step whose tensors are known to fit: by input, or by position for what is combined, where each comes from."""

    name: str
    step: Step
    takes: dict[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    session: Session | None

    @property
    def code(self) -> bool:
        """Whether it is a function or a program, which another process runs."""
        return self.session is None and self.step.combine is None


class Found(NamedTuple):
    """What a step gave, or why it gave nothing; when it began, and the seconds it took."""

    outputs: Arrays
    error: Exception | None
    began: float
    seconds: float


def signature(graph: Graph, files: Mapping[str, bytes]) -> ModelSignature:
    """What the graph takes and gives, with the models in ``files``; no code is run.

    Raises:
        WiringError: the graph is wrong in itself, a model is missing, or tensors do not fit each other.
        IntegrityError: ONNX Runtime does not take a model.
    """
    return _signature(graph, _Wiring(graph, files).steps())


def _signature(graph: Graph, wired: tuple[Wired, ...]) -> ModelSignature:
    known = {f"{one.name}.{spec.name}": spec for one in wired for spec in one.outputs}
    known |= {f"{REQUEST}.{spec.name}": spec for spec in _specs(graph.inputs)}
    outputs = []
    for name, source in graph.outputs.items():
        if source not in known:
            step = graphs.parted(source)[0]
            given = ", ".join(spec.name for one in wired if one.name == step for spec in one.outputs)
            raise WiringError(("outputs", name), f"there is no tensor {source!r}", f"{step} gives {given}")
        outputs.append(msgspec.structs.replace(known[source], name=name))
    used = {*graph.outputs.values(), *(source for one in wired for source in one.takes.values())}
    for name in graph.inputs:
        if f"{REQUEST}.{name}" not in used:
            raise WiringError(("inputs", name), f"no step takes the input {name!r}", "wire it, or leave it out")
    return ModelSignature(
        predictor="graph-limited" if graph.runs_code else "graph",
        inputs=tuple(_specs(graph.inputs)),
        outputs=tuple(outputs),
    )


def _specs(tensors: Mapping[str, graphs.Tensor]) -> Iterator[TensorSpec]:
    for name, tensor in tensors.items():
        yield TensorSpec(name=name, datatype=tensor.datatype, shape=tensor.shape)


class _Wiring:
    """Finds out what each step takes and gives, from the first to the last."""

    def __init__(self, graph: Graph, files: Mapping[str, bytes], threads: int = 1) -> None:
        for problem in graphs.problems(graph):
            raise WiringError(problem.keys, problem.message, f"write {problem.allowed}")
        self._graph, self._files, self._threads = graph, files, threads
        self._known = {f"{REQUEST}.{spec.name}": spec for spec in _specs(graph.inputs)}

    def steps(self) -> tuple[Wired, ...]:
        """Every step, in the order in which they run."""
        wired = []
        for name in graphs.order(self._graph):
            step = self._graph.steps[name]
            one = self._combining(name, step) if step.combine else self._asking(name, step)
            self._known |= {f"{name}.{spec.name}": spec for spec in one.outputs}
            wired.append(one)
        return tuple(wired)

    def _spec(self, keys: Keys, source: str) -> TensorSpec:
        if source not in self._known:
            step = graphs.parted(source)[0]
            given = ", ".join(key for key in self._known if graphs.parted(key)[0] == step)
            raise WiringError(keys, f"there is no tensor {source!r}", f"take one of {given}")
        return self._known[source]

    def _combining(self, name: str, step: Step) -> Wired:
        specs = [self._spec(("steps", name, "of", i), source) for i, source in enumerate(step.of)]
        first, shape = specs[0], specs[0].shape
        for i, spec in enumerate(specs):
            keys = ("steps", name, "of", i)
            if spec.datatype != first.datatype:
                raise WiringError(
                    keys,
                    f"{step.of[i]} is {spec.datatype}, {step.of[0]} is {first.datatype}",
                    "combine tensors of one type",
                )
            joined = _joined(shape, spec.shape)
            if joined is None:
                raise WiringError(
                    keys, f"{step.of[i]} is {list(spec.shape)}, those before it {list(shape)}", "combine one shape"
                )
            shape = joined
        if step.combine == "mean" and first.datatype not in _MEANS:
            raise WiringError(("steps", name), f"{first.datatype} has no mean", f"combine {', '.join(_MEANS)}, or vote")
        if step.combine == "vote" and first.datatype in _MEANS:
            raise WiringError(
                ("steps", name), f"there is no vote on {first.datatype}", "vote on labels, or take the mean"
            )
        takes = {str(i): source for i, source in enumerate(step.of)}
        output = TensorSpec(name=COMBINED, datatype=first.datatype, shape=shape)
        return Wired(name, step, takes, tuple(specs), (output,), None)

    def _asking(self, name: str, step: Step) -> Wired:
        session = None
        wanted: dict[str, TensorSpec | None]
        if step.model is not None:
            session = open_session(self._file(name, "model", step.model), self._threads)
            inputs, outputs = (_described(nodes) for nodes in (session.get_inputs(), session.get_outputs()))
            wanted = {spec.name: spec for spec in inputs}
            if odd := [given for given in step.inputs if given not in wanted]:
                raise WiringError(
                    ("steps", name, "inputs", odd[0]),
                    f"{step.model} has no input {odd[0]!r}",
                    f"wire {', '.join(wanted)}",
                )
        else:
            if step.program is not None:
                self._file(name, "program", step.program)
            elif PIPELINE not in self._files:
                raise WiringError(("steps", name, "function"), f"there is no {PIPELINE}", f"write {PIPELINE}")
            wanted = dict.fromkeys(step.inputs)
            outputs = tuple(_specs(step.outputs))
        takes, specs = {}, []
        for given, spec in wanted.items():
            keys = ("steps", name, "inputs", given)
            takes[given] = source = step.inputs.get(given, f"{REQUEST}.{given}")
            if given not in step.inputs and source not in self._known:
                raise WiringError(keys, f"nothing says where the input {given!r} comes from", "wire it")
            found = self._spec(keys, source)
            if spec is not None and found.datatype != spec.datatype:
                raise WiringError(
                    keys, f"{source} is {found.datatype}, the model takes {spec.datatype}", "cast one of them"
                )
            # Whoever exported a graph without shapes left them open: ONNX Runtime then gives none.
            if spec is not None and spec.shape and _joined(found.shape, spec.shape) is None:
                raise WiringError(
                    keys, f"{source} is {list(found.shape)}, the model takes {list(spec.shape)}", "wire one that fits"
                )
            specs.append(msgspec.structs.replace(found, name=given))
        return Wired(name, step, takes, tuple(specs), outputs, session)

    def _file(self, name: str, kind: str, file: str) -> bytes:
        if file not in self._files:
            there = ", ".join(sorted(self._files)) or "none"
            raise WiringError(("steps", name, kind), f"the release has no file {file!r}", f"name one of: {there}")
        return self._files[file]


def _described(nodes: Any) -> tuple[TensorSpec, ...]:
    found = []
    for node in nodes:
        datatype = ONNX_TYPES.get(node.type, node.type)
        shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
        found.append(TensorSpec(name=node.name, datatype=datatype, shape=shape))
    return tuple(found)


def _joined(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of what is of both shapes, free sizes taken from the other; None if nothing is."""
    if not one or not other:
        return one or other
    if len(one) != len(other) or any(a != b and -1 not in (a, b) for a, b in zip(one, other, strict=True)):
        return None
    return tuple(max(a, b) for a, b in zip(one, other, strict=True))


class GraphPredictor:
    """Answers with a graph. ``runs`` computes each step by its name: named arrays in, its outputs by name.

    Those of the steps ``elsewhere`` spend their time waiting for a process of their own.
    """

    def __init__(
        self, graph: Graph, wired: tuple[Wired, ...], runs: Mapping[str, Run], elsewhere: frozenset[str] = frozenset()
    ) -> None:
        self.signature = _signature(graph, wired)
        self.waits = graph.runs_code
        """Whether it spends its time waiting for other processes, so that it must not be called from an event loop."""
        self.steps = {one.name: Durations() for one in wired}
        self._wired, self._runs = wired, runs
        self._outputs = graph.outputs
        self._elsewhere = elsewhere
        self._threads = ThreadPoolExecutor(max(1, len(elsewhere)), "step")

    def predict(self, inputs: Arrays, features: FeatureReader) -> Answer:
        """The answer, and when each step began and what it took. No step reads online features.

        Raises:
            InputError: a step refuses the values.
            ModelError: a step failed, or gave what it does not promise.
        """
        begun = perf_counter()
        held = {f"{REQUEST}.{name}": array for name, array in inputs.items()}
        found: dict[str, Found] = {}
        to_do, running = list(self._wired), dict[Future[Found], Wired]()
        try:
            while to_do or running:
                for one, given in self._next(to_do, running, held):
                    found[one.name] = self._counted(one.name, given)
                    held |= {f"{one.name}.{name}": array for name, array in given.outputs.items()}
        finally:
            wait(running)  # where a step failed: a process answers one at a time
        return Answer(
            outputs={name: held[source] for name, source in self._outputs.items()},
            steps={one.name: (found[one.name].began - begun, found[one.name].seconds) for one in self._wired},
        )

    def _next(self, to_do: list[Wired], running: dict[Future[Found], Wired], held: Arrays) -> list[tuple[Wired, Found]]:
        """Begin what can be begun, and give what is done first: at least one step."""
        ready = [one for one in to_do if held.keys() >= set(one.takes.values())]
        here = next((one for one in ready if one.name not in self._elsewhere), None)
        if len(ready) == 1 and not running:  # nothing can be beside it
            here = ready[0]
        for one in ready:
            if one is not here and one.name in self._elsewhere:
                running[self._threads.submit(self._compute, one, _taken(one, held))] = one
                to_do.remove(one)
        if here is not None:
            to_do.remove(here)
            return [(here, self._compute(here, _taken(here, held)))]
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        return [(running.pop(one), one.result()) for one in done]

    def _compute(self, one: Wired, taken: Arrays) -> Found:
        started = perf_counter()
        try:
            given = self._runs[one.name](taken)
            outputs = {spec.name: _checked(given, spec) for spec in one.outputs}
        except Exception as error:  # noqa: BLE001  it is raised where the step is counted
            return Found({}, error, started, perf_counter() - started)
        return Found(outputs, None, started, perf_counter() - started)

    def _counted(self, name: str, given: Found) -> Found:
        error = given.error
        if error is None:
            self.steps[name].add(given.seconds)
            return given
        self.steps[name].failures += 1
        if isinstance(error, InputError | ModelError):
            raise type(error)(f"step {name!r}: {error.message}", fix=error.fix) from error
        raise error


def _taken(one: Wired, held: Arrays) -> Arrays:
    return {name: held[source] for name, source in one.takes.items()}


def _checked(found: Mapping[str, npt.NDArray[Any]], spec: TensorSpec) -> npt.NDArray[Any]:
    array = found.get(spec.name)
    if array is None:
        raise ModelError(f"it gave no {spec.name!r}")
    if spec.shape and (
        len(array.shape) != len(spec.shape)
        or any(size not in (-1, given) for size, given in zip(spec.shape, array.shape, strict=True))
    ):
        raise ModelError(f"it gave {spec.name!r} of shape {list(array.shape)}, not {list(spec.shape)}")
    return array


def assemble(
    files: Mapping[str, bytes],
    promised: ModelSignature | None = None,
    *,
    threads: int = 1,
    functions: Mapping[str, Callable[..., Mapping[str, Any]]] | None = None,
) -> GraphPredictor:
    """The predictor from the files of a bundle and what its signature says.

    With ``functions`` the caller is the limited process: the functions that the graph names are called here.

    Raises:
        IntegrityError: a file is missing or cannot be used, or the graph is not what the signature says.
        UnavailableError: a step is code that is not ours, and this machine cannot hold it.
    """
    try:
        graph = msgspec.json.decode(files[FILE], type=Graph)
        wired = _Wiring(graph, files, threads).steps()
        found = _signature(graph, wired)
    except (KeyError, msgspec.MsgspecError) as error:
        raise IntegrityError(f"the bundle does not say its graph: {error}", where=FILE) from error
    except WiringError as error:
        raise IntegrityError(f"the graph cannot answer: {error.message}", where=error.where) from error
    if promised is not None and promised != found:
        raise IntegrityError("the graph is not what the signature says", where=FILE)
    runs = {one.name: _run(one, files, threads, functions) for one in wired}
    elsewhere = frozenset(one.name for one in wired if one.code and functions is None)
    return GraphPredictor(graph, wired, runs, elsewhere)


def _run(
    one: Wired,
    files: Mapping[str, bytes],
    threads: int,
    functions: Mapping[str, Callable[..., Mapping[str, Any]]] | None,
) -> Run:
    step = one.step
    names = [spec.name for spec in one.outputs]
    if one.session is not None:
        session = one.session
        return lambda arrays: dict(zip(names, run(session, names, arrays), strict=True))
    if step.combine is not None:
        weights = np.array(step.weights or [1.0] * len(step.of))
        combine = _mean if step.combine == "mean" else _vote
        return lambda arrays: {COMBINED: combine(_alike(arrays), weights)}
    if functions is not None:
        if step.function is None or step.function not in functions:
            raise InputError(f"step {one.name!r} cannot be run here", fix="give its function")
        function, types = functions[step.function], {spec.name: spec.datatype for spec in one.outputs}
        return lambda arrays: arrays_of(function(arrays), types)
    return _limited(one, files, threads)


def _limited(one: Wired, files: Mapping[str, bytes], threads: int) -> Run:
    step = one.step
    if step.program is not None:
        held, kind = {PROGRAM: files[step.program]}, "torch-export"
    else:
        held, kind = {name: data for name, data in files.items() if name != FILE}, "python"
    inside = ModelSignature(predictor=kind, inputs=one.inputs, outputs=one.outputs)
    predictor = LimitedPredictor(kind, held, inside, threads=threads, function=step.function or "")  # type: ignore[arg-type]
    return lambda arrays: predictor.predict(arrays, NO_FEATURES).outputs


def _alike(arrays: Arrays) -> list[npt.NDArray[Any]]:
    found = [*arrays.values()]
    if any(array.shape != found[0].shape for array in found):
        shapes = ", ".join(str(list(array.shape)) for array in found)
        raise ModelError(f"it cannot combine tensors of the shapes {shapes}")
    return found


def _mean(arrays: list[npt.NDArray[Any]], weights: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """The weighted mean, element by element: computed in 64 bits, given in the type of the tensors."""
    total = np.zeros(arrays[0].shape)
    for weight, array in zip(weights, arrays, strict=True):
        total += weight * array.astype(np.float64)
    with np.errstate(over="ignore"):  # what becomes infinite is no number, and is said so of the answer
        return np.asarray(total / weights.sum(), np.float64).astype(arrays[0].dtype)


def _vote(arrays: list[npt.NDArray[Any]], weights: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """The label with the most weight behind it, element by element; of several the one that is named first."""
    said = np.stack(arrays)
    behind = np.stack([np.tensordot(weights, (said == one).astype(np.float64), 1) for one in said])
    return np.asarray(np.take_along_axis(said, behind.argmax(0)[None], 0)[0])
