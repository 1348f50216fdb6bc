"""Answers in pieces while a release is rolled out: from the candidate if it begins, from the stable release if not."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from bedplate.records import Prediction
from bedplate.serve import generation
from bedplate.serve.batching import OFF, Batcher
from bedplate.serve.candidate import Candidate, CandidateError, Line
from bedplate.serve.predictors import Answer, FeatureReader
from bedplate.serve.snapshot import Route
from bedplate.serve.sockets import listen_local
from bedplate.serve.supervisor import Supervisor
from bedplate.serve.tensors import Arrays
from bedplate.stats.canary import Tally
from tests.serve.support import KEY, LINEAR, World, client, eventually
from tests.serve.test_streaming import ALPHABET, LETTERS, events, record, writer

pytestmark = pytest.mark.slow

STREAM = "/v2/models/writer/generate_stream"
OTHER = writer(LETTERS, {0: 2, 2: 4, 3: 1, 1: 1}, known=4)
"""a c é, and then it knows no more; d b b b ..., and nothing of é."""


class Rolling:
    """A stable release that says the alphabet, and a candidate that says something else and breaks off at é."""

    def __init__(self, root: Path) -> None:
        self.world = World(root)
        self.supervisor = Supervisor(self.world.home)
        stable = self.world.bundle(ALPHABET, generation.SIGNATURE)
        made = self.world.bundle(OTHER, generation.SIGNATURE, version=2)
        self.candidate = self.world.spec(made, name="writer@2", socket=self.world.home.run / "candidate.sock")
        self.tallies = self.world.home.run / "rollouts" / "r"
        self.tallies.mkdir(parents=True)
        self.step = 0
        self.url = self.supervisor.start(self.world.spec(stable, name="writer", mode="durable"))
        self.supervisor.start(self.candidate)

    def share(self, share: float, mode: Any = "split") -> None:
        """Put a new step into force, and wait until the replica follows it."""
        self.step += 1
        route = Route(
            rollout="r", step=self.step, mode=mode, share=share, salt="salt", bundle=self.candidate.digest, version="2",
            evidence=self.candidate.evidence, socket=self.candidate.socket, tallies=self.tallies, patience=30.0,
        )  # type: ignore[arg-type]  # fmt: skip
        self.world.publish(routes={"writer": route})
        eventually(lambda: list(self.tallies.glob(f"{self.step}-*.json")))

    def tally(self) -> Tally:
        (path,) = self.tallies.glob(f"{self.step}-*.json")
        return msgspec.json.decode(path.read_bytes(), type=Tally)

    def logged(self, answer: httpx.Response) -> Prediction:
        return msgspec.convert(record(self.world, answer.headers["x-prediction-id"]), Prediction)


@pytest.fixture(scope="module")
def rolling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rolling]:
    made = Rolling(tmp_path_factory.mktemp("home"))
    with made.supervisor:
        yield made


@pytest.fixture
def http(rolling: Rolling) -> Iterator[httpx.Client]:
    with client(rolling.url) as http:
        yield http


def said(answer: httpx.Response) -> str:
    return "".join(data["text"] for kind, data in events(answer) if kind == "message")


def test_a_stream_comes_from_the_candidate_and_its_record_says_so(rolling: Rolling, http: httpx.Client) -> None:
    rolling.share(1.0)
    answer = http.post(STREAM, json={"text": "d", "max_tokens": 3})
    typed = http.post("/predict", json={"text": "d", "max_tokens": 2}, headers={"accept": "text/event-stream"})
    whole = http.post("/v2/models/writer/generate", json={"text": "d", "max_tokens": 3}).json()

    assert [data for _, data in events(answer)] == [{"model_name": "writer", "model_version": "2", "text": "b"}] * 3
    assert (said(typed), whole["text"], whole["model_version"]) == ("bb", "bbb", "2")
    logged = rolling.logged(answer)
    assert (logged.bundle, logged.ended, logged.outputs) == (rolling.candidate.digest, "", {"text": ["b"] * 3})
    assert logged.exposure is not None
    assert (logged.exposure.assigned, logged.exposure.step) == ("candidate", rolling.step)
    eventually(lambda: rolling.tally().candidate.requests == 3)
    assert (rolling.tally().candidate.errors, rolling.tally().candidate.seconds > 0) == (0, True)


def test_what_fails_before_the_first_piece_is_answered_by_the_stable_release(
    rolling: Rolling, http: httpx.Client
) -> None:
    rolling.share(1.0)
    answer = http.post(STREAM, json={"text": "é", "max_tokens": 5})  # the candidate knows nothing of é
    refused = http.post(STREAM, json={"text": "", "max_tokens": 5})

    assert (answer.status_code, said(answer)) == (200, "")  # behind é the stable release has nothing to say
    answer = http.post(STREAM, json={"text": "aé", "max_tokens": 5})
    assert (answer.status_code, events(answer)) == (200, [])
    assert refused.status_code == 400  # both refuse it: the request is at fault
    eventually(lambda: rolling.tally().candidate.requests == 3)
    tally = rolling.tally()
    assert (tally.candidate.errors, sum(tally.reasons.values())) == (2, 2)


def test_what_was_begun_and_breaks_off_is_an_event_and_an_error_of_the_candidate(
    rolling: Rolling, http: httpx.Client
) -> None:
    rolling.share(1.0)
    answer = http.post(STREAM, json={"text": "a", "max_tokens": 9})

    assert said(answer) == "cé"
    kind, data = events(answer)[-1]
    assert (kind, set(data)) == ("error", {"error"})
    logged = rolling.logged(answer)
    assert (logged.bundle, logged.outputs) == (rolling.candidate.digest, {"text": ["c", "é"]})
    assert logged.ended in data["error"]
    eventually(lambda: rolling.tally().candidate.errors == 1)


def test_who_is_not_assigned_to_the_candidate_gets_the_stable_stream(rolling: Rolling, http: httpx.Client) -> None:
    rolling.share(1e-12)
    answer = http.post(STREAM, json={"text": "a", "max_tokens": 9})

    assert said(answer) == "bcdé"
    logged = rolling.logged(answer)
    assert logged.exposure is not None
    assert (logged.exposure.assigned, logged.bundle == rolling.candidate.digest) == ("stable", False)
    eventually(lambda: rolling.tally().stable.requests == 1)
    rolling.share(1.0, mode="shadow")
    assert said(http.post(STREAM, json={"text": "a", "max_tokens": 9})) == "bcdé"
    eventually(lambda: rolling.tally().stable.requests == 1)


def test_a_shadow_is_asked_for_the_whole_stream_once_the_caller_has_it(rolling: Rolling, http: httpx.Client) -> None:
    rolling.share(1.0, mode="shadow")
    answer = http.post(STREAM, json={"text": "b", "max_tokens": 2})  # the candidate says bb
    eventually(lambda: rolling.tally().rows.compared == 2)
    one = rolling.tally()
    longer = http.post(STREAM, json={"text": "d", "max_tokens": 3})  # it says bbb, which is more
    eventually(lambda: rolling.tally().rows.compared == 4)
    other = http.post(STREAM, json={"text": "a", "max_tokens": 9})  # it says c and é, and breaks off
    eventually(lambda: rolling.tally().candidate.errors == 1)
    tally = rolling.tally()

    assert (said(answer), said(longer), said(other)) == ("cd", "é", "bcdé")
    assert (one.rows.different, one.candidate.requests, one.candidate.errors) == (2, 1, 0)
    assert (tally.rows.compared, tally.rows.different, tally.candidate.requests) == (4, 4, 3)
    assert (tally.stable.requests, tally.stable.errors, rolling.logged(other).ended) == (3, 0, "")


def test_a_stream_goes_on_when_the_rollout_ends(rolling: Rolling) -> None:
    rolling.share(1.0)
    headers, body = {"authorization": f"Bearer {KEY}"}, {"text": "d", "max_tokens": 1_000_000}
    with httpx.stream("POST", f"{rolling.url}{STREAM}", json=body, headers=headers, timeout=60) as answer:
        lines = answer.iter_lines()
        began = next(lines)
        rolling.world.publish()
        with client(rolling.url) as other:
            ask = {"text": "a", "max_tokens": 1}
            eventually(lambda: other.post("/v2/models/writer/generate", json=ask).json()["model_version"] == "1")
        for _ in range(1000):
            line = next(lines)
    assert json.loads(began.removeprefix("data: "))["model_version"] == "2"
    assert line in ("", began)


def test_a_candidate_that_is_killed_costs_no_stream_that_had_not_begun(rolling: Rolling, http: httpx.Client) -> None:
    rolling.share(1.0)
    (pid,) = next(status.pids for status in rolling.supervisor.status() if status.name == "writer@2")
    os.kill(pid, signal.SIGKILL)
    answer = http.post(STREAM, json={"text": "a", "max_tokens": 9})
    assert said(answer) in ("bcdé", "cé")
    assert events(answer)[-1][0] == ("message" if said(answer) == "bcdé" else "error")
    eventually(
        lambda: http.post("/v2/models/writer/generate", json={"text": "d", "max_tokens": 1}).json()["text"] == "b"
    )


class Counts:
    """Counts on, and remembers how far it came and that it was closed."""

    def __init__(self) -> None:
        self.made, self.closed = 0, False

    def predict(self, inputs: Arrays, features: FeatureReader) -> Answer:
        return Answer(outputs={"Y": inputs["X"]})

    def stream(self, inputs: Arrays, features: FeatureReader) -> Iterator[Answer]:
        try:
            while True:
                self.made += 1
                yield Answer(outputs={"Y": np.full((1, 3), self.made, np.float32)})
        finally:
            self.closed = True


def test_a_piece_is_made_when_it_is_asked_for_and_who_leaves_ends_the_work(tmp_path: Path) -> None:
    """On the line between the two: a slow client slows the candidate down, too; several at a time; and one too many."""

    async def main() -> None:
        model = Counts()
        batcher = Batcher(model, {}, OFF)  # type: ignore[arg-type]
        candidate = Candidate(batcher)
        with listen_local(tmp_path / "c.sock") as listener:
            server = await asyncio.start_unix_server(candidate.talk, sock=listener)
            line = Line(tmp_path / "c.sock", LINEAR)
            rows = {"X": np.zeros((1, 3), np.float32)}
            pieces = line.stream(rows, 5.0, 60.0)
            got = [float((await anext(pieces))[0].outputs["Y"][0, 0]) for _ in range(3)]
            whole, _ = await line.ask(rows, 5.0)
            await asyncio.sleep(0.1)
            assert (got, model.made, whole.outputs["Y"].tolist()) == ([1.0, 2.0, 3.0], 3, [[0.0] * 3])
            assert candidate.busy
            await pieces.aclose()
            while not model.closed or candidate.busy:
                await asyncio.sleep(0.01)

            many = [line.stream(rows, 5.0, 60.0) for _ in range(64)]
            await asyncio.gather(*(anext(one) for one in many))
            with pytest.raises(CandidateError, match="too much waits"):
                await anext(line.stream(rows, 5.0, 60.0))
            line.close()  # after the last stream
            assert (await anext(many[0]))[0].outputs["Y"][0, 0] > 3
            for one in many:
                await one.aclose()
            server.close()
            await candidate.close()
            while candidate._talks:  # each hears that its line was hung up
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)  # and the loop closes its transport behind it
        batcher.close()

    asyncio.run(main())
