"""MLflow's scoring protocol, held against MLflow's own scoring server on the same ONNX models."""

import json
import site
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import onnx
import pytest
from onnx import TensorProto, helper

from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.invocations import FORMS
from bedplate.serve.supervisor import Supervisor
from tests.mlflow import environment
from tests.serve.support import World, client
from tests.serve.test_typed import COLUMNS as HOMES
from tests.serve.test_typed import columns as homes

COLUMNS = ModelSignature(
    predictor="onnx",
    inputs=(
        TensorSpec(name="size", datatype="FP32", shape=(-1,)),
        TensorSpec(name="rooms", datatype="INT64", shape=(-1,)),
    ),
    outputs=(TensorSpec(name="price", datatype="FP32", shape=(-1,)),),
)
JSON, CSV = "application/json", "text/csv"


def columns() -> bytes:
    """price = size + rooms, of columns without a second dimension, which is how MLflow feeds a frame."""
    kinds = {"FP32": TensorProto.FLOAT, "INT64": TensorProto.INT64}

    def values(specs: tuple[TensorSpec, ...]) -> list[Any]:
        return [helper.make_tensor_value_info(s.name, kinds[s.datatype], [None]) for s in specs]

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["rooms"], ["r"], to=TensorProto.FLOAT),
            helper.make_node("IsNaN", ["size"], ["absent"]),
            helper.make_node("Where", ["absent", "none", "size"], ["s"]),
            helper.make_node("Add", ["s", "r"], ["price"]),
        ],
        "columns",
        values(COLUMNS.inputs),
        values(COLUMNS.outputs),
        [helper.make_tensor("none", TensorProto.FLOAT, [], [-100.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    text: bytes = model.SerializeToString()
    return text


def summed() -> bytes:
    """One input of three numbers in each row, and their sum."""
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["X", "axis"], ["total"], keepdims=0)],
        "summed",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("total", TensorProto.FLOAT, [None])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    text: bytes = model.SerializeToString()
    return text


SUMMED = ModelSignature(
    predictor="onnx",
    inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, 3)),),
    outputs=(TensorSpec(name="total", datatype="FP32", shape=(-1,)),),
)

