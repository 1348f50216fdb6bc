"""One real endpoint over gRPC, real clients: what is answered, what every wrong request gets, and what swaps cost."""

import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as http_triton
from tritonclient.grpc import service_pb2 as real
from tritonclient.utils import InferenceServerException

from bedplate.errors import ConflictError, UnavailableError
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import KEY, STRANGER, World, all_types, body, client, eventually, linear, log_of

pytestmark = pytest.mark.slow

Code = grpc.StatusCode
INFERENCE = Path(sys.prefix) / "inference" / "bin" / "python"
CALLER = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def addresses(world: World) -> Iterator[tuple[str, str]]:
    """Of REST and gRPC."""
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(receipt=1.0, max_body=100_000, mode="durable", grpc=0))
        yield url, supervisor.status()[0].grpc


@pytest.fixture
def caller(addresses: tuple[str, str]) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(addresses[1]) as made:
        yield made


@pytest.fixture
def channel(addresses: tuple[str, str]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(addresses[1]) as made:
        yield made


def rows(*values: float, datatype: str = "FP32") -> triton.InferInput:
    array = np.array(values, np.float32).reshape(-1, 3)
    tensor = triton.InferInput("X", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def unary(channel: grpc.Channel, method: str = "ModelInfer") -> Callable[..., Any]:
    made: Callable[..., Any] = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    return made


def message(*values: float, **more: Any) -> bytes:
    made = real.ModelInferRequest(model_name="linear", **more)
    made.inputs.add(name="X", datatype="FP32", shape=[len(values) // 3, 3])
    made.raw_input_contents.append(np.array(values, np.float32).tobytes())
    data: bytes = made.SerializeToString()
    return data


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details() or ""


def test_the_protocol_is_answered(world: World, caller: triton.InferenceServerClient) -> None:
    assert (caller.is_server_live(), caller.is_server_ready()) == (True, True)  # open to all
    assert caller.get_server_metadata(headers=CALLER).name == "bedplate"
    assert caller.is_model_ready("linear", headers=CALLER)
    assert caller.is_model_ready("linear", "1", headers=CALLER)
    about = caller.get_model_metadata("linear", headers=CALLER, as_json=True)
    assert about["inputs"] == [{"name": "X", "datatype": "FP32", "shape": ["-1", "3"]}]
    wanted = [triton.InferRequestedOutput("Y")]

    answer = caller.infer("linear", [rows(1, 2, 3, 4, 5, 6)], "1", wanted, "one", headers=CALLER)

    assert answer.as_numpy("Y").tolist() == [[1, 2, 3], [4, 5, 6]]
    response = answer.get_response()
    assert (response.model_name, response.model_version, response.id) == ("linear", "1", "one")
    prediction = response.parameters["prediction_id"].string_param
    logged = [one for one in log_of(world) if one["id"] == prediction]
    assert [(one["request_id"], one["inputs"]["X"], one["principal"]) for one in logged] == [
        ("one", [1, 2, 3, 4, 5, 6], "svc-0")
    ]


def test_the_model_is_described_and_counted_the_same_over_both(
    addresses: tuple[str, str], caller: triton.InferenceServerClient
) -> None:
    caller.infer("linear", [rows(1, 2, 3)], headers=CALLER)
    config = caller.get_model_config("linear", headers=CALLER, as_json=True)["config"]
    with http_triton.InferenceServerClient(addresses[0].removeprefix("http://")) as over_http:
        expected = over_http.get_model_config("linear", headers=CALLER)
        index = over_http.get_model_repository_index(headers=CALLER)
        counted = over_http.get_inference_statistics("linear", headers=CALLER)["model_stats"][0]
    tensor = {"data_type": "TYPE_FP32", "dims": ["-1", "3"]}
    assert config.pop("input") == [{"name": "X", **tensor}]
    assert config.pop("output") == [{"name": "Y", **tensor}]
    assert config == {key: expected[key] for key in ("name", "platform", "backend")}
    assert index == [{"name": "linear", "version": "1", "state": "READY", "reason": ""}]
    assert caller.get_model_repository_index(headers=CALLER, as_json=True)["models"] == [
        {"name": "linear", "version": "1", "state": "READY"}
    ]
    stats = caller.get_inference_statistics(headers=CALLER).model_stats[0]
    assert (stats.name, stats.inference_count >= 1) == ("linear", True)
    assert stats.inference_stats.success.count == counted["inference_stats"]["success"]["count"] >= 1
    assert stats.inference_stats.success.ns > 0


def test_the_log_is_the_same_as_over_rest(
    world: World, addresses: tuple[str, str], caller: triton.InferenceServerClient
) -> None:
    with client(addresses[0]) as http:
        over_rest = http.post("/v2/models/linear/infer", json=body((1.5, 2, 3))).headers["x-prediction-id"]
    answer = caller.infer("linear", [rows(1.5, 2, 3)], request_id="r1", headers=CALLER)
    over_grpc = answer.get_response().parameters["prediction_id"].string_param
    records = {one.pop("id"): one for one in log_of(world) if one["id"] in (over_rest, over_grpc)}
    for record in records.values():
        del record["time"], record["latency_ms"]
    assert records[over_rest] == records[over_grpc]


def test_every_type_goes_and_comes_both_ways(tmp_path: Path) -> None:
    model, signature = all_types()
    world = World(tmp_path)
    values: dict[str, Any] = {"BOOL": [True, False], "BYTES": [b"a", "ü".encode()]}
    with Supervisor(world.home) as supervisor:
        supervisor.start(world.spec(world.bundle(model, signature), grpc=0))
        with triton.InferenceServerClient(supervisor.status()[0].grpc) as caller:
            tensors = []
            for spec in signature.inputs:
                tensor = triton.InferInput(spec.name, [2], spec.datatype)
                array = np.array(values.get(spec.datatype, [1, 2]), triton.triton_to_np_dtype(spec.datatype))
                tensor.set_data_from_numpy(array)
                tensors.append(tensor)
            answer = caller.infer("linear", tensors, headers=CALLER)
    for spec in signature.outputs:
        assert answer.as_numpy(spec.name).tolist() == values.get(spec.datatype, [1, 2]), spec.name


def test_kserve_is_answered(addresses: tuple[str, str]) -> None:
    """In an environment of its own: its messages have the names of tritonclient's."""
    script = """
import asyncio, sys
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
url, address, key = sys.argv[1:]
array = np.array([[1, 2, 3]], np.float32)
def request(typed):
    tensor = InferInput("X", [1, 3], "FP32", data=[1.0, 2.0, 3.0] if typed else None)
    if not typed:
        tensor.set_data_from_numpy(array, binary_data=True)
    return InferRequest("linear", [tensor], request_id="k")
async def main():
    headers = {"authorization": f"Bearer {key}"}
    client = InferenceGRPCClient(address)
    assert await client.is_server_live() and await client.is_server_ready()
    assert await client.is_model_ready("linear", headers=tuple(headers.items()))
    for typed in (True, False):
        answer = await client.infer(request(typed), headers=tuple(headers.items()))
        assert answer.outputs[0].as_numpy().tolist() == [[1, 2, 3]] and answer.id == "k", answer
    await client.close()
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    answer = await rest.infer(url, request(True), model_name="linear", headers=headers)
    assert answer.outputs[0].data == [1, 2, 3] and answer.id == "k", answer
asyncio.run(main())
"""
    done = subprocess.run(
        [INFERENCE, "-c", script, *addresses, KEY], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, Code.UNAUTHENTICATED),
        ({"authorization": "Bearer bp_nobody_0123456789abcdef"}, Code.UNAUTHENTICATED),
        ({"authorization": f"Basic {KEY}"}, Code.UNAUTHENTICATED),
        ({"authorization": f"Bearer {STRANGER}"}, Code.PERMISSION_DENIED),
    ],
)
def test_nobody_is_answered_without_the_right(
    channel: grpc.Channel, headers: dict[str, str], code: grpc.StatusCode
) -> None:
    for method in ("ModelInfer", "ServerMetadata", "ModelMetadata", "ModelReady"):
        call = unary(channel, method)
        assert refused(lambda call=call: call(b"\xff", metadata=tuple(headers.items())))[0] == code
    stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    assert refused(lambda: next(stream(iter([message(1, 2, 3)]), metadata=tuple(headers.items()))))[0] == code


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (b"\xff", Code.INVALID_ARGUMENT, "no ModelInferRequest"),
        (message(1, 2), Code.INVALID_ARGUMENT, "has 8 bytes"),
        (message(1, 2, float("nan")), Code.INVALID_ARGUMENT, "no number"),
        (message(1, 2, 3, model_version="7"), Code.NOT_FOUND, "version '7'"),
        (message(1, 2, 3).replace(b"linear", b"curved"), Code.NOT_FOUND, "'curved' is not served"),
        (message(*range(30_000)), Code.RESOURCE_EXHAUSTED, "larger than"),
    ],
)
def test_what_is_wrong_is_a_status(channel: grpc.Channel, sent: bytes, code: grpc.StatusCode, said: str) -> None:
    found, text = refused(lambda: unary(channel)(sent, metadata=tuple(CALLER.items())))
    assert (found, said in text) == (code, True), text
    assert "Traceback" not in text


