"""MLflow's own scoring server, without a socket: run by its interpreter, which has no Bedplate.

Reads from standard input: models (ONNX in hexadecimal, columns or none) and calls (model, content type, body). Writes
for each call the status and the body that ``mlflow models serve`` would answer with.
"""

import json
import sys
import tempfile
import warnings

warnings.simplefilter("ignore")

import mlflow.onnx  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.models import ModelSignature  # noqa: E402
from mlflow.pyfunc import load_model, scoring_server  # noqa: E402
from mlflow.types import ColSpec, Schema, TensorSpec  # noqa: E402


def saved(data: str, columns: list[list[str]] | None):
    """A model as ``mlflow.onnx`` saves it and the server loads it."""
    inputs = [TensorSpec(np.dtype("float32"), (-1, 3))] if columns is None else [ColSpec(*c) for c in columns]
    with tempfile.TemporaryDirectory() as folder:
        mlflow.onnx.save_model(
            onnx.load_from_string(bytes.fromhex(data)), f"{folder}/model", signature=ModelSignature(Schema(inputs)),
            pip_requirements=[],
        )  # fmt: skip
        return load_model(f"{folder}/model")


def answer(model, kind: str, body: str) -> tuple[int, object]:
    """What the route answers."""
    try:
        said = scoring_server.invocations(body.encode(), kind, model, model.metadata.get_input_schema())
    except MlflowException as error:
        return error.get_http_status_code(), json.loads(error.serialize_as_json())
    return said.status, json.loads(said.response) if said.mimetype == "application/json" else said.response


given = json.load(sys.stdin)
models = {name: saved(*parts) for name, parts in given["models"].items()}
json.dump([answer(models[name], kind, body) for name, kind, body in given["calls"]], sys.stdout)