ROWS = [[1.5, 2], [0.25, 3]]
NAMES = ["size", "rooms"]
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
SAME: dict[str, tuple[str, str, Any]] = {
    "split": ("columns", JSON, {"dataframe_split": {"columns": NAMES, "data": ROWS}}),
    "split with an index": ("columns", JSON, {"dataframe_split": {"columns": NAMES, "data": ROWS, "index": [7, 9]}}),
    "split in another order": (
        "columns",
        JSON,
        {"dataframe_split": {"columns": NAMES[::-1], "data": [row[::-1] for row in ROWS]}},
    ),
    "split with a column too many": (
        "columns",
        JSON,
        {"dataframe_split": {"columns": [*NAMES, "id"], "data": [[*row, "x"] for row in ROWS]}},
    ),
    "split with a null": ("columns", JSON, {"dataframe_split": {"columns": NAMES, "data": [[None, 2]]}}),
    "records": ("columns", JSON, {"dataframe_records": RECORDS}),
    "records with empty params": ("columns", JSON, {"dataframe_records": RECORDS, "params": {}}),
    "records with params": ("columns", JSON, {"dataframe_records": RECORDS, "params": {"top": 3}}),
    "charset": ("columns", f"{JSON}; charset=UTF-8", {"dataframe_records": RECORDS}),
    "csv": ("columns", CSV, "size,rooms\n1.5,2\n0.25,3\n"),
    "csv with quotes": ("columns", CSV, 'id,rooms,size\n"Faro, old",2,1e1\n'),
    "csv with an empty cell": ("columns", CSV, "size,rooms\n,2\n"),
    "frame of one tensor": (
        "summed",
        JSON,
        {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3.5], [4, 5, 6]]}},
    ),
    "frame without names": ("summed", JSON, {"dataframe_split": {"data": [[1, 2, 3.5]]}}),
    "records of one tensor": ("summed", JSON, {"dataframe_records": [{"a": 1, "b": 2.5, "c": 3}]}),
    "instances": ("summed", JSON, {"instances": [[1, 2, 3.5], [4, 5, 6]]}),
    "inputs": ("summed", JSON, {"inputs": [[1, 2, 3.5]]}),
    "no form": ("columns", JSON, {"rows": RECORDS}),
    "two forms": ("columns", JSON, {"dataframe_records": RECORDS, "inputs": []}),
    "a list": ("columns", JSON, RECORDS),
    "no JSON": ("columns", JSON, "{"),
    "a column is missing": ("columns", JSON, {"dataframe_records": [{"size": 1.0}]}),
    "a text for a number": ("columns", JSON, {"dataframe_records": [RECORDS[0] | {"rooms": "many"}]}),
    "records that are none": ("columns", JSON, {"dataframe_records": {"size": [1.0]}}),
    "split that is none": ("columns", JSON, {"dataframe_split": [[1.0]]}),
    "split without data": ("columns", JSON, {"dataframe_split": {"columns": NAMES}}),
    "rows of two lengths": ("columns", JSON, {"dataframe_split": {"columns": NAMES, "data": [[1.0, 2, 3]]}}),
    "too few columns": ("summed", JSON, {"inputs": [[1, 2]]}),
    "a scalar": ("summed", JSON, {"inputs": 1}),
    "another type": ("columns", "text/plain", "x"),
    "another charset": ("columns", f"{CSV}; charset=latin-1", "size\n1\n"),
}


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    world = World(tmp_path_factory.mktemp("home"))
    models = {"columns": (columns(), COLUMNS), "summed": (summed(), SUMMED), "homes": (homes(), HOMES)}
    with Supervisor(world.home) as supervisor:
        yield {
            name: supervisor.start(world.spec(world.bundle(model, signature), name=name))
            for name, (model, signature) in models.items()
        }


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, Any]]:
    """What MLflow answers to every call, from one process: its import alone takes seconds."""
    shared = tmp_path_factory.mktemp("onnx")
    packages = next(Path(p) for p in site.getsitepackages() if (Path(p) / "onnxruntime").exists())
    for name in ("onnx", "onnxruntime", "ml_dtypes", "flatbuffers"):  # what MLflow's environment lacks for ONNX
        for folder in (packages / name, *packages.glob(f"{name}-*.dist-info")):
            (shared / folder.name).symlink_to(folder)
    given = {
        "models": {
            "columns": [columns().hex(), [["float", "size"], ["long", "rooms"]]],
            "summed": [summed().hex(), None],
        },
        "calls": [[model, kind, _text(body)] for model, kind, body in SAME.values()],
    }
    done = subprocess.run(
        [str(environment.python()), str(Path(__file__).with_name("mlflow_scoring.py"))],
        input=json.dumps(given), capture_output=True, text=True, timeout=100,
        env=environment.variables(PYTHONPATH=str(shared)), cwd=shared,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(zip(SAME, json.loads(done.stdout), strict=True))


def _text(body: Any) -> str:
    return body if isinstance(body, str) else json.dumps(body)


def _ask(url: str, kind: str, body: Any) -> httpx.Response:
    with client(url) as http:
        return http.post("/invocations", content=_text(body).encode(), headers={"content-type": kind})


@pytest.mark.parametrize("what", SAME)
def test_the_answer_is_that_of_mlflow(urls: dict[str, str], theirs: dict[str, tuple[int, Any]], what: str) -> None:
    model, kind, body = SAME[what]
    status, said = theirs[what]

    ours = _ask(urls[model], kind, body)

    assert ours.status_code == status, (ours.text, said)
    if status == 200:
        assert ours.json() == said
        assert ours.headers["x-prediction-id"].startswith("pred_")
    elif status == 400:
        assert set(ours.json()) == {"error_code", "message"}
        assert ours.json()["error_code"] in (said["error_code"], "BAD_REQUEST")


def test_what_mlflow_fails_at_is_answered(urls: dict[str, str]) -> None:
    """Its ONNX flavour takes no texts in a frame, no column of lists, and no CSV for a model of one tensor."""
    row = {"size": 2.5, "rooms": 3, "the town": "Évora", "place": [1.0, 2.0]}
    said = {"price": 5.5, "the town again": "Évora", "both": [1.0, 2.0]}
    assert _ask(urls["homes"], JSON, {"dataframe_records": [row]}).json() == {"predictions": [said]}
    split = {"columns": list(row), "data": [list(row.values())] * 2}
    assert _ask(urls["homes"], JSON, {"dataframe_split": split}).json() == {"predictions": [said] * 2}
    assert _ask(urls["homes"], JSON, {"dataframe_split": {"data": split["data"]}}).json() == {"predictions": [said] * 2}
    tensors = {"size": [[2.5]], "rooms": [[3]], "the town": [["Évora"]], "place": [[1.0, 2.0]]}
    assert _ask(urls["homes"], JSON, {"inputs": tensors}).json()["predictions"]["price"] == [[5.5]]
    assert _ask(urls["summed"], CSV, "a,b,c\n1,2,3.5\n").json() == {"predictions": {"total": [6.5]}}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, {"dataframe_records": RECORDS, "params": [3]}),
        (JSON, {"dataframe_records": [RECORDS[0] | {"rooms": None}]}),
        (JSON, {"dataframe_records": [RECORDS[0] | {"rooms": "2"}]}),
        (JSON, {"dataframe_records": [RECORDS[0] | {"rooms": True}]}),
        (JSON, {"dataframe_records": [RECORDS[0] | {"rooms": 2.5}]}),
        (JSON, {"dataframe_records": []}),
        (JSON, {"dataframe_records": [1]}),
        (JSON, {"dataframe_split": {"columns": ["size", "size"], "data": [[1, 2]]}}),
        (JSON, {"instances": [{"size": 1.0}]}),
        (JSON, {"inputs": {"size": [[1.0]], "rooms": [1]}}),
        (CSV, ""),
        (CSV, "size,rooms\n1,2,3\n"),
        (CSV, "size,rooms\n1,many\n"),
        (CSV, "\udcff"),
    ],
)
def test_what_does_not_fit_is_refused_in_mlflows_form(urls: dict[str, str], kind: str, body: Any) -> None:
    """Where MLflow casts in silence, leaves a parameter unread, or fails without saying at what, this says it."""
    text = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else _text(body).encode()
    with client(urls["columns"]) as http:
        answer = http.post("/invocations", content=text, headers={"content-type": kind})

    assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST"), answer.text
    assert len(answer.json()["message"]) > 15


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/vnd.apache.parquet", "PAR1"),
        (JSON, {"messages": [{"role": "user", "content": "hello"}]}),
        (JSON, {"prompt": "hello"}),
    ],
)
def test_what_is_not_built_says_so(urls: dict[str, str], kind: str, body: Any) -> None:
    answer = _ask(urls["columns"], kind, body)
    assert (answer.status_code, answer.json()["error_code"]) == (501, "NOT_IMPLEMENTED")