def test_other_methods_are_not_there(channel: grpc.Channel) -> None:
    for method in ("CudaSharedMemoryRegister", "Nothing"):
        assert refused(lambda m=method: unary(channel, m)(b""))[0] == Code.UNIMPLEMENTED


def test_who_sends_no_message_is_cut(addresses: tuple[str, str], channel: grpc.Channel) -> None:
    def never() -> Iterator[bytes]:
        time.sleep(3)
        yield b""

    call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
    found, text = refused(lambda: call(never(), metadata=tuple(CALLER.items())))
    assert (found, "longer than 1 s" in text) == (Code.DEADLINE_EXCEEDED, True)


def test_a_deadline_is_kept(channel: grpc.Channel) -> None:
    call = unary(channel)
    assert refused(lambda: call(message(1, 2, 3), timeout=1e-6, metadata=tuple(CALLER.items())))[0] == (
        Code.DEADLINE_EXCEEDED
    )
    answer, more = call.with_call(message(1, 2, 3), timeout=60, metadata=tuple(CALLER.items()))
    read = real.ModelInferResponse.FromString(answer)
    assert dict(more.trailing_metadata())["x-prediction-id"] == read.parameters["prediction_id"].string_param


def test_a_stream_answers_in_order_and_goes_on_after_an_error(caller: triton.InferenceServerClient) -> None:
    answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    caller.start_stream(lambda result, error: answers.put((result, error)), headers=CALLER)
    for number in range(20):
        wrong = number == 7
        caller.async_stream_infer("curved" if wrong else "linear", [rows(number, 0, 0)], request_id=str(number))
    for number in range(20):
        result, error = answers.get(timeout=60)
        if number == 7:
            assert isinstance(error, InferenceServerException)
            assert "'curved'" in str(error)
            continue
        assert (result.get_response().id, result.as_numpy("Y")[0, 0]) == (str(number), number)
    caller.stop_stream()


