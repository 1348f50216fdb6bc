"""An encoder becomes a graph that says the same, and a bundle that answers texts; the real MiniLM among them."""

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from bedplate.bundle import safetensors
from bedplate.compute import sandbox
from bedplate.errors import InputError, IntegrityError
from bedplate.records import Comparison, ModelSignature
from bedplate.serve import embedding
from bedplate.serve.predictors import NO_FEATURES
from bedplate.serve.supervisor import Supervisor
from bedplate.train import encoders
from bedplate.usecase.types import Resources
from tests.serve.support import World, client

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(20))]
TEXTS = [f"w{i % 7} w{i % 3} w{i}" for i in range(20)]
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "embeddings.md"


def small(family: str = "bert", **changes):
    """``config.json`` of a tiny encoder."""
    given = {
        "model_type": family,
        "hidden_size": 16,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "max_position_embeddings": 40,
        "vocab_size": len(WORDS),
    }
    return {**given, **changes}


def weights(config, prefix=""):
    random = np.random.default_rng(3)
    d, wide = config["hidden_size"], 32
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], d),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], d),
        "embeddings.token_type_embeddings.weight": (2, d),
        "embeddings.LayerNorm.weight": (d,),
        "embeddings.LayerNorm.bias": (d,),
    }
    for layer in range(config["num_hidden_layers"]):
        for part, rows, columns in (
            ("attention.self.query", d, d),
            ("attention.self.key", d, d),
            ("attention.self.value", d, d),
            ("attention.output.dense", d, d),
            ("intermediate.dense", wide, d),
            ("output.dense", d, wide),
        ):
            shapes[f"encoder.layer.{layer}.{part}.weight"] = (rows, columns)
            shapes[f"encoder.layer.{layer}.{part}.bias"] = (rows,)
        for part in ("attention.output", "output"):
            shapes[f"encoder.layer.{layer}.{part}.LayerNorm.weight"] = (d,)
            shapes[f"encoder.layer.{layer}.{part}.LayerNorm.bias"] = (d,)
    return {prefix + name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def folder(path, config=None, arrays=None, **extra):
    """What sentence-transformers saves, tiny."""
    config = config or small()
    path.mkdir(parents=True, exist_ok=True)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(safetensors.write(arrays or weights(config)))
    (path / "tokenizer.json").write_text(words.to_str())
    for name, value in extra.items():
        target = path / {"pooling": "1_Pooling/config.json", "modules": "modules.json"}[name]
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(value))
    return path


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    made = encoders.release(folder(tmp_path_factory.mktemp("small")), TEXTS, [t[1] for t in TEXTS])
    return embedding.assemble(made.files, msgspec.convert(made.result["signature"], ModelSignature))


def vectors(model, texts):
    return model.predict({"text": np.array(texts, object)}, NO_FEATURES).outputs["embedding"]


@pytest.mark.parametrize(
    ("family", "changes", "prefix"),
    [
        ("bert", {}, "bert."),
        ("bert", {"num_attention_heads": 1, "layer_norm_eps": 0.01}, ""),
        ("roberta", {"pad_token_id": 1}, "roberta."),
        ("xlm-roberta", {"pad_token_id": 0}, ""),
    ],
)
def test_the_graph_says_what_the_weights_say(family, changes, prefix):
    config = small(family, **changes)
    architecture = msgspec.convert(config, encoders.Architecture)
    arrays = weights(config, prefix)

    kept = encoders._encoder_weights(arrays)

    assert encoders.verify(encoders.convert(architecture, kept), architecture, kept) < 1e-5
    name = "encoder.layer.1.output.LayerNorm.bias"
    other = {**kept, name: kept[name] + 0.01}
    with pytest.raises(IntegrityError, match="differs"):
        encoders.verify(encoders.convert(architecture, kept), architecture, other)


@given(st.lists(st.lists(st.integers(0, 25), max_size=45), max_size=12), st.randoms())
def test_neighbours_and_padding_change_no_vector(predictor, rows, random):
    """What a text gets does not depend on what else is asked, in which order, or how long the others are."""
    texts = [" ".join(f"w{i}" for i in row) for row in rows]
    order = list(range(len(texts)))
    random.shuffle(order)
    together = predictor.predict({"text": np.array([texts[i] for i in order], object)}, NO_FEATURES).outputs

    assert together["embedding"].shape == (len(texts), 16)
    assert together["tokens"].tolist() == [min(len(rows[i]) + 2, 40) for i in order]
    for at, i in enumerate(order):
        assert np.allclose(together["embedding"][at], vectors(predictor, [texts[i]])[0], atol=1e-5)


