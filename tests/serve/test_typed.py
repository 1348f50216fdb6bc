"""Plain typed JSON: an object in, an object out; what is described is what is answered."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bedplate.errors import AuthenticationError, BedplateError, DeadlineError, QuotaError
from bedplate.http import ProtocolError, Response
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve import generation, invocations, openai, rest, typed
from bedplate.serve.pressure import OverloadedError
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import KEY, World, all_types, client, log_of
from tests.serve.test_streaming import LETTERS, writer

COLUMNS = ModelSignature(
    predictor="onnx",
    inputs=(
        TensorSpec(name="size", datatype="FP32", shape=(-1, 1)),
        TensorSpec(name="rooms", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="the town", datatype="BYTES", shape=(-1, 1)),
        TensorSpec(name="place", datatype="FP32", shape=(-1, 2)),
    ),
    outputs=(
        TensorSpec(name="price", datatype="FP32", shape=(-1, 1)),
        TensorSpec(name="the town again", datatype="BYTES", shape=(-1, 1)),
        TensorSpec(name="both", datatype="FP32", shape=(-1, 2)),
    ),
)
ROW = {"size": 2.5, "rooms": 3, "the town": "Évora", "place": [1.0, 2.0]}
ANSWER = {"price": 5.5, "the town again": "Évora", "both": [1.0, 2.0]}


def columns() -> bytes:
    """An ONNX model of four columns: price = size + rooms; town and place come back."""
    kinds = {"FP32": TensorProto.FLOAT, "INT64": TensorProto.INT64, "BYTES": TensorProto.STRING}

    def values(specs: tuple[TensorSpec, ...]) -> list[Any]:
        return [helper.make_tensor_value_info(s.name, kinds[s.datatype], [None, s.shape[1]]) for s in specs]

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["rooms"], ["r"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["size", "r"], ["price"]),
            helper.make_node("Identity", ["the town"], ["the town again"]),
            helper.make_node("Identity", ["place"], ["both"]),
        ],
        "columns",
        values(COLUMNS.inputs),
        values(COLUMNS.outputs),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    text: bytes = model.SerializeToString()
    return text


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def supervisor(world: World) -> Iterator[Supervisor]:
    with Supervisor(world.home) as supervisor:
        yield supervisor


@pytest.fixture(scope="module")
def url(world: World, supervisor: Supervisor) -> str:
    return supervisor.start(world.spec(world.bundle(columns(), COLUMNS), name="homes", mode="durable"))


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with client(url) as http:
        yield http


def test_an_object_is_answered_by_an_object_and_a_list_by_a_list(http: httpx.Client) -> None:
    assert http.post("/predict", json=ROW).json() == ANSWER
    assert http.post("/predict", json=[ROW]).json() == [ANSWER]
    assert http.post("/predict", json=[ROW, ROW | {"rooms": 0.0}]).json() == [ANSWER, ANSWER | {"price": 2.5}]


def test_the_log_has_what_was_sent_and_said(world: World, http: httpx.Client) -> None:
    answer = http.post("/predict", json=[ROW, ROW], headers={"x-request-id": "mine"})

    records = log_of(world)
    (record,) = [r for r in records if r["id"] == answer.headers["x-prediction-id"]]
    assert record["request_id"] == "mine"
    assert (record["inputs"]["the town"], record["inputs"]["place"]) == (["Évora"] * 2, [1.0, 2.0] * 2)
    assert record["outputs"]["price"] == [5.5, 5.5]


WRONG: dict[str, Any] = {
    "missing": {k: v for k, v in ROW.items() if k != "size"},
    "unknown": ROW | {"more": 1},
    "null": ROW | {"size": None},
    "text for a number": ROW | {"size": "2.5"},
    "a fraction": ROW | {"rooms": 1.5},
    "a truth value": ROW | {"rooms": True},
    "too large": ROW | {"size": 1e39},
    "too large an integer": ROW | {"rooms": 2**63},
    "too short": ROW | {"place": [1.0]},
    "no rows": [],
    "a row that is none": [ROW, 1],
    "text": "x",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_400_and_says_where(http: httpx.Client, what: str) -> None:
    answer = http.post("/predict", json=WRONG[what])

    assert answer.status_code == 400, answer.text
    assert len(answer.json()["message"]) > 20


def test_a_model_without_rows_takes_its_tensors_whole(world: World, supervisor: Supervisor) -> None:
    values: dict[str, Any] = {name: [1, 0] for name in ("UINT8", "UINT16", "UINT32", "INT8", "INT16", "INT32", "INT64")}
    values |= {"BOOL": [True, False], "UINT64": [0, 2**64 - 1], "BYTES": ["a", "é"]}
    values |= {name: [0.5, -1.0] for name in ("FP16", "FP32", "FP64")}
    with client(supervisor.start(world.spec(world.bundle(*all_types()), name="types"))) as http:
        answer = http.post("/predict", json={f"in_{name}": given for name, given in values.items()})
        listed = http.post("/predict", json=[{f"in_{name}": given for name, given in values.items()}])

    assert answer.json() == {f"out_{name}": given for name, given in values.items()}
    assert listed.status_code == 400


def test_schemathesis_finds_nothing(url: str, tmp_path: Path) -> None:
    """What the description allows is answered, what it does not allow is refused, for every route it has."""
    with client(url) as http:
        answered = http.get("/openapi.json")
    assert answered.status_code == 200, answered.text
    described = answered.json()
    operation = described["paths"]["/predict"]["post"]
    assert described["openapi"] == "3.1.0"
    assert operation["x-audit"] == "append"
    assert set(described["components"]["schemas"]["Row"]["properties"]) == set(ROW)
    schemathesis(url, described, tmp_path, "--include-path", "/predict", checks="positive_data_acceptance")


@pytest.mark.long
def test_schemathesis_finds_nothing_on_any_route(
    world: World, supervisor: Supervisor, url: str, tmp_path: Path
) -> None:
    """Of a model of rows and of one that yields: no fault of ours, and nothing but what is described.

    That what fits is accepted is asked of ``/predict`` alone: of the other bodies the description says less than they
    have to be. A model's name in the path is that of the endpoint, or there is nothing to find.
    """
    files = writer(LETTERS, {0: 1, 1: 2, 2: 3})
    made = world.bundle(files, generation.SIGNATURE)
    for address in (url, supervisor.start(world.spec(made, name="writer"))):
        with client(address) as http:
            described = http.get("/openapi.json").json()
        name = described["info"]["title"]
        for operations in described["paths"].values():
            for operation in operations.values():
                for parameter in operation["parameters"]:
                    if parameter["in"] == "path":
                        parameter["schema"] = {"enum": [{"model": name, "version": "1"}[parameter["name"]]]}
        schemathesis(address, described, tmp_path)


def schemathesis(url: str, described: Any, folder: Path, *options: str, checks: str = "not_a_server_error") -> None:
    """Send what a description allows, and more; what it finds fails the test."""
    (folder / "openapi.json").write_text(json.dumps(described))
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", "openapi.json", "--url", url),
        *("--header", f"Authorization: Bearer {KEY}", "--max-examples", "10", "--seed", "1"),
        *("--checks", f"{checks},not_a_server_error,negative_data_rejection,ignored_auth"),
        *("--checks", "status_code_conformance,content_type_conformance,response_schema_conformance"),
        *("--no-color", "--continue-on-failure", "--warnings", "off", *options),
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "HYPOTHESIS_"))}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=560)

    assert done.returncode == 0, done.stdout[:6000] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("render", [typed.render, invocations.render, openai.render, rest.failure])
def test_every_protocol_says_when_to_come_again(render: Callable[[BedplateError], Response]) -> None:
    """And keeps what it must not tell to itself; the forms differ, status and headers do not."""
    overloaded = render(OverloadedError("too much", retry=2.2))
    quota = render(QuotaError("too much", window="day", quota=5, seconds=86400, retry=60))
    late = render(DeadlineError("too late"))

    assert (overloaded.status, dict(overloaded.headers)["retry-after"]) == (503, "3")
    assert (quota.status, dict(quota.headers)["retry-after"]) == (429, "60")
    assert (late.status, "retry-after" in dict(late.headers)) == (504, False)
    assert dict(render(AuthenticationError("who?")).headers)["www-authenticate"] == "Bearer"
    assert render(ProtocolError(413, "too large")).status == 413
    assert b"too much" in overloaded.body


@pytest.mark.parametrize("rows", [1, 7])
def test_rows_agree_with_the_tensor_protocol(http: httpx.Client, rows: int) -> None:
    random = np.random.default_rng(rows)
    given = [ROW | {"size": float(np.float32(random.normal())), "rooms": int(random.integers(9))} for _ in range(rows)]
    tensors = [
        {"name": s.name, "datatype": s.datatype, "shape": [rows, s.shape[1]],
         "data": [row[s.name] for row in given]}
        for s in COLUMNS.inputs
    ]  # fmt: skip

    typed = http.post("/predict", json=given).json()
    answer = http.post("/v2/models/homes/infer", json={"inputs": tensors}).json()

    assert [row["price"] for row in typed] == answer["outputs"][0]["data"]
