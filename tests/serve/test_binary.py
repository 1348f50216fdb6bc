"""The binary tensor extension over HTTP: stock clients, every datatype, and lengths that do not add up."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from bedplate import journal
from bedplate.journal import predictions
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import KEY, World, all_types, client, half_precision

ROOT = Path(__file__).parents[2]
HEADERS = {"authorization": f"Bearer {KEY}"}
VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [-65504.0, 0.5],
    "FP32": [-1.5, 3.25e38],
    "FP64": [-1e300, 0.1],
    "BF16": [-1.5, 256.0],
    "BYTES": ["é", ""],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("binary"))


@pytest.fixture(scope="module")
def urls(world: World) -> Iterator[dict[str, str]]:
    """The linear model, the one of all types, and the one of BF16."""
    with Supervisor(world.home) as supervisor:
        yield {
            "linear": supervisor.start(world.spec(mode="durable")),
            "types": supervisor.start(world.spec(world.bundle(*all_types(), version=2), name="types")),
            "halves": supervisor.start(world.spec(world.bundle(*half_precision(), version=3), name="halves")),
        }


@pytest.fixture
def http(urls: dict[str, str]) -> Iterator[httpx.Client]:
    with client(urls["linear"]) as http:
        yield http


def given(datatype: str, binary: bool) -> triton.InferInput:
    tensor = triton.InferInput(f"in_{datatype}", [2], datatype)
    values = VALUES[datatype]
    kinds = {"BYTES": np.object_, "BF16": np.float32, "BOOL": np.bool_}
    dtype = kinds.get(datatype) or triton.triton_to_np_dtype(datatype)
    array = np.array([v.encode() for v in values] if datatype == "BYTES" else values, dtype)
    if binary or datatype not in ("BF16", "FP16"):
        tensor.set_data_from_numpy(array, binary_data=binary)
    else:  # the client itself sends these as bytes only
        tensor.set_data_from_numpy(array, binary_data=True)
    return tensor


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_the_stock_client_gets_every_datatype_back(urls: dict[str, str], binary_in: bool, binary_out: bool) -> None:
    for model, names in {"types": [name for name in VALUES if name != "BF16"], "halves": ["BF16", "FP32"]}.items():
        server = triton.InferenceServerClient(urls[model].removeprefix("http://"))
        try:
            wanted = [triton.InferRequestedOutput(f"out_{name}", binary_data=binary_out) for name in names]
            answer = server.infer(model, [given(name, binary_in) for name in names], outputs=wanted, headers=HEADERS)
        finally:
            server.close()
        for name in names:
            array = answer.as_numpy(f"out_{name}")
            if name == "BYTES":
                assert [v if isinstance(v, str) else v.decode() for v in array] == VALUES[name]
            else:
                assert array.tolist() == np.array(VALUES[name], array.dtype).tolist(), name


def test_the_stock_client_with_its_defaults(urls: dict[str, str]) -> None:
    """Binary both ways is what it does unless told otherwise."""
    server = triton.InferenceServerClient(urls["linear"].removeprefix("http://"))
    try:
        rows = np.arange(300, dtype=np.float32).reshape(100, 3)
        tensor = triton.InferInput("X", rows.shape, "FP32")
        tensor.set_data_from_numpy(rows)
        answer = server.infer("linear", [tensor], headers=HEADERS)
        assert np.array_equal(answer.as_numpy("Y"), rows)
        assert "data" not in answer.get_output("Y")
    finally:
        server.close()


def test_many_values_are_packed_in_the_log(world: World, http: httpx.Client) -> None:
    rows = np.random.default_rng(3).normal(size=(100, 3)).astype(np.float32)
    answer = http.post("/v2/models/linear/infer", **sent(rows))

    assert answer.headers["content-type"] == "application/json"
    (record,) = [
        record
        for segment in journal.segments(world.home.journal)
        for record in journal.read(segment)
        if predictions.part(record, dict[str, Any])["id"] == answer.headers["x-prediction-id"]
    ]
    assert len(record) < 2 * rows.nbytes + 1000
    kept = predictions.decode(record)
    assert kept.inputs["X"] == kept.outputs["Y"] == rows.tolist()


def test_the_kserve_client_gets_an_answer_in_both_forms(urls: dict[str, str]) -> None:
    script = """
import asyncio, sys, numpy as np
from kserve import InferenceRESTClient, InferRequest, InferInput, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

async def main(url, key):
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=1))
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    for binary in (True, False):
        tensor = InferInput("X", [2, 3], "FP32")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        wanted = [RequestedOutput("Y", parameters={"binary_data": binary})]
        request = InferRequest("linear", [tensor], request_outputs=wanted)
        answer = await client.infer(url, request, model_name="linear", headers={"authorization": f"Bearer {key}"})
        assert np.array_equal(answer.outputs[0].as_numpy(), rows), answer
        assert answer.parameters["prediction_id"].startswith("pred_"), answer.parameters
    await client.close()
    print("both")

asyncio.run(main(*sys.argv[1:]))
"""
    python = ROOT / ".venv" / "inference" / "bin" / "python"
    if not python.exists():
        pytest.skip("the client is not installed; make test does")
    done = subprocess.run([python, "-c", script, urls["linear"], KEY], capture_output=True, text=True, timeout=250)
    assert done.stdout.strip() == "both", done.stderr


def sent(rows: np.ndarray, head: Any = None, size: Any = None, tail: bytes = b"", **tensor: Any) -> dict[str, Any]:
    """An infer request in the binary form; what is given says something else than what is true."""
    data = rows.astype("<f4").tobytes()
    about = {"name": "X", "shape": list(rows.shape), "datatype": "FP32", **tensor}
    about["parameters"] = {"binary_data_size": len(data) if size is None else size}
    text = json.dumps({"inputs": [about]}).encode()
    headers = {"inference-header-content-length": str(len(text) if head is None else head)}
    return {"content": text + data + tail, "headers": headers}


ROW = np.ones((1, 3), np.float32)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (sent(ROW, head=10**6), "the body has"),
        (sent(ROW, head=-1), "no number"),
        (sent(ROW, head="1e2"), "no number"),
        (sent(ROW, head="9" * 30), "no number"),
        (sent(ROW, head=3), "does not fit"),
        (sent(ROW, size=13), "12 bytes are left"),
        (sent(ROW, size=-1), "12 bytes are left"),
        (sent(ROW, size=True), "12 bytes are left"),
        (sent(ROW, size="12"), "12 bytes are left"),
        (sent(ROW, size=2**70), "12 bytes are left"),
        (sent(ROW, size=8), "8 bytes"),
        (sent(ROW, size=0), "0 bytes"),
        (sent(ROW, tail=b"x"), "1 bytes follow"),
        (sent(ROW, shape=[2**40, 3]), "12 bytes"),
        (sent(ROW, data=[1, 2, 3]), "both"),
        (sent(ROW * np.nan), "no number"),
        (sent(ROW) | {"headers": {}}, "does not fit"),
    ],
)
def test_lengths_that_do_not_add_up_are_refused(http: httpx.Client, request_: dict[str, Any], why: str) -> None:
    answer = http.post("/v2/models/linear/infer", **request_)

    assert answer.status_code == 400, answer.text
    assert why in answer.json()["error"]


def test_bytes_without_the_header_are_refused(http: httpx.Client) -> None:
    tensor = {"name": "X", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
    answer = http.post("/v2/models/linear/infer", json={"inputs": [tensor]})

    assert answer.status_code == 400
    assert "inference-header-content-length" in answer.json()["error"]
