"""LightGBM trees as ONNX nodes. Written here because the converters wrap scores into labels and maps, and add casts."""

from typing import Any

import numpy as np

from bedplate.errors import IntegrityError
from bedplate.extensions import require

OPSETS = (("", 17), ("ai.onnx.ml", 3))
IR_VERSION = 8


def ensemble(booster: Any, source: str, output: str, targets: int = 1) -> Any:
    """The node that adds up the trees of ``booster``: float32 (n, features) to raw scores (n, targets).

    Raises:
        IntegrityError: a tree decides by something other than ``<=``.
    """
    onnx = require("onnx", "train")
    nodes: dict[str, list[Any]] = {k: [] for k in _NODE_FIELDS}
    leaves: dict[str, list[Any]] = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}
    for number, tree in enumerate(booster.dump_model()["tree_info"]):
        _add_tree(number, number % targets, tree["tree_structure"], nodes, leaves)
    attributes: dict[str, Any] = {f"nodes_{k}": v for k, v in nodes.items()}
    attributes |= {f"target_{k}": v for k, v in leaves.items()}
    return onnx.helper.make_node(
        "TreeEnsembleRegressor",
        [source],
        [output],
        domain="ai.onnx.ml",
        n_targets=targets,
        aggregate_function="SUM",
        post_transform="NONE",
        **attributes,
    )


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: tuple[Any, ...] = ()) -> bytes:
    """The checked ONNX file of a graph."""
    onnx = require("onnx", "train")
    graph = onnx.helper.make_graph(nodes, "model", inputs, outputs, initializer=list(constants))
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in OPSETS]
    made = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="bedplate")
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString(deterministic=True))


_NODE_FIELDS = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")


def _add_tree(
    number: int, target: int, root: dict[str, Any], nodes: dict[str, list[Any]], leaves: dict[str, list[Any]]
) -> None:
    waiting = [(root, 0)]
    used = 1
    while waiting:
        node, own = waiting.pop()
        leaf = "leaf_value" in node
        left, right = (0, 0) if leaf else (used, used + 1)
        row: tuple[Any, ...] = (number, own, 0, 0.0, "LEAF", 0, 0)
        if leaf:
            for key, value in zip(leaves, (number, own, target, float(node["leaf_value"])), strict=True):
                leaves[key].append(value)
        else:
            if node["decision_type"] != "<=":
                raise IntegrityError(f"a tree decides by {node['decision_type']!r}", where="model")
            row = (number, own, node["split_feature"], _below(node["threshold"]), "BRANCH_LEQ", left, right)
            waiting += [(node["left_child"], left), (node["right_child"], right)]
            used += 2
        for key, value in zip(_NODE_FIELDS, row, strict=True):
            nodes[key].append(value)


def _below(threshold: float) -> float:
    """The largest float32 that is not above ``threshold``: the same float32 values pass both."""
    near = np.float32(threshold)
    return float(near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf)))
