"""Requests that are computed together get what they would get alone, and a lone one waits for nobody."""

import asyncio
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import BedplateError, DeadlineError, InputError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve import batching
from bedplate.serve.batching import Batcher, Plan
from bedplate.serve.predictors import Answer
from bedplate.serve.supervisor import Supervisor
from bedplate.serve.tensors import ModelError
from tests.laws import examples
from tests.serve.support import LINEAR, Watch, World, body, client, network

ANY: Any = None  # these predictors read no features
ON = Plan(rows=6, reason="for the test")


def signature(*inputs: tuple[int, ...], output: tuple[int, ...] = (-1, -1)) -> ModelSignature:
    return ModelSignature(
        predictor="onnx",
        inputs=tuple(TensorSpec(name=f"x{i}", datatype="FP64", shape=shape) for i, shape in enumerate(inputs)),
        outputs=(TensorSpec(name="y", datatype="FP64", shape=output),),
    )


class Rows:
    """Each row to its square; it refuses a batch with a negative number in it, and breaks on a zero."""

    signature = signature((-1, -1))

    def __init__(self, seconds: float = 0.0, a_row: float = 0.0) -> None:
        self.seconds, self.a_row = seconds, a_row
        self.sizes: list[int] = []
        self.threads: set[int] = set()

    def predict(self, inputs: dict[str, Any], features: Any) -> Answer:
        x = inputs["x0"]
        self.sizes.append(len(x))
        self.threads.add(threading.get_ident())
        if self.seconds:
            time.sleep(self.seconds + self.a_row * len(x))
        if (x < 0).any():
            raise InputError(f"{x.min()} is negative")
        if (x == 0).any():
            raise StopIteration
        return Answer(outputs={"y": x**2})


def alone(inputs: dict[str, Any]) -> Any:
    try:
        return Rows().predict(inputs, ANY).outputs["y"].tolist()
    except InputError as error:
        return error.message
    except StopIteration:
        return "the model failed: StopIteration"


requests = st.lists(
    st.tuples(
        st.integers(0, 3),  # turns of the loop before it comes
        st.integers(0, 9),  # rows, also more than a batch holds
        st.integers(1, 2),  # columns
        st.sampled_from([1.0, 1.0, 1.0, 1.0, -1.0, 0.0]),
        st.booleans(),  # whether its client goes away
    ),
    max_size=24,
)


@given(requests, st.integers(2, 8))
def test_any_interleaving_answers_each_request_as_if_it_were_alone(asked: Any, rows: int) -> None:
    predictor = Rows()

    async def ask(batcher: Batcher, number: int, turns: int, count: int, columns: int, sign: float) -> Any:
        for _ in range(turns):
            await asyncio.sleep(0)
        inputs = {"x0": sign * np.arange(1.0, count * columns + 1).reshape(count, columns) * (number + 1)}
        try:
            found: Any = (await batcher.predict(inputs)).outputs["y"].tolist()
        except BedplateError as error:
            found = error.message
        assert found == alone(inputs)
        return found

    async def run() -> None:
        batcher = Batcher(predictor, ANY, Plan(rows=rows, reason="for the test"))
        tasks = [asyncio.create_task(ask(batcher, i, *one[:4])) for i, one in enumerate(asked)]
        for task, one in zip(tasks, asked, strict=True):
            await asyncio.sleep(0)
            if one[4]:
                task.cancel()
        for found, one in zip(await asyncio.gather(*tasks, return_exceptions=True), asked, strict=True):
            assert not isinstance(found, BaseException) or (one[4] and isinstance(found, asyncio.CancelledError)), found
        batcher.close()

    asyncio.run(run())
    assert max(predictor.sizes, default=0) <= max([rows, *(one[1] for one in asked)])
    assert len(predictor.threads) <= 1


def test_what_waits_while_the_model_computes_is_the_next_batch() -> None:
    predictor = Rows(seconds=0.02)

    async def run() -> None:
        batcher = Batcher(predictor, ANY, ON)
        first = asyncio.create_task(batcher.predict({"x0": np.ones((1, 2))}))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, *(batcher.predict({"x0": np.ones((1, 2))}) for _ in range(8)))
        batcher.close()

    asyncio.run(run())
    assert predictor.sizes == [1, 6, 2]
    assert predictor.threads != {threading.get_ident()}


def test_without_a_plan_the_model_is_asked_in_the_loop() -> None:
    predictor = Rows()

    async def run() -> None:
        batcher = Batcher(predictor, ANY, batching.OFF)
        await asyncio.gather(*(batcher.predict({"x0": np.ones((1, 2))}) for _ in range(3)))
        with pytest.raises(ModelError, match="StopIteration"):
            await batcher.predict({"x0": np.zeros((1, 2))})
        batcher.close()

    asyncio.run(run())
    assert predictor.sizes == [1, 1, 1, 1]
    assert predictor.threads == {threading.get_ident()}