@given(st.lists(st.integers(2, 600), max_size=60))
def test_batches_hold_every_row_once_with_little_padding(lengths):
    found = list(embedding.batches(np.array(lengths, np.int64)))

    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[row] for row in batch)
        assert lengths[batch[0]] == longest
        assert all(longest - lengths[row] <= max(16, longest / 4) for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= 8192


def test_pooling_and_normalisation_are_those_of_the_folder(tmp_path):
    pooled = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    steps = [{"type": "sentence_transformers.models.Normalize"}]
    made = {
        name: encoders.release(folder(tmp_path / name, pooling=pooled, modules=steps if name == "both" else []), TEXTS,
                               [0] * 20, max_tokens=9)
        for name in ("both", "cls")
    }  # fmt: skip
    signature = embedding.signature(16)
    both, cls = (embedding.assemble(made[name].files, signature) for name in ("both", "cls"))

    assert cls.config == embedding.Config(dimensions=16, max_tokens=9, pooling="cls", normalize=False)
    long = " ".join(["w5"] * 30)
    assert cls.predict({"text": np.array([long], object)}, NO_FEATURES).outputs["tokens"].tolist() == [9]
    found = vectors(cls, TEXTS)
    assert np.allclose(vectors(both, TEXTS), found / np.linalg.norm(found, axis=1, keepdims=True), atol=1e-5)


def test_texts_come_as_words_or_bytes(predictor):
    assert np.array_equal(vectors(predictor, ["w1 w2"]), vectors(predictor, [b"w1 w2"]))
    with pytest.raises(InputError, match="UTF-8"):
        vectors(predictor, [b"\xff"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"config": small("gpt2")}, "model_type"),
        ({"config": small(hidden_act="relu")}, "hidden_act"),
        ({"config": small(position_embedding_type="relative_key")}, "position_embedding_type"),
        ({"config": small(num_attention_heads=3)}, "heads"),
        ({"config": {"model_type": "bert"}, "arrays": weights(small())}, "hidden_size"),
        ({"arrays": {"embeddings.word_embeddings.weight": np.zeros((5, 16), np.float32)}}, "not there"),
        ({"config": small(hidden_size=32), "arrays": weights(small())}, "of shape"),
        ({"pooling": {"pooling_mode_max_tokens": True}}, "pooled by pooling_mode_max_tokens"),
    ],
)
def test_what_cannot_be_converted_says_why(tmp_path, change, match):
    with pytest.raises((InputError, IntegrityError), match=match):
        encoders.release(folder(tmp_path / "it", **change), TEXTS, [0] * 20)


def test_missing_files_and_labels_are_named(tmp_path):
    with pytest.raises(InputError, match=re.escape("config.json")):
        encoders.release(tmp_path, TEXTS, [0] * 20)
    with pytest.raises(InputError, match="19 labels"):
        encoders.release(folder(tmp_path), TEXTS, [0] * 19)


def test_a_bundle_that_does_not_fit_itself_is_refused(tmp_path):
    files = encoders.release(folder(tmp_path), TEXTS, [0] * 20).files
    signature = embedding.signature(16)
    other = json.dumps({"dimensions": 8, "max_tokens": 40}).encode()
    for changed, promised in (
        ({**files, embedding.TOKENIZER: b"{}"}, signature),
        ({**files, embedding.CONFIG: b"{}"}, signature),
        ({**files, embedding.CONFIG: other}, embedding.signature(8)),
        (files, embedding.signature(8)),
        ({name: data for name, data in files.items() if name != embedding.ENCODER}, signature),
    ):
        with pytest.raises(IntegrityError):
            embedding.assemble(changed, promised)


def minilm(folder):
    """MiniLM as the page on embeddings releases it: its pipeline, in a limited process."""
    (code,) = re.findall(r"^```python\n(.*?)^```", HOW_TO.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    pipeline = folder / "pipeline.py"
    pipeline.write_text(code)
    texts = {
        "billing": ["The invoice shows the wrong amount", "I was charged twice", "Please refund my payment"],
        "delivery": ["My parcel has not arrived", "The courier left the box outside", "When will it be shipped?"],
    }
    rows = [(text, topic) for topic, of in texts.items() for text in of]
    table = pa.table({"text": [row[0] for row in rows], "topic": [row[1] for row in rows]})
    return sandbox.call(
        "pipeline:encode", pipeline=pipeline, tables={"tickets": table}, resources=Resources(cpu=1, memory=2 << 30)
    )


def test_minilm_says_what_is_published_of_it_also_over_http(tmp_path):
    """The similarities that its authors and the library's documentation print for these sentences."""
    released = minilm(tmp_path)
    signature = msgspec.convert(released.result["signature"], ModelSignature)
    happy = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    weather = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]

    def ask(http, texts):
        text = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
        answer = http.post("/v2/models/linear/infer", json={"inputs": [text]}).json()
        return [np.reshape(output["data"], output["shape"]) for output in answer["outputs"]]

    world = World(tmp_path / "home")
    made = world.bundle(released.files, signature)
    with Supervisor(world.home) as supervisor, client(supervisor.start(world.spec(made))) as http:
        one, tokens = ask(http, happy)
        other, _ = ask(http, weather)
        asked = {"model": "linear", "input": happy}
        embedded = http.post("/v1/embeddings", json=asked).json()
        tickets = http.post("/v1/embeddings", json=asked | {"input": [[101, 2008, 2003, 1037, 3407, 2711, 102]]}).json()

    assert np.allclose([each["embedding"] for each in embedded["data"]], one, atol=1e-6)
    assert embedded["usage"]["total_tokens"] == 29
    assert np.allclose(tickets["data"][0]["embedding"], one[0], atol=1e-5)
    assert np.allclose((one @ one.T)[0, 1:], [0.6945774, 0.9429151, 0.2568761], atol=1e-5)
    assert np.allclose((other @ other.T)[[0, 0, 1], [1, 2, 2]], [0.6660, 0.1046, 0.1411], atol=1e-4)
    assert tokens.tolist() == [7, 7, 8, 7]
    assert msgspec.json.decode(released.files[embedding.CONFIG])["max_tokens"] == 256
    assert released.result["checks"]["onnx_difference"] < 1e-5
    found = msgspec.convert(released.result["comparisons"], list[Comparison])
    assert {c.baseline for c in found} == {"shared_words", "most_common"}
