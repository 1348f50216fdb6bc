"""The ranking stage: gradient-boosted trees (LightGBM), released as ONNX."""

from typing import Any

import numpy as np
import numpy.typing as npt

from bedplate.errors import IntegrityError
from bedplate.extensions import require
from bedplate.serve.state import Floats

Progress = Any


def fit(
    features: Floats,
    labels: npt.NDArray[np.int8],
    weights: Floats,
    names: tuple[str, ...],
    *,
    rounds: int,
    parameters: dict[str, Any],
    threads: int,
    seed: int,
) -> Any:
    """A LightGBM booster that tells purchases from the other candidates. The same inputs give the same trees."""
    lightgbm = require("lightgbm", "train")
    settings = {
        "objective": "binary",
        "verbose": -1,
        "num_threads": threads,
        "deterministic": True,
        "force_col_wise": True,
        "seed": seed,
        "use_missing": False,  # absent values are MISSING, a number: ONNX would read NaN otherwise
        **parameters,
    }
    data = lightgbm.Dataset(features, labels, weight=weights, feature_name=list(names), params=settings)
    return lightgbm.train(settings, data, num_boost_round=rounds)


def export(booster: Any, width: int) -> bytes:
    """The booster as ONNX: input ``features`` float32 (n, width), output ``score`` float32 (n, 1), the probability."""
    onnx = require("onnx", "train")
    return bytes(_model(booster, width, onnx).SerializeToString())


def verify(booster: Any, model: bytes, sample: Floats, tolerance: float = 1e-5) -> float:
    """The largest difference between the booster and its export over ``sample``.

    Raises:
        IntegrityError: it is above ``tolerance``.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    exported = np.asarray(session.run(["score"], {"features": sample})[0]).reshape(-1)
    worst = float(np.abs(exported - booster.predict(sample)).max())
    if not worst <= tolerance:
        raise IntegrityError(f"the exported ranker differs from the trained one by {worst:.2g}", where="ranker.onnx")
    return worst


def _model(booster: Any, width: int, onnx: Any) -> Any:
    """The trees as one TreeEnsembleRegressor and a Sigmoid.

    Written here because the converters give a classifier with a label and a map of probabilities, and add a cast.
    """
    nodes: dict[str, list[Any]] = {k: [] for k in _NODE_FIELDS}
    targets: dict[str, list[Any]] = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}
    for number, tree in enumerate(booster.dump_model()["tree_info"]):
        _add_tree(number, tree["tree_structure"], nodes, targets)
    helper = onnx.helper
    attributes: dict[str, Any] = {f"nodes_{k}": v for k, v in nodes.items()}
    attributes |= {f"target_{k}": v for k, v in targets.items()}
    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["raw"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        **attributes,
    )
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [ensemble, helper.make_node("Sigmoid", ["raw"], ["score"])],
        "ranker",
        [helper.make_tensor_value_info("features", kind, [None, width])],
        [helper.make_tensor_value_info("score", kind, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="bedplate")
    onnx.checker.check_model(model)
    return model


_NODE_FIELDS = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")


def _add_tree(number: int, root: dict[str, Any], nodes: dict[str, list[Any]], targets: dict[str, list[Any]]) -> None:
    waiting = [(root, 0)]
    used = 1
    while waiting:
        node, own = waiting.pop()
        leaf = "leaf_value" in node
        left, right = (0, 0) if leaf else (used, used + 1)
        row: tuple[Any, ...] = (number, own, 0, 0.0, "LEAF", 0, 0)
        if leaf:
            for key, value in zip(targets, (number, own, 0, float(node["leaf_value"])), strict=True):
                targets[key].append(value)
        else:
            if node["decision_type"] != "<=":
                raise IntegrityError(f"the ranker decides by {node['decision_type']!r}", where="ranker.onnx")
            row = (number, own, node["split_feature"], _below(node["threshold"]), "BRANCH_LEQ", left, right)
            waiting += [(node["left_child"], left), (node["right_child"], right)]
            used += 2
        for key, value in zip(_NODE_FIELDS, row, strict=True):
            nodes[key].append(value)


def _below(threshold: float) -> float:
    """The largest float32 that is not above ``threshold``: the same float32 values pass both."""
    near = np.float32(threshold)
    return float(near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf)))
