"""A home that serves a tiny model, with releases that are as good, or bad in every way a release can be."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from onnx import TensorProto, helper

from bedplate import bundle as bundles
from bedplate import ids, settings
from bedplate.app import endpoints, rollout_steps, rollouts
from bedplate.app.serving_models import RolloutReport
from bedplate.app.system import System
from bedplate.bundle import Manifest
from bedplate.identity import Principal
from bedplate.ids import Digest, digest_bytes
from bedplate.records import Approval
from bedplate.release.rollout import RolloutPlan, Step
from bedplate.serve.spec import ReplicaSpec
from bedplate.usecase.starter import starter
from tests.serve.support import LINEAR, linear

NAME = "linear"
STEPS = "\nserve:\n  rollout: { steps: [50 %, 100 %], hold: 1 s, least: 5, shadow: 1 s, differ: 10 % }\n"
INFER = f"/v2/models/{NAME}/infer"


def graph(nodes: list[Any], constants: dict[str, list[float]]) -> bytes:
    """An ONNX model from X (FP32 [n, 3]) to Y of the same shape."""
    made = helper.make_graph(
        nodes,
        "release",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor(name, TensorProto.FLOAT, [len(values)], values) for name, values in constants.items()],
    )
    model: bytes = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return model


def not_a_number_above(bound: float) -> bytes:
    """Gives NaN for every value above ``bound``: the root of what is left up to it."""
    return graph([helper.make_node("Sub", ["c", "X"], ["d"]), helper.make_node("Sqrt", ["d"], ["Y"])], {"c": [bound]})


def hangs_above(bound: float) -> bytes:
    """Counts to a number without end as soon as a value is above ``bound``."""
    return counts(bound, 1e15)


def slow(turns: float) -> bytes:
    """Counts for as long as so many turns take, whatever it is asked (its values lie below 1)."""
    return counts(-1.0, turns)


def counts(bound: float, turns: float) -> bytes:
    """Gives back what it gets, after ``turns`` of a loop for each unit that the largest value is above ``bound``."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Identity", ["v"], ["w"])],
        "count",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [None, 3]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [None, 3]),
        ],
    )
    nodes = [
        helper.make_node("Sub", ["X", "c"], ["d"]),
        helper.make_node("Relu", ["d"], ["r"]),
        helper.make_node("ReduceMax", ["r"], ["m"], keepdims=0),
        helper.make_node("Mul", ["m", "turns"], ["f"]),
        helper.make_node("Squeeze", ["f"], ["s"]),
        helper.make_node("Cast", ["s"], ["n"], to=TensorProto.INT64),
        helper.make_node("Loop", ["n", "", "X"], ["Y"], body=body),
    ]
    return graph(nodes, {"c": [bound], "turns": [turns]})


