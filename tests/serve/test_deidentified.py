"""The prediction log of a use case that de-identifies: no identifier of a request is in any byte of the home."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tritonclient.http as triton

from bedplate import ids
from bedplate.identifiers import LogRules, code, key_of
from bedplate.journal.predictions import Packed
from bedplate.records import ModelSignature, TensorSpec, TraceContext
from bedplate.serve import generation
from bedplate.serve.deidentified import SafeLog
from bedplate.serve.predictors import Answer
from bedplate.serve.spec import ReplicaSpec, decode, encode
from bedplate.serve.supervisor import Supervisor
from bedplate.serve.tensors import Call, logged
from tests.serve.support import KEY, World, all_types, client, log_of
from tests.serve.test_streaming import ALPHABET

PLANTED = (b"MRN7702913", b"94110-2213", b"Zebulon")


def rules(folder: Path, **columns: Any) -> LogRules:
    return LogRules(columns=columns, secret=folder / "masks.key")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def urls(world: World) -> Iterator[dict[str, str]]:
    """The address of a model that gives back what it is given, and of one that writes texts on."""
    model, signature = all_types()
    kept = rules(world.root, in_BYTES="code", in_INT64="age", in_INT32="code", in_FP32="value", out_BYTES="zip")
    echo = world.spec(world.bundle(model, signature), name="echo", mode="durable", log=kept)
    written = world.bundle(ALPHABET, generation.SIGNATURE)
    writer = world.spec(written, name="writer", mode="durable", log=rules(world.root))
    with Supervisor(world.home) as supervisor:
        yield {spec.name: supervisor.start(spec) for spec in (echo, writer)}


def _echo(url: str, *, binary: bool) -> None:
    """A request with identifiers in every place that a caller can write in."""
    kinds = {
        "BOOL": bool, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
        "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32,
        "FP64": np.float64,
    }  # fmt: skip
    given = []
    for name, kind in kinds.items():
        array = np.array([97, 41] if name != "INT32" else [7702913, 5], kind)
        tensor = triton.InferInput(f"in_{name}", [2], name)
        tensor.set_data_from_numpy(array, binary_data=binary)
        given.append(tensor)
    text = triton.InferInput("in_BYTES", [2], "BYTES")
    text.set_data_from_numpy(np.array([b"MRN7702913", b"94110-2213"], object), binary_data=binary)
    server = triton.InferenceServerClient(url.removeprefix("http://"))
    headers = {
        "authorization": f"Bearer {KEY}",
        "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01",
        "tracestate": "ward=MRN7702913",
    }
    try:
        answer = server.infer("echo", [*given, text], request_id="Zebulon MRN7702913", headers=headers)
        assert answer.as_numpy("out_BYTES").tolist() == [b"MRN7702913", b"94110-2213"]  # the answer is whole
    finally:
        server.close()


@pytest.mark.parametrize("binary", [False, True])
def test_no_identifier_of_a_request_is_in_any_byte_of_the_home(
    world: World, urls: dict[str, str], *, binary: bool
) -> None:
    _echo(urls["echo"], binary=binary)
    key = key_of(world.root / "masks.key", "demo")
    record = [each for each in log_of(world) if each["endpoint"] == "echo"][-1]
    given, gave = record["inputs"], record["outputs"]
    assert given["in_BYTES"] == [code(key, "MRN7702913"), code(key, "94110-2213")]
    assert given["in_INT32"] == [code(key, "7702913"), code(key, "5")]
    assert (given["in_INT64"], given["in_FP32"]) == ([90, 41], [97.0, 41.0])
    assert given["in_FP64"] is None  # no contract says what it is
    assert gave["out_BYTES"] == [None, "941"]
    assert gave["out_FP64"] == [97.0, 41.0]  # what a model computed
    assert record["request_id"] == code(key, "Zebulon MRN7702913")
    assert record["trace"]["parent"]
    assert not record["trace"].get("state")
    assert not _holding(world.root)


def test_the_search_finds_them_where_nothing_is_de_identified(tmp_path: Path) -> None:
    world = World(tmp_path)
    model, signature = all_types()
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(world.bundle(model, signature), name="echo", mode="durable"))
        _echo(url, binary=False)
    assert _holding(tmp_path)


def _holding(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix in (".open", ".sealed") for path in files)
    return [path for path in files if any(each in path.read_bytes() for each in PLANTED)]


def test_neither_a_prompt_nor_the_pieces_of_its_answer_are_logged(world: World, urls: dict[str, str]) -> None:
    with client(urls["writer"]) as http:
        asked = {"text": "a", "parameters": {"max_tokens": 4}, "id": "Zebulon"}
        assert http.post("/v2/models/writer/generate", json=asked).json()["text"] == "bcdé"
        assert '"b"' in http.post("/v2/models/writer/generate_stream", json=asked).text
    records = [each for each in log_of(world) if each["endpoint"] == "writer"]
    assert len(records) == 2
    for record in records:
        assert set(record["inputs"].values()) == {None}
        assert record["outputs"][generation.TEXT] is None


def _signature(*inputs: TensorSpec) -> ModelSignature:
    out = (TensorSpec(name="score", datatype="FP32", shape=(-1, 1)), _tensor("said", "BYTES"))
    return ModelSignature(predictor="onnx", inputs=inputs, outputs=out)


def _tensor(name: str, datatype: Any = "INT64") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=(-1, 1))


def test_features_that_are_made_of_a_request_are_logged_only_where_it_may_be(tmp_path: Path) -> None:
    answer = Answer(
        outputs={}, features={"spent": 3.0, "born in": 1913.0, "missing": {"recent": {"late": ["7702913"]}}},
        entity="7702913",
    )  # fmt: skip
    signature = _signature(_tensor("household"), _tensor("age"))
    safe = SafeLog(rules(tmp_path, household="value", age="age"), "u", signature, ("spent",))
    assert safe.features(answer) == {**answer.features, "born in": None}
    assert safe.entity(answer) == "7702913"
    plain = SafeLog(rules(tmp_path, household="value", age="value"), "u", signature, ("spent",))
    assert plain.features(answer) is answer.features
    coded = SafeLog(rules(tmp_path, household="code", age="value"), "u", signature, ("spent",))
    assert coded.features(answer) == {"spent": 3.0, "born in": None, "missing": None}
    assert coded.entity(answer) == code(key_of(tmp_path / "masks.key", "u"), "7702913")
    dropped = SafeLog(rules(tmp_path, age="value"), "u", signature, ("spent",))
    assert dropped.entity(answer) == ""


def test_a_model_whose_inputs_all_may_be_logged_is_logged_as_ever(tmp_path: Path) -> None:
    safe = SafeLog(rules(tmp_path, x="value"), "u", _signature(_tensor("x", "FP32")), None)
    call = Call(None, {"x": np.ones((1, 1), np.float32)}, {"x": [1.0]})
    outputs = {"score": [0.5], "said": ["yes"]}
    assert safe.inputs(call) is call.values
    assert safe.outputs(outputs) is outputs
    assert safe.request(call) == ""


def test_many_numbers_are_judged_as_few_are(tmp_path: Path) -> None:
    signature = _signature(_tensor("age"))
    safe = SafeLog(rules(tmp_path, age="age", score="age"), "u", signature, None)
    many = np.arange(50, 250).reshape(-1, 1)
    call = Call(None, {"age": many}, {"age": msgspec.Raw(b"[]")})
    (made,) = safe.inputs(call).values()
    assert isinstance(made, Packed)
    assert np.frombuffer(made.data, made.dtype).max() == 90
    score = logged(many.astype(np.float32))
    assert np.frombuffer(safe.outputs({"score": score, "said": []})["score"].data, np.float32).max() == 90


def test_ids_of_replayed_history_stay_and_no_others(tmp_path: Path) -> None:
    safe = SafeLog(rules(tmp_path), "u", _signature(_tensor("x")), None)
    key, ours = key_of(tmp_path / "masks.key", "u"), f"replay-{ids.digest_bytes(b'x')[7:39]}"
    for told, replayed, kept in (
        (ours, True, ours),
        (ours, False, code(key, ours)),
        ("replay-Zebulon", True, code(key, "replay-Zebulon")),
        ("Zebulon", True, code(key, "Zebulon")),
    ):
        assert safe.request(Call(told, {}, {}, replayed=replayed)) == kept


def test_what_a_caller_adds_to_a_trace_is_left_out(tmp_path: Path) -> None:
    safe = SafeLog(rules(tmp_path), "u", _signature(), None)
    trace = TraceContext(parent="00-ab", state="ward=Zebulon", model_ms=2.0)
    assert safe.trace(trace) == TraceContext(parent="00-ab", model_ms=2.0)


def test_the_rules_come_through_the_spec_of_a_replica(world: World) -> None:
    spec: ReplicaSpec = world.spec(log=rules(world.root, age="age"))
    assert decode(encode(spec)) == spec