def test_readiness_needs_a_snapshot(tmp_path: Path) -> None:
    world = World(tmp_path)
    with Supervisor(world.home) as supervisor:
        supervisor.start(world.spec(grpc=0))
        with triton.InferenceServerClient(supervisor.status()[0].grpc) as caller:
            assert caller.is_server_ready()
            world.snapshot.unlink()
            eventually(lambda: not caller.is_server_ready())
            with pytest.raises(InferenceServerException) as caught:
                caller.infer("linear", [rows(1, 2, 3)], headers=CALLER)
            assert caught.value.status() == str(Code.UNAVAILABLE)


# ------------------------------------------------------------------------------------------------------------- its port


def test_a_port_that_is_taken_is_a_clear_error(tmp_path: Path) -> None:
    world = World(tmp_path)
    for shared in (False, True):
        with socket.socket() as other, Supervisor(world.home) as supervisor:
            if shared:  # even by one that would share it
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with pytest.raises(UnavailableError, match=f"port {port} is taken"):
                supervisor.start(world.spec(grpc=port))
            assert supervisor.status() == []


def test_the_port_stays_and_comes_and_goes_with_the_release(tmp_path: Path) -> None:
    world = World(tmp_path)
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec())
        assert supervisor.status()[0].grpc == ""
        assert supervisor.start(world.spec(grpc=0)) == url
        address = supervisor.status()[0].grpc
        with triton.InferenceServerClient(address) as caller:
            assert caller.is_server_ready()
        with pytest.raises(ConflictError, match="answers on"):
            supervisor.start(world.spec(grpc=int(address.rpartition(":")[2]) + 1))
        supervisor.start(world.spec())
        assert supervisor.status()[0].grpc == ""
    with Supervisor(world.home) as supervisor:
        supervisor.start(world.spec(grpc=0))
        assert supervisor.status()[0].grpc == address