@given(requests, st.integers(1, 8))
@examples(40)
def test_in_one_turn_of_the_loop_everybody_gets_what_they_would_get_alone(asked: list[Any], rows: int) -> None:
    """Whoever asks with whom, of a model that computes in the loop: one answer each, in the turn they asked in."""
    predictor = Rows()
    found: dict[int, Any] = {}

    async def run() -> None:
        batcher = Batcher(predictor, ANY, Plan(rows=rows, reason="for the test", thread=False))
        assert not batcher.queues
        for number, (turns, count, columns, sign, _) in enumerate(asked):
            for _ in range(turns):
                await asyncio.sleep(0)
            inputs = {"x0": sign * np.arange(1.0, count * columns + 1).reshape(count, columns) * (number + 1)}

            def settle(answer: Answer | BedplateError, number: int = number, inputs: Any = inputs) -> None:
                assert number not in found
                found[number] = answer.message if isinstance(answer, BedplateError) else answer.outputs["y"].tolist()
                assert found[number] == alone(inputs)

            batcher.soon(inputs, math.inf, number % 3, settle)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        batcher.close()

    asyncio.run(run())
    assert len(found) == len(asked)
    assert max(predictor.sizes, default=0) <= max([rows, *(one[1] for one in asked)])
    assert predictor.threads <= {threading.get_ident()}


def test_those_of_several_callers_in_one_turn_are_one_batch_and_a_lone_caller_never_waits() -> None:
    predictor, answered = Rows(), list[Any]()
    inputs = {"x0": np.ones((1, 2))}

    async def run() -> None:
        batcher = Batcher(predictor, ANY, Plan(rows=8, reason="for the test", thread=False))
        for _ in range(3):  # however rarely they met before: after a stall all are here at once
            batcher.soon(inputs, math.inf, "one", answered.append)
            await asyncio.sleep(0)
            for _ in range(4):
                batcher.soon(inputs, math.inf, "one", answered.append)
            assert (predictor.sizes, len(answered)) == ([1] * 5, 5)
            for caller in range(5):
                batcher.soon(inputs, math.inf, caller, answered.append)
            assert len(answered) == 5
            await asyncio.sleep(0)
            assert (predictor.sizes[5:], len(answered)) == ([5], 10)
            predictor.sizes.clear()
            answered.clear()
        batcher.soon(inputs, 0.0, "late", answered.append)
        assert isinstance(answered[-1], DeadlineError)

    asyncio.run(run())


@pytest.mark.parametrize(("seconds", "computed_first"), [(0.0, 3), (batching._LONE_SECONDS, 1)])
def test_a_turn_is_computed_and_then_answered_together_unless_its_model_is_slow(
    seconds: float, computed_first: int
) -> None:
    predictor, events = Rows(seconds), list[str]()

    class Together:
        def __enter__(self) -> None:
            events.append(f"computed {len(predictor.sizes)}")

        def __exit__(self, *error: object) -> None:
            events.append("sent")

    async def run() -> None:
        batcher = Batcher(predictor, ANY, Plan(rows=2, reason="for the test", thread=False))
        batcher.together = Together()
        for caller in range(3):  # each as many rows as a batch may have
            batcher.soon({"x0": np.ones((2, 1))}, math.inf, caller, lambda answer: events.append("answered"))
        await asyncio.sleep(0)

    asyncio.run(run())
    if computed_first == 3:
        assert events == ["computed 3", *["answered"] * 3, "sent"]
    else:
        assert events == [event for count in (1, 2, 3) for event in (f"computed {count}", "answered", "sent")]


class Centred:
    """What it says of a row depends on the others."""

    signature = signature((-1, 2), output=(-1, 2))

    def predict(self, inputs: dict[str, Any], features: Any) -> Answer:
        return Answer(outputs={"y": inputs["x0"] - inputs["x0"].mean()})


class Personal:
    """It tells whom an answer is about, which is one for all rows."""

    signature = signature((-1, 2), output=(-1, 2))

    def predict(self, inputs: dict[str, Any], features: Any) -> Answer:
        return Answer(outputs={"y": inputs["x0"]}, entity="7")


class Refusing(Rows):
    def predict(self, inputs: dict[str, Any], features: Any) -> Answer:
        raise InputError("never")


