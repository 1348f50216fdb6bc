"""Predictors that are code: they answer, they reach nothing, and whatever they do costs only their own requests."""

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bedplate import bundle
from bedplate.bundle import formats
from bedplate.errors import InputError, IntegrityError
from bedplate.isolation import confine, wire
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve import limited, predictors
from bedplate.serve.limited import LimitedPredictor
from bedplate.serve.predictors import NO_FEATURES
from bedplate.serve.supervisor import Supervisor
from bedplate.serve.tensors import ModelError
from tests.serve.support import World, client, eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not confine.available().isolated, reason="this machine holds no code"),
]

SIGNATURE = ModelSignature(
    predictor="python",
    inputs=(TensorSpec(name="x", datatype="FP64", shape=(-1,)), TensorSpec(name="what", datatype="BYTES", shape=(1,))),
    outputs=(TensorSpec(name="y", datatype="FP64", shape=(-1,)), TensorSpec(name="said", datatype="BYTES", shape=(1,))),
)
CODE = """
import ctypes, json, os, socket, sys, threading, time
from pathlib import Path

import numpy as np

from bedplate import pipeline
from bedplate.errors import InputError

settings = json.loads(Path("settings.json").read_text())
kept = []


def attempt(function):
    try:
        function()
    except (OSError, RuntimeError) as error:
        return f"refused: {type(error).__name__}"
    return "done"


def thread():
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()


ATTEMPTS = {
    "read": lambda: Path("/etc/passwd").read_text(),
    "home": lambda: os.listdir(settings["home"]),
    "environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "write": lambda: Path(settings["home"], "x").write_text("x"),
    "socket": lambda: socket.socket(),
    "unix": lambda: socket.socketpair(),
    "fork": lambda: os.fork(),
    "program": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 9),
    "own": lambda: Path("own.txt").write_text("x"),
}


@pipeline.predictor
def answer(inputs):
    what = str(inputs["what"][0])
    said = "ok"
    if what in ATTEMPTS:
        said = attempt(ATTEMPTS[what])
    elif what == "loop":
        while True:
            pass
    elif what == "memory":
        for _ in range(200):
            kept.append(np.ones(1 << 21))
            time.sleep(0.01)
    elif what == "threads":
        try:
            for _ in range(2000):
                thread()
        except RuntimeError:
            pass  # this machine lets it have no more: as many as there are go on
        time.sleep(30)
    elif what == "crash":
        ctypes.string_at(0)
    elif what == "leave":
        os._exit(3)
    elif what == "garbage":
        for descriptor in range(3, 20):
            try:
                os.write(descriptor, b"Z" * 400)
            except OSError:
                pass
        os.write(0, b"Z" * 400)
    elif what == "huge":
        os.write(0, b"R" + (1 << 60).to_bytes(8, "little"))
    elif what == "raise":
        raise ValueError("secret text")
    elif what == "refuse":
        raise InputError("x must not be that")
    elif what == "missing":
        return {"y": inputs["x"]}
    elif what == "type":
        return {"y": np.array(["a"]), "said": [""]}
    elif what == "print":
        print("hello " * 10)
    return {"y": settings["factor"] * inputs["x"], "said": np.array([said])}
"""


def files(home: Path, code: str = CODE) -> dict[str, bytes]:
    return {"pipeline.py": code.encode(), "settings.json": msgspec.json.encode({"factor": 3.0, "home": str(home)})}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def predictor(shared: LimitedPredictor) -> LimitedPredictor:
    """One for all tests; each finds it without a past."""
    shared._delay = shared._not_before = 0.0
    shared._ended -= 100
    return shared


@pytest.fixture(scope="module")
def shared(home: Path) -> Any:
    made = LimitedPredictor("python", files(home), SIGNATURE, memory=600 << 20, seconds=20.0)
    yield made
    made.close()


def ask(predictor: LimitedPredictor, what: str = "", x: Any = (1.0, 2.0)) -> Any:
    inputs = {"x": np.array(x), "what": np.array([what], object)}
    return predictor.predict(inputs, NO_FEATURES).outputs


def test_it_answers_like_the_function(predictor: LimitedPredictor) -> None:
    outputs = ask(predictor, x=[1.0, -2.5, 1e300])

    assert outputs["y"].tolist() == [3.0, -7.5, 3e300]
    assert outputs["y"].dtype == np.float64
    assert outputs["said"].tolist() == ["ok"]
    assert ask(predictor, x=[])["y"].shape == (0,)
    assert ask(predictor, "print")["said"].tolist() == ["ok"]


