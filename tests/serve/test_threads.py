"""More threads are taken where a single row is answered sooner, and a GPU only where there is one."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bedplate import bundle
from bedplate.errors import InputError, UnavailableError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve import predictors, sessions, spec, threads
from bedplate.serve.predictors import NO_FEATURES, Answer, OnnxPredictor
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import KEY, LINEAR, Watch, World, body, client, linear, network

SIGNATURE = ModelSignature(
    predictor="onnx",
    inputs=(TensorSpec(name="x", datatype="FP64", shape=(-1, 2)),),
    outputs=(TensorSpec(name="y", datatype="FP64", shape=(-1, 2)),),
)


WATCH = Watch()


class Sleeper:
    """On that clock a row takes ``serial`` seconds, and ``parallel`` ones that up to ``shared`` threads share."""

    signature = SIGNATURE

    def __init__(self, serial: float, parallel: float, shared: int, count: int) -> None:
        self.seconds = serial + parallel / min(shared, count)

    def predict(self, inputs: dict[str, Any], features: Any) -> Answer:
        WATCH.now += self.seconds
        return Answer(outputs={"y": inputs["x"]})


class Refusing(Sleeper):
    def predict(self, inputs: dict[str, Any], features: Any) -> Answer:
        raise InputError("never")


@pytest.mark.parametrize(
    ("serial", "parallel", "shared", "most", "count", "tried"),
    [
        (0.0, 0.0001, 8, 8, 1, [1]),  # a short row is not worth a try
        (0.0, 0.04, 8, 8, 8, [1, 2, 4, 8]),
        (0.0, 0.04, 2, 8, 2, [1, 2, 4]),  # the second doubling saves nothing
        (0.03, 0.0, 8, 8, 1, [1, 2]),
        (0.0, 0.04, 8, 1, 1, [1]),
        (0.0, 0.04, 8, 3, 2, [1, 2]),
    ],
)
def test_threads_are_taken_while_a_row_gets_cheaper(
    monkeypatch: pytest.MonkeyPatch,
    serial: float, parallel: float, shared: int, most: int, count: int, tried: list[int],
) -> None:  # fmt: skip
    monkeypatch.setattr(threads, "perf_counter", WATCH)
    loaded: list[int] = []

    def load(threads: int) -> Sleeper:
        loaded.append(threads)
        return Sleeper(serial, parallel, shared, threads)

    kept, found = threads.choose(load, NO_FEATURES, SIGNATURE, most)

    assert found.count == count
    assert loaded == tried
    assert isinstance(kept, Sleeper)
    assert kept.seconds == serial + parallel / min(shared, count)


def test_a_model_that_refuses_made_up_rows_computes_with_one_thread() -> None:
    _, found = threads.choose(lambda count: Refusing(0, 0, 1, count), NO_FEATURES, SIGNATURE, 4)

    assert found.count == 1
    assert "InputError" in found.reason


def test_a_gpu_that_is_not_there_is_said_and_never_replaced_by_the_processor(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine may have a GPU")
    folder, digest = World(tmp_path).bundle()
    manifest = bundle.verify(folder, public_key=tmp_path / "keys" / "bundle.pub.pem", digest=digest)
    for attempt in (
        lambda: sessions.open_session(linear(), provider="cuda"),
        lambda: OnnxPredictor(linear(), LINEAR, provider="cuda"),
        lambda: predictors.load(folder, manifest, provider="cuda"),
    ):
        with pytest.raises(UnavailableError, match="cannot compute on cuda") as refused:
            attempt()
        assert "onnxruntime-gpu" in (refused.value.fix or "")
    changed = msgspec.structs.replace(manifest.signature, predictor="recommender")
    with pytest.raises(UnavailableError, match="'recommender' computes on the CPU alone"):
        predictors.load(folder, msgspec.structs.replace(manifest, signature=changed), provider="cuda")


def test_a_provider_that_nobody_knows_is_no_spec(tmp_path: Path) -> None:
    text = spec.encode(World(tmp_path).spec()).replace(b'"cpu"', b'"abacus"')

    with pytest.raises(InputError, match="abacus"):
        spec.decode(text)


def test_a_replica_tells_what_it_computes_with(tmp_path: Path) -> None:
    world = World(tmp_path, keys={KEY: ("callers", "administrators")})
    made = world.bundle(network(1024), LINEAR)
    with Supervisor(world.home) as supervisor, client(supervisor.start(world.spec(made, threads=2))) as http:
        answer = http.post("/v2/models/linear/infer", json=body()).json()
        lines = http.get("/metrics").text.splitlines()
    told = {
        line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith("bedplate_model_")
    }

    expected = OnnxPredictor(network(1024), LINEAR).predict({"X": np.array([[1, 2, 3]], np.float32)}, NO_FEATURES)
    assert np.allclose(answer["outputs"][0]["data"], expected.outputs["Y"].ravel(), rtol=1e-4)
    assert told["bedplate_model_threads"] in (1, 2)
    assert told["bedplate_model_batch_rows"] >= 1
