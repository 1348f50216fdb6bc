"""OpenAI's own client asks for embeddings. Its import takes two seconds, so only tests that need it have it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bedplate.errors import InputError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve import embedding
from bedplate.serve.supervisor import Supervisor
from bedplate.train import encoders
from tests.serve.support import KEY, STRANGER, World, client
from tests.train.test_encoders import TEXTS, folder

if TYPE_CHECKING:
    import openai

PLAIN = ModelSignature(
    predictor="onnx",
    inputs=(TensorSpec(name="words", datatype="BYTES", shape=(-1, 1)),),
    outputs=(TensorSpec(name="vector", datatype="FP32", shape=(-1, 2)),),
)


def plain() -> bytes:
    """Two numbers for each text, of a table: any model of this form is an embedding model."""
    graph = helper.make_graph(
        [
            helper.make_node(
                "LabelEncoder", ["words"], ["n"], domain="ai.onnx.ml", keys_strings=["a"], values_floats=[3.0],
                default_float=1.0,
            ),
            helper.make_node("Mul", ["n", "by"], ["vector"]),
        ],
        "plain",
        [helper.make_tensor_value_info("words", TensorProto.STRING, [None, 1])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor("by", TensorProto.FLOAT, [1, 2], [1.0, 2.0])],
    )  # fmt: skip
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=9)
    onnx.checker.check_model(model)
    text: bytes = model.SerializeToString()
    return text


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return dict(encoders.release(folder(tmp_path_factory.mktemp("small")), TEXTS, [t[1] for t in TEXTS]).files)


@pytest.fixture(scope="module")
def urls(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    world = World(tmp_path_factory.mktemp("home"))
    with Supervisor(world.home) as supervisor:
        small = world.spec(world.bundle(files, embedding.signature(16)), name="small")
        table = world.spec(world.bundle(plain(), PLAIN), name="table")
        yield supervisor.start(small), supervisor.start(table)


@pytest.fixture
def theirs(urls: tuple[str, str]) -> Iterator[openai.OpenAI]:
    import openai

    with openai.OpenAI(base_url=f"{urls[0]}/v1", api_key=KEY, max_retries=0) as stock:
        yield stock


@pytest.fixture(scope="module")
def predictor(files: dict[str, bytes]) -> embedding.EmbeddingPredictor:
    return embedding.assemble(files, embedding.signature(16))


def test_the_stock_client_gets_the_models_vectors_in_every_form(theirs: openai.OpenAI, urls: tuple[str, str]) -> None:
    with client(urls[0]) as http:
        text = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["w1 w2", "w3"]}
        outputs = http.post("/v2/models/small/infer", json={"inputs": [text]}).json()["outputs"]
    expected = np.reshape(outputs[0]["data"], (2, 16))

    for form in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        answer = theirs.embeddings.create(model="small", input=["w1 w2", "w3"], **form)
        vectors = [
            np.frombuffer(base64.b64decode(e.embedding), "<f4") if isinstance(e.embedding, str) else e.embedding
            for e in answer.data
        ]
        assert np.allclose(vectors, expected, atol=1e-6)
        assert [e.index for e in answer.data] == [0, 1]
        assert (answer.model, answer.object) == ("small", "list")
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4 + 3
    one = theirs.embeddings.create(model="small", input="w3").data
    assert np.allclose(one[0].embedding, expected[1], atol=1e-5)


def test_tokens_are_read_as_the_text_they_are_of(theirs: openai.OpenAI) -> None:
    """``w1 w2`` is [CLS] w1 w2 [SEP]; with the special ones or without, it is the same text."""
    text = theirs.embeddings.create(model="small", input="w1 w2").data[0].embedding

    for tokens in ([5, 6], [2, 5, 6, 3]):
        assert np.allclose(theirs.embeddings.create(model="small", input=tokens).data[0].embedding, text, atol=1e-6)
    both = theirs.embeddings.create(model="small", input=[[5, 6], [7]])
    assert len(both.data) == 2
    assert np.allclose(both.data[0].embedding, text, atol=1e-5)


@pytest.mark.parametrize("tokens", [[999], [0], [], [2, 3]])
def test_tokens_that_are_of_no_text_are_refused(predictor: embedding.EmbeddingPredictor, tokens: list[int]) -> None:
    with pytest.raises(InputError, match="no text"):
        predictor.text_of(tokens)


def test_tokens_beyond_the_longest_text_are_cut_off_as_its_text_would_be(
    predictor: embedding.EmbeddingPredictor,
) -> None:
    assert predictor.text_of([5] * 100).split() == ["w1"] * 100


def test_fewer_dimensions_are_the_first_ones_at_length_one(theirs: openai.OpenAI) -> None:
    import openai

    full = np.array(theirs.embeddings.create(model="small", input="w5").data[0].embedding)

    cut = np.array(theirs.embeddings.create(model="small", input="w5", dimensions=4).data[0].embedding)

    assert np.allclose(cut, full[:4] / np.linalg.norm(full[:4]), atol=1e-5)
    with pytest.raises(openai.BadRequestError, match="16 dimensions") as refused:
        theirs.embeddings.create(model="small", input="w5", dimensions=17)
    assert refused.value.param == "dimensions"


def test_the_models_are_listed(theirs: openai.OpenAI) -> None:
    import openai

    (model,) = theirs.models.list().data

    assert (model.id, model.object, model.owned_by) == ("small", "model", "demo")
    assert model.created == 1767225600
    assert theirs.models.retrieve("small") == model
    with pytest.raises(openai.NotFoundError, match="not served here"):
        theirs.models.retrieve("gpt")


def test_errors_are_those_the_client_knows(urls: tuple[str, str], theirs: openai.OpenAI) -> None:
    import openai

    with pytest.raises(openai.NotFoundError) as missing:
        theirs.embeddings.create(model="text-embedding-3-small", input="x")
    assert (missing.value.code, missing.value.param, missing.value.type) == (
        "model_not_found",
        "model",
        "not_found_error",
    )
    for given in ("", [], [[]], ["a", 1], [1, [2]], [-1], [None], [1.5], {"a": 1}):
        with pytest.raises(openai.BadRequestError):
            theirs.embeddings.create(model="small", input=given)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="2048"):
        theirs.embeddings.create(model="small", input=["w1"] * 2049)
    for key, kind in (("none", openai.AuthenticationError), (STRANGER, openai.PermissionDeniedError)):
        with openai.OpenAI(base_url=f"{urls[0]}/v1", api_key=key, max_retries=0) as other, pytest.raises(kind):
            other.embeddings.create(model="small", input="x")


def test_any_model_of_texts_and_vectors_is_asked_so_and_no_other(urls: tuple[str, str]) -> None:
    import openai

    with openai.OpenAI(base_url=f"{urls[1]}/v1", api_key=KEY, max_retries=0) as stock:
        answer = stock.embeddings.create(model="table", input=["a", "b"])
        assert [e.embedding for e in answer.data] == [[3.0, 6.0], [1.0, 2.0]]
        assert answer.usage.total_tokens == 0
        with pytest.raises(openai.BadRequestError, match="texts alone"):
            stock.embeddings.create(model="table", input=[1, 2])
    schemas = httpx.get(f"{urls[1]}/openapi.json", headers={"authorization": f"Bearer {KEY}"}).json()["components"]
    assert msgspec.json.encode(schemas["schemas"]["Embed"]["required"]) == b'["model","input"]'