WATCH = Watch()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep goes by a clock that goes on as the models say; to hand something to a thread takes 50 µs on it."""
    monkeypatch.setattr(batching, "perf_counter", WATCH)
    monkeypatch.setattr(batching, "_handover", lambda: 0.00005)


class Doubles(Rows):
    """It takes every number, and the same time for one row as for many."""

    def predict(self, inputs: dict[str, Any], features: Any) -> Answer:
        WATCH.now += self.takes(len(inputs["x0"]))
        return Answer(outputs={"y": 2 * inputs["x0"]})

    def takes(self, rows: int) -> float:
        return self.seconds + self.a_row * rows


class Steep(Doubles):
    """The more rows, the longer each of them."""

    def takes(self, rows: int) -> float:
        return 0.005 * rows**2


class Quick(Doubles):
    """As long for many rows as for one, and less than it takes to hand it to a thread ten times."""

    def takes(self, rows: int) -> float:
        return 0.00005


@pytest.mark.parametrize(
    ("predictor", "reason"),
    [
        (Centred(), "depends on the other rows"),
        (Personal(), "depends"),
        (Refusing(), "never"),
        (Steep(), "pay"),
    ],
)
@pytest.mark.usefixtures("watched")
def test_the_sweep_leaves_batching_off(predictor: Any, reason: str) -> None:
    plan = batching.sweep(predictor, ANY, predictor.signature, 1.0)

    assert plan.rows == 1
    assert reason in plan.reason


@pytest.mark.parametrize(
    "shapes", [signature((2, 2)), signature((-1, 2), (3,)), signature((-1, 2), output=(1,)), signature()]
)
def test_a_fixed_first_dimension_is_not_joined(shapes: ModelSignature) -> None:
    assert batching.sweep(Doubles(), ANY, shapes, 1.0).rows == 1


@pytest.mark.usefixtures("watched")
def test_the_sweep_takes_what_pays_and_no_more_than_the_budget_allows() -> None:
    free = batching.sweep(Doubles(0.004, 0.00001), ANY, signature((-1, 2)), None)
    held = batching.sweep(Doubles(0.004, 0.001), ANY, signature((-1, 2)), 0.04)
    steep = batching.sweep(Steep(), ANY, signature((-1, 2)), None)
    quick = batching.sweep(Quick(), ANY, signature((-1, 2)), None)

    assert free.rows >= 4
    assert free.seconds[1] > 0.004
    assert 2 <= held.rows <= 4  # 4 rows take 8 ms, 8 would take 12: more than a quarter of 40
    assert steep.rows == 1
    assert quick.rows > 1
    assert free.thread
    assert not quick.thread


@pytest.mark.usefixtures("watched")
def test_a_model_that_takes_the_whole_time_of_the_sweep_is_still_measured() -> None:
    slow = Doubles(2 * batching._SWEEP_SECONDS, 0.0)

    plan = batching.sweep(slow, ANY, slow.signature, None)

    assert plan.rows == 1
    assert list(plan.seconds) == [1]


def test_a_replica_joins_what_comes_together_and_answers_each_its_own(tmp_path: Path) -> None:
    world = World(tmp_path / "home")
    asked = [(number, 2.0 * number, -1.0, 1.0, 1.0, number) for number in range(32)]
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(world.bundle(network(4096), LINEAR)))
        with client(url) as http, ThreadPoolExecutor(16) as pool:

            def ask(values: Any) -> Any:
                answer = http.post("/v2/models/linear/infer", json=body(values))
                assert answer.status_code == 200, answer.text
                return answer.json()["outputs"][0]["data"]

            one_by_one = [ask(values) for values in asked]
            together = list(pool.map(ask, asked * 4))
    np.testing.assert_allclose(together, one_by_one * 4, rtol=1e-4, atol=1e-5)
    (log,) = world.home.logs.glob("replica-*.log")
    assert "rows together save" in log.read_text()


class Where(Rows):
    """Notes in which thread it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def predict(self, inputs: dict[str, Any], features: Any) -> Answer:
        self.names.append(threading.current_thread().name.split("_")[0])
        return super().predict(inputs, features)


def test_a_caller_that_is_alone_has_no_thread_between_until_another_one_comes() -> None:
    predictor = Where()

    async def asked(batcher: Batcher, caller: str) -> None:
        inputs = {"x0": np.ones((1, 2))}
        if not batcher.lone(caller):
            await batcher.predict(inputs)
            return
        answers: list[Any] = []
        batcher.soon(inputs, math.inf, caller, answers.append)
        assert isinstance(answers[0], Answer)

    async def run(seconds: float) -> list[str]:
        predictor.names.clear()
        batcher = Batcher(predictor, ANY, Plan(rows=8, reason="for the test", seconds={1: seconds}))
        for _ in range(20):
            await asked(batcher, "one")
        alone = predictor.names[-3:]
        await asked(batcher, "another")
        await asked(batcher, "one")
        two = predictor.names[-2:]
        for _ in range(20):
            await asyncio.gather(*(asked(batcher, "one") for _ in range(3)))
        together = predictor.names[-1]
        batcher.close()
        return [*alone, *two, together]

    assert asyncio.run(run(0.002)) == ["MainThread"] * 3 + ["model"] * 3
    assert asyncio.run(run(0.5)) == ["model"] * 6  # who comes meanwhile would wait for too long
