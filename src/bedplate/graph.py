"""A graph: several models as one release, wired by the names of their tensors, and the laws of its shape.

What is wrong with a graph in itself is said here, wherever it is written: in ``usecase.yaml``, line by line, and in
the ``graph.json`` of a bundle. Whether tensors fit each other is known once the models are there, by
:mod:`bedplate.serve.graph`.
"""

import math
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

FILE = "graph.json"
"""What a bundle keeps a graph in."""
REQUEST = "request"
"""What stands for a step in the source of a tensor that the request brings."""
COMBINED = "value"
"""The one output of a step that combines."""
MOST_STEPS = 64
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_KINDS = ("model", "function", "program", "combine")

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
Keys = tuple[str | int, ...]


class Tensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A datatype of the Open Inference Protocol and a shape, in which -1 is a free dimension."""

    datatype: Datatype
    shape: tuple[int, ...]


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step: a ``model`` (an ONNX file), a ``function`` of ``pipeline.py`` or a ``program`` of torch.export, which
    run in a limited process, or a way to ``combine`` the tensors ``of`` other steps.

    ``inputs`` say where each input comes from: ``request.NAME`` or ``STEP.TENSOR``; an input of a model that is left
    out comes from the request under its own name. ``outputs`` are those of a function or program, whose file does not
    say them. With ``weights`` a mean is weighted, and votes count as much; without, each tensor counts the same.
    """

    model: str | None = None
    function: str | None = None
    program: str | None = None
    combine: Literal["mean", "vote"] | None = None
    inputs: dict[str, str] = {}
    of: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    outputs: dict[str, Tensor] = {}

    @property
    def runs_code(self) -> bool:
        """Whether it is code that is not ours."""
        return self.function is not None or self.program is not None


