"""Exact counts of a torch module from a program of ``torch.export``: weights, multiply-adds, elements written.

A saved program is an archive in which the graph is JSON, apart from the weights. Only that is read: nothing is
unpickled, no code of the file is run, and torch is not needed. Counts are those of :mod:`bedplate.plan.graphs`, of one
sample: the program's inputs share a first dimension, which is the batch that it was exported with.
"""

import math
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import msgspec

from bedplate.errors import InputError
from bedplate.plan.graphs import GraphCount

GRAPH = "graph.json"
"""The name under which a limited process gives back the JSON of a graph."""
LIMIT = 256 << 20
"""Bytes that the JSON of a graph may have."""
_ENTRY = re.compile(r"(?:[^/]+/)?(?:models/[^/]+\.json|serialized_exported_program\.json)")
"""Where torch writes it, since 2.7 and before."""
_FIX = "save it again with torch.export.save of PyTorch 2.4 or later"
Shape = tuple[int, ...]

_PLAIN = re.compile(r"torch\.ops\.aten\.|_operator\.|math\.|torch\.sym_|torch\.ops\.(prims|profiler)\.")
_UNCOUNTED = re.compile(
    r"einsum|lstm|gru\b|gru_|rnn_|_cell|bilinear\.|_trilinear|cdist|multi_dot|chain_matmul|tensordot|inner\.|kron|addbmm"
    r"|quantized|_native_multi_head|_transformer_encoder|fft|stft|linalg|_int_mm|_scaled_mm|_grouped_mm|_sparse|addr\."
)
"""Steps with products inside that are not counted here; ``run_decompositions`` makes plain products of most of them."""
_PRODUCTS = re.compile(r"(linear|matmul|mm|bmm|mv|dot)\.")
_ADDED = re.compile(r"(addmm|baddbmm|addmv)\.")
_ATTENTION = re.compile(r"_?scaled_dot_product_\w*attention\w*\.")
_CONVOLUTION = re.compile(r"_?(convolution|conv[123]d|conv_transpose[123]d)\.")


class _Tensor(msgspec.Struct):
    sizes: list[dict[str, Any]]


class _Argument(msgspec.Struct):
    arg: dict[str, Any]
    name: str = ""


class _Node(msgspec.Struct):
    target: str
    inputs: list[_Argument]
    outputs: list[dict[str, Any]]


class _Graph(msgspec.Struct):
    nodes: list[_Node]
    tensor_values: dict[str, _Tensor]


class _Signature(msgspec.Struct):
    input_specs: list[dict[str, Any]]


class _Module(msgspec.Struct):
    graph: _Graph
    signature: _Signature


class _Program(msgspec.Struct):
    graph_module: _Module


def description(archive: BinaryIO, where: str = "model.pt2") -> bytes:
    """The JSON of the graph in a saved program; the rest of the archive is not read.

    Raises:
        InputError: it is no such archive, or its graph is larger than :data:`LIMIT`.
    """
    try:
        with zipfile.ZipFile(archive) as found:
            names = [item for item in found.infolist() if _ENTRY.fullmatch(item.filename)]
            if len(names) != 1:
                raise InputError(f"it holds {len(names)} programs of torch.export", where=where, fix=_FIX)
            with found.open(names[0]) as file:
                text = file.read(LIMIT + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"it is no program of torch.export: {error}"[:200], where=where, fix=_FIX) from None
    if len(text) > LIMIT:
        raise InputError(f"its graph has more than {LIMIT >> 20} MiB", where=where, fix="describe a smaller model")
    return text


def count(text: bytes, where: str = "model.pt2") -> GraphCount:
    """Counts of one sample from the JSON of a graph.

    Raises:
        InputError: it is none, a size is not known, or a step has products inside that are not counted.
    """
    try:
        module = msgspec.json.decode(text, type=_Program).graph_module
        reader = _Reader(module.graph, where)
        return reader.count(module.signature)
    except (msgspec.MsgspecError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"its graph cannot be read: {error}"[:200], where=where, fix=_FIX) from None


class _Reader:
    def __init__(self, graph: _Graph, where: str) -> None:
        self._graph, self._where = graph, where

    def count(self, signature: _Signature) -> GraphCount:
        macs = activations = 0
        met: set[str] = set()
        for node in self._graph.nodes:
            operands = [one.arg["as_tensor"]["name"] for one in node.inputs if "as_tensor" in one.arg]
            met.update(operands)
            multiplied, written = self._step(node, operands)
            macs, activations = macs + multiplied, activations + written
        batch = self._batch(signature)
        named = [spec["parameter"]["arg"]["name"] for spec in signature.input_specs if "parameter" in spec]
        # Two names of one weight: the graph uses the one, and what it never meets costs nothing.
        parameters = sum(math.prod(self._shape(name)) for name in named if name in met)
        return GraphCount(parameters=parameters, macs=round(macs / batch), activations=round(activations / batch))

    def _step(self, node: _Node, operands: Sequence[str]) -> tuple[int, int]:
        """Multiply-adds, and elements that were written by them."""
        if not _PLAIN.match(node.target):
            raise self._refused(node, "is a step of its own")
        name = node.target.removeprefix("torch.ops.aten.")
        if _UNCOUNTED.search(name):
            raise self._refused(node, "has products inside that are not counted")
        if _PRODUCTS.match(name) or _ADDED.match(name):
            first = operands[1] if _ADDED.match(name) else operands[0]
            written = math.prod(self._written(node))
            return written * self._shape(first)[-1], written
        if _ATTENTION.match(name):
            query, key, value = (self._shape(operand) for operand in operands[:3])
            scores = math.prod(query[:-1]) * key[-2]
            return scores * (query[-1] + value[-1]), scores + math.prod(query[:-1]) * value[-1]
        if _CONVOLUTION.match(name):
            written, weight = math.prod(self._written(node)), self._shape(operands[1])
            turned = "transpose" in name or any(
                one.name == "transposed" and one.arg.get("as_bool") for one in node.inputs
            )
            return (math.prod(self._shape(operands[0])) if turned else written) * math.prod(weight[1:]), written
        return 0, 0

    def _batch(self, signature: _Signature) -> int:
        """The first dimension of what the program is given."""
        given = [spec["user_input"]["arg"] for spec in signature.input_specs if "user_input" in spec]
        firsts = {self._shape(arg["as_tensor"]["name"])[0] for arg in given if "as_tensor" in arg}
        if len(firsts) != 1 or min(firsts) < 1:
            raise InputError(
                f"its inputs begin with {sorted(firsts)} rows",
                where=self._where,
                fix="export it with inputs whose first dimension is the batch",
            )
        return firsts.pop()

    def _written(self, node: _Node) -> Shape:
        return self._shape(node.outputs[0]["as_tensor"]["name"])

    def _shape(self, name: str) -> Shape:
        return tuple(self._size(size, name) for size in self._graph.tensor_values[name].sizes)

    def _size(self, size: Mapping[str, Any], name: str) -> int:
        """A size, or where it is open the one that the program was exported with."""
        known = size["as_int"] if "as_int" in size else (size["as_expr"].get("hint") or {}).get("as_int")
        if not isinstance(known, int) or known < 0:
            raise InputError(
                f"the shape of {name[:60]!r} is not known", where=self._where, fix="export it with fixed shapes"
            )
        return known

    def _refused(self, node: _Node, why: str) -> InputError:
        return InputError(
            f"{node.target[:80]} {why}",
            where=self._where,
            fix="export it as program.run_decompositions(), or name an ONNX file of it",
        )
