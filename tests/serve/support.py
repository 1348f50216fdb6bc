"""Tiny models, signed bundles, keys and endpoints for the tests of serving: real files, real processes."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bedplate import bundle, journal
from bedplate.bundle import Manifest
from bedplate.ids import Digest, digest_bytes
from bedplate.journal import predictions
from bedplate.policy.values import Principal
from bedplate.records import Governance, ModelSignature, TensorSpec
from bedplate.serve import snapshot
from bedplate.serve.snapshot import Quotas, Route
from bedplate.serve.spec import ReplicaSpec
from bedplate.settings import Home

KEY, STRANGER = "bp_caller_0123456789abcdef", "bp_stranger_0123456789abcdef"
EVIDENCE = digest_bytes(b"approval")
_PATIENCE = 100.0
"""Seconds: less than a test may take."""


def linear(weight: float = 1.0, *, operator: str = "Mul") -> bytes:
    """An ONNX model: X (FP32 [n, 3]) to Y = X * weight (``Div``: X / weight)."""
    graph = helper.make_graph(
        [helper.make_node(operator, ["X", "w"], ["Y"])],
        "linear",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor("w", TensorProto.FLOAT, [1], [weight])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def network(hidden: int = 2560) -> bytes:
    """An ONNX model with real arithmetic: X (FP32 [n, 3]) through two hidden layers to Y (FP32 [n, 3])."""
    random = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(random.normal(size=shape, scale=shape[0] ** -0.5).astype(np.float32), f"w{i}")
        for i, shape in enumerate(((3, hidden), (hidden, hidden), (hidden, 3)))
    ]
    names = ("X", "a", "b", "Y")
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(3)],
        "network",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, 3])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    text: bytes = model.SerializeToString()
    return text


def all_types() -> tuple[bytes, ModelSignature]:
    """An ONNX model that gives back one input of every type that NumPy has."""
    kinds = {
        "BOOL": TensorProto.BOOL,
        "UINT8": TensorProto.UINT8,
        "UINT16": TensorProto.UINT16,
        "UINT32": TensorProto.UINT32,
        "UINT64": TensorProto.UINT64,
        "INT8": TensorProto.INT8,
        "INT16": TensorProto.INT16,
        "INT32": TensorProto.INT32,
        "INT64": TensorProto.INT64,
        "FP16": TensorProto.FLOAT16,
        "FP32": TensorProto.FLOAT,
        "FP64": TensorProto.DOUBLE,
        "BYTES": TensorProto.STRING,
    }
    return _identity(kinds)


def half_precision() -> tuple[bytes, ModelSignature]:
    """An ONNX model that gives back an input of BF16 and one of FP32."""
    return _identity({"BF16": TensorProto.BFLOAT16, "FP32": TensorProto.FLOAT})


def _identity(kinds: dict[str, int]) -> tuple[bytes, ModelSignature]:
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in kinds],
        "identity",
        [helper.make_tensor_value_info(f"in_{name}", kind, [2]) for name, kind in kinds.items()],
        [helper.make_tensor_value_info(f"out_{name}", kind, [2]) for name, kind in kinds.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    signature = ModelSignature(
        predictor="onnx",
        inputs=tuple(TensorSpec(name=f"in_{name}", datatype=name, shape=(2,)) for name in kinds),
        outputs=tuple(TensorSpec(name=f"out_{name}", datatype=name, shape=(2,)) for name in kinds),
    )
    return model.SerializeToString(), signature


LINEAR = ModelSignature(
    predictor="onnx",
    inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, 3)),),
    outputs=(TensorSpec(name="Y", datatype="FP32", shape=(-1, 3)),),
)


def body(values: Any = (1.0, 2.0, 3.0), **changes: Any) -> dict[str, Any]:
    """A V2 infer request for the linear model."""
    flat = np.asarray(values, dtype=object).ravel().tolist()
    tensor = {"name": "X", "shape": [len(flat) // 3, 3], "datatype": "FP32", "data": flat, **changes}
    return {"id": "r1", "inputs": [tensor]}


class Watch:
    """A clock that goes on when it is told to, and by nothing else."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A home with a signing key, an access snapshot, and bundles made on demand."""

    root: Path
    keys: dict[str, tuple[str, ...]] = field(default_factory=lambda: {KEY: ("callers",), STRANGER: ()})

    def __post_init__(self) -> None:
        self.home = Home(self.root)
        self.home.keys.mkdir(parents=True)
        bundle.make_key(self.home.keys / "bundle.pem", self.home.keys / "bundle.pub.pem")
        self._key = snapshot.make_key(self.home.keys / "access.pem", self.home.keys / "access.pub.pem")
        self.publish()

    @property
    def snapshot(self) -> Path:
        return self.home.run / "access.json"

    def publish(
        self,
        policies: tuple[str, ...] = (),
        expires: str | None = None,
        routes: dict[str, Route] | None = None,
        quotas: Quotas | None = None,
        governed: dict[str, Governance] | None = None,
    ) -> None:
        """Put the keys, and routes, quotas and governance if there are any, into force."""
        entries = {
            snapshot.name_of_token(token): snapshot.Key(
                principal=Principal(kind="Service", id=f"svc-{i}", name=f"svc-{i}", groups=groups), expires=expires
            )
            for i, (token, groups) in enumerate(self.keys.items())
        }
        counted = {"linear": quotas} if quotas else None
        made = snapshot.new(entries, policies, routes=routes, quotas=counted, governed=governed)
        snapshot.write(self.snapshot, made, self._key)

    def bundle(
        self,
        model: bytes | dict[str, bytes] | None = None,
        signature: ModelSignature = LINEAR,
        version: int = 1,
    ) -> tuple[Path, Digest]:
        """A signed bundle of one ONNX model, or of files by name, and its digest."""
        none = digest_bytes(b"")
        manifest = Manifest(
            tenant="local",
            name="linear",
            version=version,
            workload="tabular",
            signature=signature,
            data=(),
            code_digest=none,
            environment_digest=none,
            training=none,
            gates=none,
            created="2026-01-01T00:00:00.000000Z",
        )
        digest = bundle.write(
            self.home.bundles, model if isinstance(model, dict) else {"model.onnx": model or linear()}, manifest
        )
        folder = bundle.path_of(self.home.bundles, digest)
        bundle.sign(folder, self.home.keys / "bundle.pem", self.home.keys / "bundle.pub.pem")
        return folder, digest

    def spec(self, made: tuple[Path, Digest] | None = None, **changes: Any) -> ReplicaSpec:
        """A replica of the linear model, or of ``made``."""
        folder, digest = made or self.bundle()
        spec = ReplicaSpec(
            name="linear",
            use_case="demo",
            bundle=folder,
            digest=digest,
            evidence=EVIDENCE,
            public_key=self.home.keys / "bundle.pub.pem",
            snapshot=self.snapshot,
            snapshot_key=self.home.keys / "access.pub.pem",
            journal=self.home.journal,
            online=str(self.home.online),
            drain=3.0,
        )
        return msgspec.structs.replace(spec, **changes)


def log_of(world: World) -> list[dict[str, Any]]:
    """What stands in the prediction log, in no order, as the JSON of each record says it."""
    return [
        predictions.part(record, dict[str, Any])
        for segment in journal.segments(world.home.journal)
        for record in journal.read(segment)
    ]


def client(url: str, key: str | None = KEY) -> httpx.Client:
    """An HTTP client that sends ``key``."""
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"} if key else {}, timeout=60)


def eventually(condition: Any, what: str = "it did not happen") -> Any:
    """Wait until ``condition()`` is true: long, for a busy machine, as only what fails takes that long."""
    end, pause = time.monotonic() + _PATIENCE, 0.002
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause)
        pause = min(0.05, 1.3 * pause)
    raise AssertionError(what)
