"""The ranking stage: gradient-boosted trees (LightGBM), released as ONNX."""

from typing import Any

import numpy as np
import numpy.typing as npt

from bedplate.errors import IntegrityError
from bedplate.extensions import require
from bedplate.serve.state import Floats
from bedplate.train import trees


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
    helper = require("onnx", "train").helper
    kind = 1  # onnx.TensorProto.FLOAT
    return trees.model(
        [trees.ensemble(booster, "features", "raw"), helper.make_node("Sigmoid", ["raw"], ["score"])],
        [helper.make_tensor_value_info("features", kind, [None, width])],
        [helper.make_tensor_value_info("score", kind, [None, 1])],
    )


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