@pytest.mark.parametrize("what", ["read", "home", "environment", "write", "socket", "unix", "fork", "program", "kill"])
def test_it_reaches_nothing(predictor: LimitedPredictor, home: Path, what: str) -> None:
    assert ask(predictor, what)["said"][0].startswith("refused")
    assert list(home.iterdir()) == []


def test_its_folder_is_its_own_and_goes_with_it(home: Path) -> None:
    one = LimitedPredictor("python", files(home), SIGNATURE)
    assert ask(one, "own")["said"][0] == "done"
    folder = Path(os.readlink(f"/proc/{one.pid}/cwd"))
    assert (folder / "own.txt").exists()

    one.close()

    assert not folder.exists()


def test_a_predictor_that_nobody_holds_leaves_no_process(home: Path) -> None:
    one = LimitedPredictor("python", files(home), SIGNATURE)
    pid = one.pid
    assert pid is not None

    del one

    eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the process stayed")


def test_what_it_raises_is_told_without_its_text(predictor: LimitedPredictor) -> None:
    before = predictor.pid
    with pytest.raises(ModelError, match=r"ValueError \(pipeline.py line \d+\)") as failed:
        ask(predictor, "raise")
    assert "secret" not in str(failed.value)
    with pytest.raises(InputError, match="x must not be that"):
        ask(predictor, "refuse")
    with pytest.raises(ModelError, match="KeyError"):
        ask(predictor, "missing")
    with pytest.raises(ModelError, match="TypeError"):
        ask(predictor, "type")
    assert ask(predictor)["y"].tolist() == [3.0, 6.0]
    assert predictor.pid == before


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("loop", "longer than allowed"),
        ("memory", "of memory"),
        ("threads", "threads at once|longer than"),
        ("crash", "SIGSEGV"),
        ("leave", "status 3"),
        ("garbage", "no frame of kind"),
        ("huge", "over its limit"),
    ],
)
def test_what_it_does_costs_its_own_requests_and_it_is_started_again(
    predictor: LimitedPredictor, what: str, reason: str
) -> None:
    ask(predictor)
    before, allowed = predictor.pid, predictor.seconds
    predictor.seconds = 0.5 if what == "loop" else allowed
    with pytest.raises(ModelError, match=reason):
        ask(predictor, what)
    predictor.seconds = allowed

    assert ask(predictor)["y"].tolist() == [3.0, 6.0]
    assert predictor.pid != before


def test_one_that_ends_again_and_again_is_started_ever_later(home: Path) -> None:
    one = LimitedPredictor("python", files(home), SIGNATURE)
    delays = []
    for _ in range(3):
        with pytest.raises(ModelError, match="ended"):
            ask(one, "leave")
        delays.append(one._delay)
        if one._delay:
            with pytest.raises(ModelError, match="again and again"):
                ask(one)
        one._not_before = 0.0

    assert delays == [0.0, 0.1, 0.2]
    one.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("x =", "SyntaxError.*line 1"),
        ("import no_such_library", "no_such_library"),
        ("x = 1", "marks 0 functions"),
        ("raise SystemExit(4)", "SystemExit"),
        ("import os\nos._exit(5)", "closed the connection|status 5"),
    ],
)
def test_code_that_cannot_be_loaded_never_serves(home: Path, code: str, reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        LimitedPredictor("python", files(home, code), SIGNATURE)


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.sampled_from(["FP64", "FP32", "INT64", "UINT8", "BOOL", "FP16"]).flatmap(
            lambda kind: st.tuples(
                st.just(kind), arrays.arrays(limited.DTYPES[kind], arrays.array_shapes(min_side=0, max_dims=3))
            )
        ),
    ),
    st.lists(st.text(max_size=5), max_size=4),
)
def test_arrays_go_over_as_they_are(given_arrays: Any, texts: list[str]) -> None:
    whole = {name: array for name, (_, array) in given_arrays.items()} | {"t": np.array(texts, object)}
    kinds = {name: kind for name, (kind, _) in given_arrays.items()} | {"t": "BYTES"}

    found = limited.unpack(limited.pack(whole, kinds))

    assert set(found) == set(whole)
    for name, array in whole.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == array.tobytes() or name == "t"
    assert found["t"].tolist() == texts


@given(
    st.binary(max_size=60)
    | st.builds(msgspec.msgpack.encode, st.lists(st.lists(st.integers(-2, 9) | st.text("aF6P", max_size=4))))
)
def test_any_answer_is_an_array_or_refused(data: bytes) -> None:
    try:
        found = limited.unpack(data)
    except (ValueError, msgspec.MsgspecError):
        return
    assert isinstance(found, dict)