class Graph(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Steps that answer a request together: what the request brings, and from which tensors the answer is made."""

    inputs: dict[str, Tensor]
    steps: dict[str, Step]
    outputs: dict[str, str]

    @property
    def runs_code(self) -> bool:
        """Whether a step of it is code that is not ours."""
        return any(step.runs_code for step in self.steps.values())

    @property
    def runs_functions(self) -> bool:
        """Whether a step of it is a function of ``pipeline.py``."""
        return any(step.function is not None for step in self.steps.values())


class Problem(NamedTuple):
    """What is wrong at a place of a graph, and what would be right."""

    keys: Keys
    message: str
    allowed: str


def sources(step: Step) -> Iterator[tuple[Keys, str]]:
    """Where a step's inputs come from, each with its place in the step."""
    yield from ((("inputs", name), source) for name, source in step.inputs.items())
    yield from ((("of", i), source) for i, source in enumerate(step.of))


def parted(source: str) -> tuple[str, str]:
    """The step and the tensor of a source; a tensor's name may hold points of its own."""
    step, _, tensor = source.partition(".")
    return step, tensor


def order(graph: Graph) -> tuple[str, ...]:
    """The steps so that each comes after those that it takes from; those in or behind a cycle are left out."""
    done: list[str] = []
    waiting = {name: {parted(source)[0] for _, source in sources(step)} for name, step in graph.steps.items()}
    while ready := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        done += ready
        for name in ready:
            del waiting[name]
    return tuple(done)


def problems(graph: Graph) -> Iterator[Problem]:
    """Everything that is wrong with a graph in itself."""
    for part in ("inputs", "steps", "outputs"):
        if not getattr(graph, part):
            yield Problem((part,), f"a graph without {part}", "one or more")
    if len(graph.steps) > MOST_STEPS:
        yield Problem(("steps",), f"{len(graph.steps)} steps", f"{MOST_STEPS} at most")
    yield from _tensors(("inputs",), graph.inputs)
    for name, step in graph.steps.items():
        if not _NAME.fullmatch(name) or name == REQUEST:
            yield Problem(
                ("steps", name), f"{name[:60]!r} cannot name a step",
                f"a lower-case letter, then letters, digits and underscores, and not {REQUEST!r}",
            )  # fmt: skip
        yield from (Problem(("steps", name, *keys), *said) for keys, *said in _of_step(step))
        for keys, source in sources(step):
            yield from _source(graph, ("steps", name, *keys), source)
    for name, source in graph.outputs.items():
        yield from _source(graph, ("outputs", name), source)
    yield from _cycle(graph)
    yield from _unused(graph)


def _of_step(step: Step) -> Iterator[Problem]:
    kinds = [kind for kind in _KINDS if getattr(step, kind) is not None]
    if len(kinds) != 1:
        yield Problem((), f"a step that is {' and '.join(kinds) or 'nothing'}", f"exactly one of {', '.join(_KINDS)}")
        return
    kind = kinds[0]
    if step.combine is None and (step.of or step.weights):
        yield Problem(("of" if step.of else "weights",), f"a {kind} combines nothing", "combine: mean or vote")
    if step.combine is not None:
        if step.inputs:
            yield Problem(("inputs",), "what is combined has no names", "of: [STEP.TENSOR, ...]")
        if len(step.of) < 2:
            yield Problem(("of",), f"{len(step.of)} tensors to combine", "two or more")
        if step.weights and len(step.weights) != len(step.of):
            yield Problem(
                ("weights",), f"{len(step.weights)} weights of {len(step.of)} tensors", "one for each, or none"
            )
        elif step.weights and (
            not all(math.isfinite(weight) and weight >= 0 for weight in step.weights) or sum(step.weights) <= 0
        ):
            yield Problem(("weights",), "weights that no mean can have", "zero or more each, and not all zero")
    if step.runs_code and not step.outputs:
        yield Problem((), f"nothing says what the {kind} gives", "outputs: {NAME: {datatype: FP32, shape: [-1]}}")
    if not step.runs_code and step.outputs:
        yield Problem(("outputs",), f"what a {kind} step gives is known already", "no outputs here")
    yield from _tensors(("outputs",), step.outputs)


def _tensors(keys: Keys, tensors: dict[str, Tensor]) -> Iterator[Problem]:
    for name, tensor in tensors.items():
        if len(tensor.shape) > 8 or any(size < -1 for size in tensor.shape):
            yield Problem(
                (*keys, name, "shape"), f"{list(tensor.shape)} is no shape", "up to 8 sizes; -1 where one is free"
            )


def _source(graph: Graph, keys: Keys, source: str) -> Iterator[Problem]:
    name, tensor = parted(source)
    if not tensor:
        yield Problem(keys, f"{source[:60]!r} names no tensor", f"{REQUEST}.NAME or STEP.TENSOR")
    elif name == REQUEST:
        if tensor not in graph.inputs:
            yield Problem(keys, f"the request brings no {tensor[:60]!r}", _any(graph.inputs))
    elif (step := graph.steps.get(name)) is None:
        yield Problem(keys, f"there is no step {name[:60]!r}", _any([REQUEST, *graph.steps]))
    elif step.combine is not None and tensor != COMBINED:
        yield Problem(keys, f"step {name!r} gives no {tensor[:60]!r}", COMBINED)
    elif step.runs_code and tensor not in step.outputs:
        yield Problem(keys, f"step {name!r} gives no {tensor[:60]!r}", _any(step.outputs))


def _cycle(graph: Graph) -> Iterator[Problem]:
    stuck = graph.steps.keys() - set(order(graph))
    if not stuck:
        return
    path = [min(stuck)]
    while path[-1] not in path[:-1]:  # each of them waits for another of them
        path.append(next(n for _, s in sources(graph.steps[path[-1]]) if (n := parted(s)[0]) in stuck))
    circle = path[path.index(path[-1]) :]
    yield Problem(
        ("steps", circle[0]), f"the steps wait for each other: {' <- '.join(circle)}", "steps without a circle"
    )


def _unused(graph: Graph) -> Iterator[Problem]:
    wanted = [parted(source)[0] for source in graph.outputs.values()]
    used: set[str] = set()
    while wanted:
        if (name := wanted.pop()) in graph.steps and name not in used:
            used.add(name)
            wanted += [parted(source)[0] for _, source in sources(graph.steps[name])]
    for name in graph.steps:
        if name not in used:
            yield Problem(("steps", name), f"nothing is made of step {name[:60]!r}", "steps that an output rests on")


def _any(names: object) -> str:
    return ", ".join(list(names)[:12]) or "none is there"  # type: ignore[call-overload]