# ---------------------------------------------------------------------------------------------------------------- swaps


class Asking:
    """Clients of their own thread that ask all the time: one with a kept channel, one with a new one each time, and one
    on a stream, which opens another when told that the replica ends."""

    def __init__(self, address: str) -> None:
        self._address, self._stop = address, threading.Event()
        self.answered: list[str] = []
        self.again = 0
        self.failed: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, args=(f,)) for f in (self._kept, self._new, self._streaming)
        ]

    def _run(self, ask: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                ask()
        except grpc.RpcError as error:
            self.failed.append(f"{ask.__name__}: {error}")

    def _ask(self, channel: grpc.Channel) -> None:
        answer = unary(channel)(message(1, 2, 3), timeout=60, metadata=tuple(CALLER.items()))
        self._take(real.ModelInferResponse.FromString(answer))
        self._stop.wait(0.01)

    def _take(self, answer: Any) -> None:
        self.answered.append(answer.parameters["prediction_id"].string_param)

    def _kept(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            while not self._stop.is_set():
                self._ask(channel)

    def _new(self) -> None:
        with grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            self._ask(channel)

    def _streaming(self) -> None:
        sending: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with grpc.insecure_channel(self._address) as channel:
            call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            answers = call(iter(sending.get, None), metadata=tuple(CALLER.items()))
            try:
                while not self._stop.is_set():
                    sending.put(message(1, 2, 3))
                    read = real.ModelStreamInferResponse.FromString(next(answers))
                    assert not read.error_message, read
                    self._take(read.infer_response)
                    self._stop.wait(0.01)
            except grpc.RpcError as error:
                if error.code() != Code.UNAVAILABLE or "this replica ends" not in (error.details() or ""):
                    raise
                self.again += 1  # what was not answered was not computed either: it is asked again
            finally:
                sending.put(None)

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_swaps_under_load_fail_no_request(tmp_path: Path) -> None:
    world = World(tmp_path)
    bundles = [world.bundle(linear(), version=version) for version in (1, 2)]
    with Supervisor(world.home) as supervisor:
        supervisor.start(world.spec(bundles[0], grpc=0, drain=1.0))
        with Asking(supervisor.status()[0].grpc) as asking:
            for number in range(1, 3):
                supervisor.start(world.spec(bundles[number % 2], grpc=0, drain=1.0))
        assert supervisor.status()[0].restarts == 0
    assert asking.failed == []
    assert 1 <= asking.again <= 2
    # Each answer was logged once, and what was not answered was not computed.
    assert sorted(one["id"] for one in log_of(world)) == sorted(asking.answered)
    log = "".join(path.read_text() for path in world.home.logs.iterdir())
    assert "Traceback" not in log, log
