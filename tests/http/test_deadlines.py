"""Deadlines that are looked at a few times a second: kept, told apart from other cancellations, and gone afterwards."""

import asyncio
import time

import pytest

from bedplate.http.deadlines import EVERY, Deadline


def test_what_takes_too_long_ends_in_a_timeout() -> None:
    async def late() -> float:
        started = time.monotonic()
        with pytest.raises(TimeoutError), Deadline(0.05):
            await asyncio.sleep(30)
        return time.monotonic() - started

    assert 0.05 <= asyncio.run(late()) < 30


def test_what_is_in_time_is_left_alone() -> None:
    async def work() -> str:
        with Deadline(0.5):
            await asyncio.sleep(0)
        await asyncio.sleep(0.5 + 2 * EVERY)  # its time passes after the block
        with Deadline(5):
            return "done"

    assert asyncio.run(work()) == "done"


def test_a_deadline_of_one_task_is_not_that_of_another() -> None:
    async def many() -> list[object]:
        async def one(seconds: float) -> float:
            with Deadline(seconds):
                await asyncio.sleep(0.3)
            return seconds

        return await asyncio.gather(*(one(seconds) for seconds in (0.05, 10.0, 0.05, 20.0)), return_exceptions=True)

    found = asyncio.run(many())
    assert [type(each) for each in found] == [TimeoutError, float, TimeoutError, float]


def test_a_cancellation_by_somebody_else_stays_one() -> None:
    async def cancelled() -> None:
        async def work() -> None:
            with Deadline(20):
                await asyncio.sleep(30)

        task = asyncio.create_task(work())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())


def test_an_error_in_the_block_is_that_error() -> None:
    async def fails() -> None:
        with Deadline(20):
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        asyncio.run(fails())


@pytest.mark.parametrize(
    ("outer", "inner", "missed"), [(0.05, 20, "outer"), (20, 0.05, "inner"), (0.05, 0.05, "outer")]
)
def test_of_one_within_another_the_one_that_is_missed_ends(outer: float, inner: float, missed: str) -> None:
    async def work() -> str:
        try:
            with Deadline(outer):
                try:
                    with Deadline(inner):
                        await asyncio.sleep(30)
                except TimeoutError:
                    await asyncio.sleep(0)
                    return "inner"
        except TimeoutError:
            await asyncio.sleep(0)
            return "outer"
        return "none"

    assert asyncio.run(work()) == missed
