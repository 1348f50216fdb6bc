"""Fairness between principals in one event loop: nobody waits for all that another one asks at once."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.serve import turns
from bedplate.serve.turns import Turns


@pytest.fixture(scope="module", autouse=True)
def at_once():
    """No turn is young, but for the first request of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "_LONGEST", -1.0)
        yield


@given(st.lists(st.sampled_from("abc"), max_size=40), st.lists(st.sampled_from("abcd"), max_size=10))
def test_whoever_waits_has_a_turn_after_one_of_each_other(first: list[str], later: list[str]) -> None:
    answered: list[tuple[str, int]] = []
    order = [*enumerate(first), *enumerate(later, len(first))]

    async def run() -> None:
        fair = Turns()
        for number, who in enumerate(first):
            fair.take(who, 0.0, lambda who=who, number=number: answered.append((who, number)))  # type: ignore[misc]
        await asyncio.sleep(0)
        for number, who in enumerate(later, len(first)):
            fair.take(who, 0.0, lambda who=who, number=number: answered.append((who, number)))  # type: ignore[misc]
        for _ in range(len(order) + 1):
            await asyncio.sleep(0)

    asyncio.run(run())

    assert sorted(answered, key=lambda one: one[1]) == [(who, number) for number, who in order]
    for name in "abcd":
        mine = [number for who, number in answered if who == name]
        assert mine == sorted(mine)
    if not later:  # all wait from the start: nobody is ahead of whoever still waits by more than one
        left = Counter(first)
        had: Counter[str] = Counter()
        for who, _ in answered:
            left[who] -= 1
            had[who] += 1
            assert all(had[who] <= had[other] + 1 for other in left if left[other])


def test_a_burst_lets_others_in_between() -> None:
    answered: list[str] = []

    async def run() -> None:
        fair = Turns()
        for number in range(100):
            fair.take("many", 0.0, lambda number=number: answered.append(f"many {number}"))  # type: ignore[misc]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        fair.take("one", 0.0, lambda: answered.append("one"))
        while len(answered) < 101:
            await asyncio.sleep(0)

    asyncio.run(run())

    assert answered.index("one") < 10


def test_nobody_is_kept_waiting_while_nobody_else_asks() -> None:
    answered: list[str] = []

    async def run() -> None:
        fair = Turns()
        fair.take("one", 10.0, lambda: answered.append("first"))
        await asyncio.sleep(0)
        for number in range(3):
            fair.take("one", 11.5, lambda number=number: answered.append(f"{number}"))  # type: ignore[misc]
        assert answered == ["first", "0", "1", "2"]
        fair.take("other", 11.5, lambda: answered.append("other"))
        assert answered[-1] == "2"
        await asyncio.sleep(0)
        assert answered[-1] == "other"

    asyncio.run(run())


def test_what_comes_while_nothing_waits_is_answered_before_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_LONGEST", 1e9)
    answered: list[int] = []
    fair = Turns()
    for number in range(5):  # without a loop
        fair.take("one", float(number), lambda number=number: answered.append(number))  # type: ignore[misc]
        assert answered[-1] == number
