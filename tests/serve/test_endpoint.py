"""One real endpoint, real clients: what is answered, and what every wrong request gets."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from bedplate.app import load
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import EVIDENCE, KEY, STRANGER, World, body, client, eventually, log_of

INFER = "/v2/models/linear/infer"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def url(world: World) -> Iterator[str]:
    with Supervisor(world.home) as supervisor:
        yield supervisor.start(world.spec(receipt=1.0, max_body=100_000, mode="durable"))


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with client(url) as http:
        yield http


def test_the_protocol_is_answered(http: httpx.Client) -> None:
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    assert http.get("/v2").json()["name"] == "bedplate"
    tensors = [[{"name": n, "datatype": "FP32", "shape": [-1, 3]}] for n in "XY"]
    metadata = {"name": "linear", "versions": ["1"], "platform": "bedplate_onnx", "inputs": tensors[0]}
    assert http.get("/v2/models/linear/versions/1").json() == {**metadata, "outputs": tensors[1]}
    assert http.get("/v2/models/linear/ready").json()["ready"] is True
    answer = http.post("/v2/models/linear/versions/1/infer", json=body((1, 2, 3, 4, 5, 6)))
    prediction = answer.headers["x-prediction-id"]
    assert answer.json() == {
        "model_name": "linear",
        "model_version": "1",
        "id": "r1",
        "outputs": [{"name": "Y", "shape": [2, 3], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}],
        "parameters": {"prediction_id": prediction},
    }


def test_the_stock_client_works(url: str) -> None:
    server = triton.InferenceServerClient(url.removeprefix("http://"))
    headers = {"authorization": f"Bearer {KEY}"}
    try:
        assert server.is_server_live(headers=headers)
        assert server.is_model_ready("linear", headers=headers)
        given = triton.InferInput("X", [1, 3], "FP32")
        given.set_data_from_numpy(np.array([[1, 2, 3]], np.float32), binary_data=False)
        wanted = triton.InferRequestedOutput("Y", binary_data=False)
        answer = server.infer("linear", [given], outputs=[wanted], request_id="q", headers=headers)
        assert answer.as_numpy("Y").tolist() == [[1.0, 2.0, 3.0]]
        assert answer.get_response()["id"] == "q"
    finally:
        server.close()


def test_a_durable_prediction_is_in_the_log_when_it_is_answered(world: World, http: httpx.Client) -> None:
    answer = http.post(INFER, json=body((7, 8, 9)) | {"parameters": {"replayed": True}})

    records = log_of(world)
    (record,) = [r for r in records if r["id"] == answer.headers["x-prediction-id"]]
    assert (record["inputs"], record["outputs"]) == ({"X": [7.0, 8.0, 9.0]}, {"Y": [7.0, 8.0, 9.0]})
    assert (record["evidence"], record["principal"], record["decision"]) == (EVIDENCE, "svc-0", "callers")
    assert (record["request_id"], record["replayed"], record["use_case"]) == ("r1", True, "demo")


WRONG: dict[str, Any] = {
    "datatype": body(datatype="FP64"),
    "unknown datatype": body(datatype="FP31"),
    "rank": body(shape=[3]),
    "dimension": body(shape=[1, 4]),
    "negative": body(shape=[-1, 3]),
    "too few values": body(shape=[2, 3]),
    "name": body(name="Z"),
    "missing": {"inputs": []},
    "twice": {"inputs": body()["inputs"] * 2},
    "strings": body(data=["1", "2", "3"]),
    "booleans": body(data=[True, False, True]),
    "null": body(data=[1, None, 3]),
    "ragged": body(data=[[1, 2], [3]]),
    "nested too deep": body(data=[[[1, 2, 3]]]),
    "object": body(data={"a": 1}),
    "too large a number": body(data=[1e39, 1, 1]),
    "unknown output": body() | {"outputs": [{"name": "Q"}]},
    "no inputs": {"id": "x"},
    "list": [],
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_request_is_400_with_a_reason(http: httpx.Client, what: str) -> None:
    answer = http.post(INFER, json=WRONG[what])

    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    assert len(answer.json()["error"]) > 10


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        json.dumps(body(data=[float("nan")] * 3)).encode(),
        b'{"inputs":[{"name":"X","shape":[1,3],"datatype":"FP32","data":[Infinity,1,1]}]}',
        b'{"inputs":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"inputs":[{"name":"X","shape":[1,99999999999999999999],"datatype":"FP32","data":[1]}]}',
    ],
)
def test_a_body_that_is_no_json_is_400(http: httpx.Client, text: bytes) -> None:
    assert http.post(INFER, content=text).status_code == 400


def test_who_may_not_and_what_is_not_there(url: str) -> None:
    def ask(path: str = INFER, key: str | None = KEY, method: str = "POST", **options: Any) -> int:
        with client(url, key) as http:
            return http.request(method, path, **options).status_code

    assert ask(key=None, content=b"{") == 401
    assert ask(key="bp_caller_wrong", content=b"{") == 401
    assert ask(key=STRANGER, content=b"{") == 403
    assert ask("/v2/models/other/infer", json=body()) == 404
    assert ask("/v2/models/linear/versions/2/infer", json=body()) == 404
    assert ask("/v2/models/linear/unload") == 404
    assert ask("/dummy", key=None) == 404
    assert ask(method="GET") == 405
    assert ask(content=b" " * 200_000) == 413
    assert ask(content=iter([b" " * 50_000] * 5)) == 413
    assert ask(json=body(), headers={"host": "evil.example"}) == 421
    assert ask(json=body(), headers={"origin": "http://evil.example"}) == 403
    assert ask("/metrics", method="GET") == 403
    assert ask("/v2/models/linear", key=None, method="GET") == 401


def test_large_headers_are_refused_and_slow_bodies_are_cut(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")

    def raw(data: bytes) -> bytes:
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(data)
            return connection.recv(65536).split(b"\r\n")[0]

    start = f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n".encode()
    assert b" 4" in raw(start + b"x: " + b"a" * 100_000 + b"\r\n\r\n")
    assert b"408" in raw(start + b"content-length: 1000\r\n\r\n{")


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_a_body_that_breaks_off_is_not_taken_for_a_whole_one(url: str, framing: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    text = json.dumps(body()).encode()  # all of it, but nothing says so
    length = {"content-length": f"content-length: {len(text) + 1}\r\n\r\n".encode()}
    length["chunked"] = b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(text)
    start = f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n".encode()
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(start + length[framing] + text + b"\r\n"[: 2 * (framing == "chunked")])
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536).split(b"\r\n")[0]

    assert b" 400 " in answer


def test_a_revoked_key_is_refused_within_a_second(world: World, url: str) -> None:
    token = "bp_shortlived_0123456789"
    world.keys[token] = ("callers",)
    world.publish()
    with client(url, token) as http:
        eventually(lambda: http.post(INFER, json=body()).status_code == 200)
        del world.keys[token]
        world.publish()
        # Five looks a second; the rest is what a busy machine adds.
        eventually(lambda: http.post(INFER, json=body()).status_code == 401)


def test_a_snapshot_with_a_bad_signature_denies_everybody_until_a_good_one_comes(
    world: World, http: httpx.Client
) -> None:
    eventually(lambda: http.post(INFER, json=body()).status_code == 200)
    world.snapshot.write_bytes(world.snapshot.read_bytes().replace(b"callers", b"viewers"))

    eventually(lambda: http.post(INFER, json=body()).status_code == 503)
    assert http.get("/v2/health/ready").status_code == 503
    world.publish()
    eventually(lambda: http.post(INFER, json=body()).status_code == 200)


def test_a_load_run_states_its_p99_with_an_interval(url: str) -> None:
    result = load.run(url, "linear", [body()], seconds=1.0, connections=4, rate=100.0, key=KEY, limit_p99_ms=1000)

    assert result.failed == 0
    assert 60 <= result.requests <= 101
    assert result.p50_ms <= result.p90_ms <= result.p99.value <= result.p99.high
