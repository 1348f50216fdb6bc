"""Fairness between principals in one event loop: nobody waits for all that another one asks at once."""

import asyncio
import math
from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.http import turns
from bedplate.http.turns import Turns
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.batching import Batcher, Plan
from bedplate.serve.predictors import NO_FEATURES, Answer
from bedplate.serve.tensors import Arrays


class Took:
    """A clock by which each request takes a quarter of a turn, part of it at the end of its turn of the loop."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, share: float) -> None:
        self.now += share * turns._LONGEST


async def settle() -> None:
    """Let every turn come."""
    for _ in range(300):
        await asyncio.sleep(0)


@given(st.lists(st.sampled_from("abc"), max_size=40), st.lists(st.sampled_from("abcd"), max_size=10))
def test_whoever_waits_has_a_turn_after_one_of_each_other(first: list[str], later: list[str]) -> None:
    answered: list[tuple[str, int]] = []
    waiting: list[tuple[str, int]] = []
    order = [*enumerate(first), *enumerate(later, len(first))]
    took = Took()

    async def run() -> None:
        fair = Turns(took)

        def answer(who: str, number: int) -> None:
            answered.append((who, number))
            took.spend(0.25)

        for number, who in enumerate(first):
            fair.take(who, took(), partial(answer, who, number))
        waiting.extend((who, number) for number, who in enumerate(first) if (who, number) not in answered)
        await asyncio.sleep(0)
        for number, who in enumerate(later, len(first)):
            fair.take(who, took(), partial(answer, who, number))
        await settle()

    asyncio.run(run())

    assert sorted(answered, key=lambda one: one[1]) == [(who, number) for number, who in order]
    for name in "abcd":
        mine = [number for who, number in answered if who == name]
        assert mine == sorted(mine)
    if not later:  # all of these wait from the start: nobody is ahead of whoever still waits by more than one
        left = Counter(who for who, _ in waiting)
        had: Counter[str] = Counter()
        for who, _ in answered[len(answered) - len(waiting) :]:
            left[who] -= 1
            had[who] += 1
            assert all(had[who] <= had[other] + 1 for other in left if left[other])


def test_a_turn_of_a_burst_answers_what_it_has_time_for_and_then_others() -> None:
    """What is computed at the end of a turn counts as well, and who comes then waits for nobody's burst."""
    took, order = Took(), list[str]()

    async def run() -> None:
        fair, loop, pending = Turns(took), asyncio.get_running_loop(), list[str]()

        def end() -> None:
            took.spend(0.2 * len(pending))
            order.extend(pending)
            pending.clear()

        def answer(who: str) -> None:
            took.spend(0.05)
            if not pending:
                loop.call_soon(end)
            pending.append(who)

        for _ in range(100):
            fair.take("many", took(), partial(answer, "many"))
        await asyncio.sleep(0)
        while len(order) < 30:
            await asyncio.sleep(0)
        assert 3 <= fair.most <= 5
        before = len(order)
        fair.take("one", took(), partial(answer, "one"))
        fair.take("one", took(), partial(answer, "one"))
        await settle()
        first = order.index("one")
        assert first - before <= 2 * fair.most
        assert order.index("one", first + 1) - first <= 2 * fair.most
        assert (order.count("many"), order.count("one")) == (100, 2)

    asyncio.run(run())


def test_nobody_is_kept_waiting_while_nobody_else_asks() -> None:
    answered: list[str] = []

    async def run() -> None:
        fair = Turns(Took())
        fair.take("one", 10.0, lambda: answered.append("first"))
        await settle()
        for number in range(30):
            fair.take("one", 11.5, lambda number=number: answered.append(f"{number}"))  # type: ignore[misc]
        assert answered == ["first", *map(str, range(30))]
        for number in range(18):
            fair.take("other", 11.5, lambda number=number: answered.append(f"other {number}"))  # type: ignore[misc]
        assert answered[-1] == f"other {turns._MOST - 1}"
        await settle()
        assert answered[-1] == "other 17"

    asyncio.run(run())


class Slow:
    """A model that takes a moment, and tells whose row it computed."""

    signature = ModelSignature(
        predictor="onnx",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 1)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),),
    )

    def predict(self, inputs: Arrays, features: object) -> Answer:
        return Answer(outputs={"y": inputs["x"]})


GREEDY, MODEST = 200, 2


@pytest.mark.parametrize("thread", [True, False])
def test_a_modest_principal_is_answered_among_the_first_of_a_greedy_one(
    monkeypatch: pytest.MonkeyPatch, thread: bool
) -> None:
    """Whether a thread computes what waits, or the loop what came in one turn: it counts who was before whom."""
    monkeypatch.setattr(turns, "_LONGEST", 1e9)  # no clock: a turn ends by what was answered in it
    answered: list[str] = []
    one = np.zeros((1, 1), np.float32)

    async def run() -> None:
        batcher = Batcher(Slow(), NO_FEATURES, Plan(rows=8, reason="for the test", thread=thread))
        fair = Turns()

        async def ask(who: str) -> None:
            await batcher.predict({"x": one}, math.inf, who)
            answered.append(who)

        def soon(who: str) -> None:
            batcher.soon({"x": one}, math.inf, object(), lambda _: answered.append(who))

        everybody = ["greedy"] * GREEDY + ["modest"] * MODEST
        if thread:
            await asyncio.gather(*map(ask, everybody))
        else:
            for who in everybody:
                fair.take(who, 0.0, partial(soon, who))
            while len(answered) < len(everybody):
                await asyncio.sleep(0)
        batcher.close()

    asyncio.run(run())

    last = max(place for place, who in enumerate(answered) if who == "modest")
    assert last < 32
    assert answered.count("greedy") == GREEDY
