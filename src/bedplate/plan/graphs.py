"""Exact counts of an ONNX graph: weights, multiply-adds, and elements that its matrix steps write.

Reads shapes only, never the numbers, so a graph whose weights lie elsewhere is counted too. Dimensions must be known:
give a batch of one and an image size where the graph leaves them open.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from bedplate.errors import InputError

if TYPE_CHECKING:
    import onnx


class GraphCount(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass over an input costs. Multiply-adds and activations are of convolutions and matrix products."""

    parameters: int
    macs: int
    activations: int
    """Elements that convolutions and matrix products write."""


def count(model: "onnx.ModelProto", shapes: Mapping[str, Sequence[int]] | None = None) -> GraphCount:
    """Counts of one pass; ``shapes`` fills in inputs whose dimensions the graph leaves open.

    Raises:
        InputError: a dimension that a count needs is not known.
    """
    import onnx

    given = onnx.ModelProto()
    given.CopyFrom(model)
    for item in given.graph.input:
        for dimension, size in zip(item.type.tensor_type.shape.dim, (shapes or {}).get(item.name, ()), strict=False):
            dimension.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(given, strict_mode=False, data_prop=True).graph
    known: dict[str, tuple[int | None, ...]] = {item.name: tuple(item.dims) for item in inferred.initializer}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        dims = value.type.tensor_type.shape.dim
        known.setdefault(value.name, tuple(d.dim_value if d.HasField("dim_value") else None for d in dims))

    macs = activations = 0
    statistics: set[str] = set()
    for node in inferred.node:
        if node.op_type == "BatchNormalization":  # mean and variance are kept, not learned
            statistics.update(node.input[3:5])
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        out, weight = _shape(known, node.output[0], node), _shape(known, node.input[1], node)
        written = math.prod(out)
        activations += written
        if node.op_type == "Conv":
            macs += written * math.prod(weight[1:])
        elif node.op_type == "ConvTranspose":
            macs += math.prod(_shape(known, node.input[0], node)) * math.prod(weight[1:])
        else:
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            macs += written * (weight[-1] if transposed else weight[-2] if len(weight) > 1 else weight[0])
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
    learned = (i for i in inferred.initializer if i.data_type in floats and i.name not in statistics)
    return GraphCount(parameters=sum(math.prod(i.dims) for i in learned), macs=macs, activations=activations)


def _shape(known: Mapping[str, tuple[int | None, ...]], name: str, node: "onnx.NodeProto") -> tuple[int, ...]:
    shape = known.get(name)
    if not shape or any(size is None or size <= 0 for size in shape):
        raise InputError(
            f"the shape of {name!r} is not known ({shape})",
            where=f"{node.op_type} {node.name or node.output[0]}",
            fix="give the shape of the graph's inputs, with a batch of one",
        )
    return tuple(size for size in shape if size is not None)
