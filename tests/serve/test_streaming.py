"""Answers in pieces: a small model that writes texts on, asked by real clients that stay, read slowly, or leave."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bedplate.errors import InputError, IntegrityError
from bedplate.serve import generation
from bedplate.serve.generation import Config
from bedplate.serve.predictors import NO_FEATURES
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import KEY, World, client, eventually, log_of

pytestmark = pytest.mark.slow

LETTERS = ["a", "b", "c", "d", "é", "."]
STREAM = "/v2/models/writer/generate_stream"


def writer(words: list[str], follows: dict[int, int], known: int | None = None, **config: Any) -> dict[str, bytes]:
    """A model that knows which token follows which: a table of so many tokens (``known``) in a graph."""
    size = len(words)
    table = np.zeros((known or size, size), np.float32)
    for token, after in follows.items():
        table[token, after] = 1
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "tokens"], ["logits"])],
        "bigrams",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, None])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, None, size])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    kept = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=words[0]))
    kept.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    kept.decoder = tokenizers.decoders.Fuse()
    return {
        generation.MODEL: model.SerializeToString(),
        generation.TOKENIZER: kept.to_str().encode(),
        generation.CONFIG: msgspec.json.encode(Config(**{"context": 8, "max_tokens": 10_000_000, **config})),
    }


ALPHABET = writer(LETTERS, {0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 5}, end=5)  # a b c d é .
CIRCLE = writer(LETTERS, {0: 1, 1: 0})
LONG = writer(["a", "x" * 65_536], {0: 1, 1: 1})
BROKEN = writer(LETTERS, {0: 1, 1: 2, 2: 3}, known=3)  # a b c d, and what follows d the graph does not know


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def serve(world: World) -> Iterator[Callable[..., str]]:
    """The address of an endpoint of these files; each name is started once."""
    started: dict[str, str] = {}
    with Supervisor(world.home) as supervisor:

        def start(name: str, files: dict[str, bytes], **changes: Any) -> str:
            if name not in started:
                made = world.bundle(files, generation.SIGNATURE)
                started[name] = supervisor.start(world.spec(made, name=name, mode="durable", **changes))
            return started[name]

        yield start


@pytest.fixture
def http(serve: Callable[..., str]) -> Iterator[httpx.Client]:
    with client(serve("writer", ALPHABET)) as http:
        yield http


def events(answer: httpx.Response) -> list[tuple[str, Any]]:
    """The events of an answer as a browser would see them: their kind and their data."""
    found = []
    for block in answer.text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("event", "message"), json.loads(fields["data"])))
    return found


def record(world: World, prediction: str) -> Any:
    """The one record of a prediction, when it is there."""

    def look() -> Any:
        found = [r for r in log_of(world) if r["id"] == prediction]
        assert len(found) < 2
        return found[0] if found else None

    return eventually(look)


def test_an_answer_comes_in_pieces_and_is_logged_once(world: World, http: httpx.Client) -> None:
    answer = http.post(STREAM, json={"text": "ca", "parameters": {"max_tokens": 3}, "id": "mine"})

    about = {"model_name": "writer", "model_version": "1"}
    assert answer.headers["content-type"] == "text/event-stream"
    assert events(answer) == [("message", {**about, "text": letter}) for letter in "bcd"]
    logged = record(world, answer.headers["x-prediction-id"])
    assert (logged["outputs"], logged["ended"], logged["request_id"]) == ({"text": ["b", "c", "d"]}, "", "mine")
    assert logged["inputs"] == {"text": ["ca"], "max_tokens": [3]}


def test_typed_json_streams_to_whoever_accepts_it_and_answers_whole_else(http: httpx.Client) -> None:
    body = {"text": "a", "max_tokens": 100}
    streamed = http.post("/predict", json=body, headers={"accept": "text/event-stream"})

    assert events(streamed) == [("message", {"text": letter}) for letter in "bcdé"]
    assert http.post("/predict", json=body).json() == {"text": "bcdé"}
    assert http.post("/v2/models/writer/generate", json=body).json()["text"] == "bcdé"
    assert (
        events(http.post("/predict", json={"text": "é", "max_tokens": 1}, headers={"accept": "text/event-stream"}))
        == []
    )


def test_what_is_wrong_before_the_first_piece_is_an_error_like_any_other(http: httpx.Client) -> None:
    for body in (
        {"text": "a", "max_tokens": 0},
        {"text": "", "max_tokens": 1},
        {"text": "a"},
        {"text": "a", "max_tokens": 1, "more": 1},
        {"text": "a", "parameters": 1},
        [],
    ):
        answer = http.post(STREAM, json=body)
        assert (answer.status_code, set(answer.json())) == (400, {"error"}), body
    assert http.post("/v2/models/other/generate_stream", json={}).status_code in (403, 404)
    assert httpx.post(f"{str(http.base_url).rstrip('/')}{STREAM}", json={"text": "a"}).status_code == 401


def test_a_model_that_does_not_yield_is_not_asked_to(world: World) -> None:
    with Supervisor(world.home) as supervisor, client(supervisor.start(world.spec(name="plain"))) as http:
        refused = http.post("/predict", json={"X": [1, 2, 3]}, headers={"accept": "text/event-stream"})
        absent = http.post("/v2/models/plain/generate_stream", json={"X": [1, 2, 3]})

    assert (refused.status_code, absent.status_code) == (400, 404)
    assert "in pieces" in refused.json()["message"]


def test_an_error_in_mid_stream_is_an_event_and_in_the_record(world: World, serve: Callable[..., str]) -> None:
    with client(serve("broken", BROKEN)) as http:
        answer = http.post("/v2/models/broken/generate_stream", json={"text": "a", "max_tokens": 9})

    assert [data.get("text") for _, data in events(answer)] == ["b", "c", "d", None]
    kind, data = events(answer)[-1]
    assert (answer.status_code, kind, set(data)) == (200, "error", {"error"})
    logged = record(world, answer.headers["x-prediction-id"])
    assert logged["outputs"] == {"text": ["b", "c", "d"]}
    assert logged["ended"] in data["error"]


def test_a_stream_that_its_replica_cannot_end_is_told_so(world: World) -> None:
    releases = [
        world.spec(world.bundle(CIRCLE, generation.SIGNATURE, version=number), name="replaced", drain=0.5)
        for number in (1, 2)
    ]
    body = {"text": "a", "max_tokens": 10_000_000}
    with Supervisor(world.home) as supervisor, client(supervisor.start(releases[0])) as http:
        with http.stream("POST", "/v2/models/replaced/generate_stream", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            swapping = threading.Thread(target=supervisor.start, args=(releases[1],))
            swapping.start()
            *_, kind, data, end = lines  # it comes to an end, and is not cut
        swapping.join()
        assert (kind, end) == ("event: error", "")
        assert json.loads(data.removeprefix("data: "))["error"].startswith("this replica ends")
        assert record(world, answer.headers["x-prediction-id"])["ended"] == "this replica ends"
        assert http.post("/predict", json={"text": "a", "max_tokens": 3}).json() == {"text": "bab"}


def test_a_client_that_leaves_ends_the_work(world: World, serve: Callable[..., str]) -> None:
    url = serve("circle", CIRCLE)
    body = {"text": "a", "max_tokens": 10_000_000}
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.stream("POST", f"{url}/v2/models/circle/generate_stream", json=body, headers=headers) as answer:
        prediction = answer.headers["x-prediction-id"]
        lines = answer.iter_lines()
        said = [next(lines) for _ in range(10)]
        with client(url) as http:  # others are answered meanwhile
            assert http.post("/predict", json={"text": "a", "max_tokens": 3}).json() == {"text": "bab"}

    assert json.loads(said[0].removeprefix("data: "))["text"] == "b"
    logged = record(world, prediction)
    assert logged["ended"] == "the client left"
    assert 5 <= len(logged["outputs"]["text"]) < 10_000_000


@pytest.mark.parametrize("mode", ["buffered", "durable"])
def test_what_was_sent_of_a_stream_is_logged_although_its_replica_was_killed(world: World, mode: Any) -> None:
    made = world.bundle(CIRCLE, generation.SIGNATURE)
    body = {"text": "a", "max_tokens": 10_000_000}
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(made, name="killed", mode=mode))
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.stream("POST", f"{url}/v2/models/killed/generate_stream", json=body, headers=headers) as answer:
            prediction = answer.headers["x-prediction-id"]
            said = []
            with contextlib.suppress(httpx.HTTPError):  # which ends the loop: the model would go on for hours
                for line in filter(None, answer.iter_lines()):
                    said.append(json.loads(line.removeprefix("data: "))["text"])
                    if len(said) == 10:
                        os.kill(supervisor.status()[0].pids[0], signal.SIGKILL)
        logged = record(world, prediction)
        with client(url) as http:
            whole = http.post("/v2/models/killed/generate_stream", json={"text": "a", "max_tokens": 2})
    assert logged["ended"] == "the replica was killed"
    written = logged["outputs"]["text"]
    assert len(written) >= len(said) - 1 >= 9
    assert written == (["b", "a"] * len(written))[: len(written)]
    assert record(world, whole.headers["x-prediction-id"])["ended"] == ""


def test_a_client_that_reads_slowly_slows_the_model_down(world: World, serve: Callable[..., str]) -> None:
    """Some megabytes lie in pipe and sockets, and that is all, however long nobody reads."""
    headers = {"authorization": f"Bearer {KEY}"}
    body = {"text": "a", "max_tokens": 10_000_000}
    url = serve("long", LONG)
    with httpx.stream("POST", f"{url}/v2/models/long/generate_stream", json=body, headers=headers) as answer:
        prediction = answer.headers["x-prediction-id"]
        lines = answer.iter_lines()
        for _ in range(2 * 60):
            next(lines)
        time.sleep(1.5)

    assert 60 <= len(record(world, prediction)["outputs"]["text"]) < 200


def test_an_answer_that_takes_too_long_is_broken_off(world: World, serve: Callable[..., str]) -> None:
    with client(serve("late", CIRCLE, streaming=0.4)) as http:
        answer = http.post("/v2/models/late/generate_stream", json={"text": "a", "max_tokens": 10_000_000})

    kind, data = events(answer)[-1]
    assert (kind, set(data)) == ("error", {"error"})
    assert "in time" in data["error"]
    assert "in time" in record(world, answer.headers["x-prediction-id"])["ended"]


WRITER = generation.assemble(ALPHABET)


def inputs(text: str, tokens: int) -> dict[str, Any]:
    return {"text": np.array([text], object), "max_tokens": np.array([tokens])}


@given(st.text("abcdé.", min_size=1, max_size=12), st.integers(1, 9))
def test_the_pieces_are_the_whole(text: str, tokens: int) -> None:
    pieces = [piece.outputs["text"][0] for piece in WRITER.stream(inputs(text, tokens), NO_FEATURES)]

    assert "".join(pieces) == WRITER.predict(inputs(text, tokens), NO_FEATURES).outputs["text"][0]
    at = LETTERS.index(text[-1])
    assert "".join(pieces) == ("" if at == 5 else "".join(LETTERS[at + 1 : 5]))[:tokens]


def test_a_character_of_several_tokens_comes_when_it_is_complete() -> None:
    """Bytes are tokens here, and é is two of them."""
    kept = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"Ã": 0, "©": 1, "a": 2}, merges=[]))
    kept.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    kept.decoder = tokenizers.decoders.ByteLevel()
    files = writer(["a", "b", "c"], {2: 0, 0: 1, 1: 0}) | {generation.TOKENIZER: kept.to_str().encode()}

    pieces = list(generation.assemble(files).stream(inputs("a", 5), NO_FEATURES))

    assert [piece.outputs["text"][0] for piece in pieces] == ["é", "é"]


def test_files_that_do_not_fit_are_refused() -> None:
    for name, data in ((generation.CONFIG, b"{}"), (generation.TOKENIZER, b"x"), (generation.MODEL, b"x")):
        with pytest.raises(IntegrityError):
            generation.assemble(ALPHABET | {name: data})
    with pytest.raises(IntegrityError):
        generation.assemble({})
    with pytest.raises(InputError, match="ask 1 to"):
        WRITER.predict(inputs("a", 20_000_000), NO_FEATURES)