class Served:
    """An owner that serves version 1, which gives back what it gets, and its watcher; or one that takes a home over."""

    def __init__(self, root: Path, grpc: int | None = None, patience: float = 5.0) -> None:
        """``patience``: seconds that a candidate has for an answer; few only where a machine is known to be quick."""
        self._grpc, self._patience = grpc, patience
        self.system = System(settings.load({"BEDPLATE_HOME": str(root), "BEDPLATE_PORT": "0"}))
        self.system.serving = True
        self.who: Principal = self.system.identity.authenticate(self.system.token)
        with self.system.store.read() as tx:
            known = tx.endpoints.list()
        if known:
            assert endpoints.restore(self.system) == []
        else:
            self._make(root)
        self.watcher = rollout_steps.Watcher(self.system)
        (self.url,) = [status.url for status in self.system.supervisor.status()]

    def _make(self, root: Path) -> None:
        stable, folder = self.release(linear()), root.with_name("use-case")
        starter(folder, NAME)
        file = folder / "usecase.yaml"
        file.write_text(file.read_text("utf-8").replace("\nserve:\n", STEPS), "utf-8")
        with self.system.store.transaction() as tx:
            tx.use_cases.put(
                NAME, folder=str(folder), file=file.name, file_digest=stable.digest, objective=stable.digest
            )
            tx.endpoints.put(NAME, use_case=NAME, bundle=stable.digest, spec=endpoints.as_row(stable))
        endpoints.start(self.system, stable)

    def release(self, model: bytes) -> ReplicaSpec:
        """A signed version of the model, as an endpoint would serve it."""
        system = self.system
        none = digest_bytes(b"")
        with system.store.transaction() as tx:
            fact = tx.facts.put(
                "approval", NAME, {"state": "approved", "model": digest_bytes(model), "id": ids.new_id("t")}
            )
            number = tx.versions.allot(NAME, fact.digest)
        manifest = Manifest(
            tenant="local", name=NAME, version=number, workload="tabular", signature=LINEAR, data=(),
            code_digest=none, environment_digest=none, training=none, gates=none,
            created="2026-01-01T00:00:00.000000Z",
        )  # fmt: skip
        digest = bundles.write(system.home.bundles, {"model.onnx": model}, manifest)
        folder = bundles.path_of(system.home.bundles, digest)
        bundles.sign(folder, system.opened.signing_key, system.opened.signing_public)
        where = system.settings.environment
        said = Approval(bundle=digest, environment=where, state="approved", by=(), reason="a test")
        with system.store.transaction() as tx:
            tx.versions.bind(NAME, number, digest)
            fact = tx.facts.put("approval", NAME, said, (fact.digest,))
        spec = ReplicaSpec(
            name=NAME, use_case=NAME, bundle=folder, digest=digest, evidence=fact.digest,
            public_key=system.opened.signing_public, snapshot=system.home.run / "access.json",
            snapshot_key=system.home.keys / "access.pub", journal=endpoints.journal_of(system, NAME),
            online=system.online_location, drain=3.0,
            grpc=self._grpc,
            batching=False,  # what is made up to measure batches would hang those that hang, before anybody asks
        )  # fmt: skip
        return endpoints.here(system, spec)

    def begin(self, spec: ReplicaSpec, *steps: Step, **changes: Any) -> RolloutReport:
        """Roll a release out, with short steps unless others are given."""
        plan = RolloutPlan(
            steps=steps or (Step("split", 0.1, 3.0), Step("split", 0.5, 2.0)),
            guards=("errors", "latency"),
            least=5,
            patience=self._patience,
            slack=0.05,
        )
        plan = msgspec.structs.replace(plan, **changes)
        return rollouts.begin(self.system, self.who, NAME, spec, plan)

    def state(self) -> RolloutReport:
        """The newest rollout now."""
        return rollouts.report(self.system, self.who, NAME)

    def served(self) -> Digest:
        """The bundle that should be served."""
        with self.system.store.read() as tx:
            return tx.endpoints.get(NAME).bundle

    def actions(self) -> list[tuple[str, str]]:
        """What the ledger says about rollouts, and who did it, oldest first."""
        with self.system.store.read() as tx:
            entries = [msgspec.json.decode(row.entry) for row in tx.ledger.recent(200, resource=f"use_case/{NAME}")]
        told = [(entry["action"], entry["actor"]) for entry in reversed(entries)]
        return [(action.removeprefix("rollout."), actor) for action, actor in told if action.startswith("rollout.")]

    def close(self) -> None:
        self.watcher.close()
        self.system.close()

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Load:
    """Asks at a steady rate on kept connections, one thread each, never twice, and remembers what failed."""

    def __init__(self, served: Served, rate: float = 100.0, threads: int = 4) -> None:
        self._url, self._key = served.url, served.system.token
        self._stop = threading.Event()
        self._pause = threads / rate
        self.answered = 0
        self.failed: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(threads)]

    def _ask(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        headers = {"authorization": f"Bearer {self._key}"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=60) as http:
            due = time.monotonic()
            while not self._stop.is_set():
                row = [float(rng.random()), 0.1, 0.2]
                body = {"inputs": [{"name": "X", "shape": [1, 3], "datatype": "FP32", "data": row}]}
                try:
                    http.post(INFER, json=body).raise_for_status()
                    with self._lock:
                        self.answered += 1
                except httpx.HTTPError as error:
                    with self._lock:
                        self.failed.append(repr(error))
                due = max(due + self._pause, time.monotonic() - 1)
                self._stop.wait(max(0.0, due - time.monotonic()))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def main(root: str) -> None:
    """Own a home, begin a rollout, freeze it, say so, and wait to be killed."""
    made = Served(Path(root))
    made.begin(made.release(linear(2.0)), Step("split", 0.3, 1.0), least=1)
    rollouts.freeze(made.system, made.who, NAME)
    print("frozen", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1])