def test_frames_have_known_kinds_and_bounded_lengths() -> None:
    assert wire.parse_head(wire.head("result", 7), {"result": 7}) == ("result", 7)
    for head, limits in ((wire.head("result", 8), {"result": 7}), (b"Z" + b"\0" * 8, {"result": 7})):
        with pytest.raises(ValueError, match=r"kind|limit"):
            wire.parse_head(head, limits)


def test_code_is_a_format_of_limited_bundles_alone() -> None:
    assert formats.identify("pipeline.py", CODE.encode(), limited=True) == "python"
    assert formats.identify("model.pt2", b"PK\x03\x04 and more", limited=True) == "torch-export"
    for name, data, isolated in (
        ("pipeline.py", CODE.encode(), False),
        ("model.pt2", b"PK\x03\x04 and more", False),
        ("other.py", CODE.encode(), True),
        ("pipeline.py", b"\xff\xfe", True),
        ("model.pkl", b"\x80\x04K\x01.", True),
    ):
        with pytest.raises(InputError):
            formats.identify(name, data, limited=isolated)


def test_an_endpoint_serves_it_and_stays_when_it_goes(tmp_path: Path) -> None:
    """Signature checked first, code in its own process, which ends with the replica."""
    world = World(tmp_path)
    made = world.bundle(files(tmp_path), SIGNATURE)
    manifest = bundle.verify(made[0], public_key=world.home.keys / "bundle.pub.pem", digest=made[1])
    assert {name: file.format for name, file in manifest.files.items()} == {
        "pipeline.py": "python",
        "settings.json": "json",
    }

    def body(what: str) -> Any:
        x = {"name": "x", "shape": [2], "datatype": "FP64", "data": [1, 2]}
        return {"inputs": [x, {"name": "what", "shape": [1], "datatype": "BYTES", "data": [what]}]}

    with Supervisor(world.home) as supervisor, client(supervisor.start(world.spec(made))) as http:
        infer = "/v2/models/linear/infer"
        (replica,) = supervisor.status()[0].pids
        assert http.post(infer, json=body("")).json()["outputs"][0]["data"] == [3.0, 6.0]
        refused = http.post(infer, json=body("refuse"))
        assert (refused.status_code, "x must not be that" in refused.text) == (400, True)
        assert http.post(infer, json=body("leave")).status_code == 500
        assert http.post(infer, json=body("")).json()["outputs"][0]["data"] == [3.0, 6.0]
        assert supervisor.status()[0].pids == (replica,)
        tasks = Path(f"/proc/{replica}/task").glob("*/children")
        children = [child for task in tasks for child in task.read_text().split()]
    assert children
    eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children), what="it outlived its replica")


def test_a_bundle_whose_code_was_changed_is_never_run(tmp_path: Path) -> None:
    world = World(tmp_path)
    folder, digest = world.bundle(files(tmp_path), SIGNATURE)
    key = world.home.keys / "bundle.pub.pem"
    manifest = bundle.verify(folder, public_key=key, digest=digest)
    with (folder / "pipeline.py").open("a") as code:
        code.write("# changed")

    with pytest.raises(IntegrityError, match="not what was signed"):
        bundle.verify(folder, public_key=key, digest=digest)
    with pytest.raises(IntegrityError, match="changed since"):
        predictors.load(folder, manifest)


@pytest.mark.torch
def test_a_program_of_torch_export_is_served(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(network, (torch.zeros(2, 3),), dynamic_shapes=({0: rows},))
    torch.export.save(program, tmp_path / "model.pt2")
    signature = ModelSignature(
        predictor="torch-export",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
    )
    content = {"model.pt2": (tmp_path / "model.pt2").read_bytes()}
    one = LimitedPredictor("torch-export", content, signature, memory=4 << 30)
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)

    found = one.predict({"x": x}, NO_FEATURES).outputs["y"]

    assert np.allclose(found, network(torch.from_numpy(x)).detach().numpy(), atol=1e-6)
    one.close()


def test_the_clock_of_a_request_is_its_own(home: Path) -> None:
    """A function that sleeps less than its time answers, one that sleeps longer does not."""
    code = """
import time
from bedplate import pipeline
@pipeline.predictor
def answer(inputs):
    time.sleep(float(inputs["x"][0]))
    return {"y": inputs["x"], "said": [""]}
"""
    one = LimitedPredictor("python", files(home, code), SIGNATURE, seconds=3.0)
    assert ask(one, x=[0.01])["y"].tolist() == [0.01]
    with pytest.raises(ModelError, match="longer"):
        ask(one, x=[60.0])
    one.close()
