"""A candidate computes together what comes together, as the stable release beside it does."""

import asyncio
import threading
from pathlib import Path

import numpy as np

from bedplate.serve.batching import Batcher, Plan
from bedplate.serve.candidate import Candidate, CandidateError, Line
from bedplate.serve.predictors import Answer, FeatureReader
from bedplate.serve.sockets import listen_local
from bedplate.serve.tensors import Arrays
from tests.serve.support import LINEAR


class Doubles:
    """Doubles its rows, when it is let, and remembers how many came at a time."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.go = threading.Event()

    def predict(self, inputs: Arrays, features: FeatureReader) -> Answer:
        self.rows.append(len(inputs["X"]))
        self.go.wait(10)
        return Answer(outputs={"Y": 2 * inputs["X"]})


def test_what_is_asked_together_is_computed_together_and_late_questions_are_not_computed(tmp_path: Path) -> None:
    async def main() -> None:
        model = Doubles()
        batcher = Batcher(model, {}, Plan(rows=8, reason="a test"))  # type: ignore[arg-type]
        with listen_local(tmp_path / "c.sock") as listener:
            server = await asyncio.start_unix_server(Candidate(batcher).talk, sock=listener)
            line = Line(tmp_path / "c.sock", LINEAR)
            rows = [np.full((1, 3), value, np.float32) for value in range(9)]
            first = asyncio.create_task(line.ask({"X": rows[0]}, 5.0))
            while not model.rows:
                await asyncio.sleep(0.01)
            late = asyncio.create_task(line.ask({"X": rows[8]}, 0.1))
            others = [asyncio.create_task(line.ask({"X": row}, 5.0)) for row in rows[1:8]]
            assert await asyncio.gather(late, return_exceptions=True) == [late.exception()]
            assert isinstance(late.exception(), CandidateError)
            await asyncio.sleep(0.1)
            model.go.set()
            for value, (answer, seconds) in enumerate(await asyncio.gather(first, *others)):
                assert answer.outputs["Y"].tolist() == [[2.0 * value] * 3]
                assert seconds > 0.1  # the wait for the batch before counts, as it does for the stable release
            assert model.rows == [1, 7]
            line.close()
            server.close()
        batcher.close()

    asyncio.run(main())