SPLIT = {"columns": NAMES, "data": ROWS}


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ({"dataframe_split": SPLIT}, True),
        ({"dataframe_records": RECORDS, "params": None}, True),
        ({"inputs": {"size": [1.0], "rooms": [2]}, "more": 1}, True),
        ({}, False),
        ({"params": {}}, False),
        *(({form: None}, False) for form in FORMS),
        (dict.fromkeys(FORMS), False),
        ({"dataframe_split": SPLIT, "inputs": None}, False),
        ({"dataframe_split": SPLIT, "dataframe_records": RECORDS}, False),
        ({"dataframe_records": RECORDS, "params": 3}, False),
        ({"dataframe_records": []}, False),
        ({"dataframe_split": {"columns": NAMES, "data": []}}, False),
    ],
)
def test_what_the_description_allows_of_a_body_is_answered_and_nothing_else(
    urls: dict[str, str], described: Any, body: dict[str, Any], fits: bool
) -> None:
    operation = described["paths"]["/invocations"]["post"]
    schema = operation["requestBody"]["content"][JSON]["schema"] | {"components": described["components"]}

    assert jsonschema.Draft202012Validator(schema).is_valid(body) == fits
    assert _ask(urls["columns"], JSON, body).status_code == (200 if fits else 400)


@pytest.fixture(scope="module")
def described(urls: dict[str, str]) -> Any:
    with client(urls["columns"]) as http:
        return http.get("/openapi.json").json()


def test_parameters_are_not_dropped_in_silence(urls: dict[str, str]) -> None:
    records = {"dataframe_records": RECORDS}
    assert "params were not read" in _ask(urls["columns"], JSON, records | {"params": {"top": 3}}).headers["warning"]
    assert "warning" not in _ask(urls["columns"], JSON, records).headers


def test_the_probes_and_the_door(urls: dict[str, str]) -> None:
    url = urls["columns"]
    for path in ("/ping", "/health"):
        assert (httpx.get(url + path).status_code, httpx.get(url + path).text) == (200, "\n")
    assert httpx.get(f"{url}/version").text.split(".")[0] == "3"
    refused = httpx.post(f"{url}/invocations", json={"dataframe_records": RECORDS})
    assert (refused.status_code, refused.json()["error_code"]) == (401, "UNAUTHENTICATED")
