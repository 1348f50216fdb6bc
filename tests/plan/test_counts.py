"""Counts against what publishers say of their models: exact where they give the number, rounded where they round."""

from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bedplate.errors import InputError
from bedplate.plan import counts, graphs


def llama(hidden: int, layers: int, heads: int, kv: int, ffn: int, vocab: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        **more,
    }


GPT3 = {"model_type": "gpt2", "n_embd": 12288, "n_layer": 96, "n_head": 96, "n_positions": 2048, "vocab_size": 50257}
GPTJ = {"model_type": "gptj", "n_embd": 4096, "n_layer": 28, "n_head": 16, "vocab_size": 50400}
LLAMA_8B = llama(4096, 32, 32, 8, 14336, 128256)
LLAMA_405B = llama(16384, 126, 128, 8, 53248, 128256)
MIXTRAL = llama(4096, 32, 32, 8, 14336, 32000, model_type="mixtral", num_local_experts=8, num_experts_per_tok=2)
QWEN3_30B = llama(
    2048, 48, 32, 4, 6144, 151936, model_type="qwen3_moe", head_dim=128, num_experts=128, num_experts_per_tok=8,
    moe_intermediate_size=768,
)  # fmt: skip
DEEPSEEK_V3 = llama(
    7168, 61, 128, 128, 18432, 129280, model_type="deepseek_v3", n_routed_experts=256, num_experts_per_tok=8,
    n_shared_experts=1, moe_intermediate_size=2048, first_k_dense_replace=3, q_lora_rank=1536, kv_lora_rank=512,
    qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128,
)  # fmt: skip
BERT = llama(768, 12, 12, 12, 3072, 30522, model_type="bert", max_position_embeddings=512, type_vocab_size=2)


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (LLAMA_8B, 8_030_261_248),
        (llama(8192, 80, 64, 8, 28672, 128256), 70_553_706_496),
        (LLAMA_405B, 405_853_388_800),
        (llama(4096, 32, 32, 32, 11008, 32000), 6_738_415_616),
        (llama(8192, 80, 64, 8, 28672, 32000), 68_976_648_192),
        (llama(4096, 32, 32, 8, 14336, 32000, model_type="mistral"), 7_241_732_096),
        (MIXTRAL, 46_702_792_704),
        (llama(3584, 28, 28, 4, 18944, 152064, model_type="qwen2"), 7_615_616_512),
        (QWEN3_30B, 30_532_122_624),
        (GPT3 | {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024}, 124_439_808),
        (GPTJ, 6_050_882_784),
        (BERT, 109_482_240),
        (BERT | {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}, 22_713_216),
        (DEEPSEEK_V3, 671_026_419_200),
    ],
)  # fmt: skip
def test_parameters_are_those_that_were_published(config: dict[str, Any], published: int) -> None:
    assert counts.from_config(config).parameters == published


def test_rounded_figures() -> None:
    assert counts.from_config(GPT3).parameters == pytest.approx(175e9, rel=0.005)
    mixtral, qwen = counts.from_config(MIXTRAL), counts.from_config(QWEN3_30B)
    deepseek = counts.from_config(DEEPSEEK_V3)
    assert mixtral.active == pytest.approx(12.9e9, rel=0.005)
    assert qwen.active == pytest.approx(3.3e9, rel=0.02)
    assert deepseek.active == pytest.approx(37e9, rel=0.02)
    # The cache of one token, 16 bits: 128 KiB for 8B, 70 KiB for the compressed one of DeepSeek-V3.
    assert counts.from_config(LLAMA_8B).kv_bytes(2) == 131_072
    assert deepseek.kv_bytes(2) == pytest.approx(70_272)


def test_operations_of_gpt3_follow_the_formula_of_its_publishers() -> None:
    """Narayanan et al. (2021): 96 B s l h^2 (1 + s/6h + V/16lh) a step with recompute, all of attention counted."""
    model = counts.from_config(GPT3)
    s, layers, h, v = 2048, 96, 12288, 50257
    formula = 96 * s * layers * h * h * (1 + s / (6 * h) + v / (16 * layers * h))
    mine = s * (4 * (2.0 * (model.linear - v * h) + model.attention_flops(s)) + 3 * 2.0 * v * h)
    assert mine == pytest.approx(formula, rel=1e-3)


def test_states_and_activations_follow_their_publications() -> None:
    """Rajbhandari et al. (2020), table 1: 7.5B on 64 devices; Korthikanti et al. (2022), section 4."""
    sizes = [counts.state_bytes(7.5e9, shards=64, stage=stage) / 1e9 for stage in range(4)]
    assert sizes == pytest.approx([120, 31.4, 16.6, 1.88], abs=0.06)
    model = counts.from_config(GPT3)
    whole = counts.activation_bytes(model, sequence=2048, micro_batch=1, recompute="none", flash=False)
    unit = 2048 * 12288
    assert whole / model.layers / unit == pytest.approx(34 + 5 * 96 * 2048 / 12288)
    split = counts.activation_bytes(
        model, sequence=2048, micro_batch=1, recompute="selective", tensor=8, sequence_parallel=True
    )
    assert split / model.layers / unit == pytest.approx(34 / 8)
    assert counts.activation_bytes(model, sequence=2048, micro_batch=1, recompute="full") / model.layers / unit == 2


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_more_tokens_touch_more_experts_and_never_more_than_all(few: int, more: int) -> None:
    model = counts.from_config(MIXTRAL)
    low, high = sorted((few, more))
    assert model.active <= model.touched(low) * (1 + 1e-12) <= model.touched(high) * (1 + 1e-9)
    assert model.touched(high) <= model.parameters


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "mamba"}, "not counted"),
        ({}, "not counted"),
        ({key: value for key, value in LLAMA_8B.items() if key != "hidden_size"}, "hidden_size"),
        (LLAMA_8B | {"num_hidden_layers": -1}, "num_hidden_layers"),
        (LLAMA_8B | {"vocab_size": "many"}, "vocab_size"),
        (LLAMA_8B | {"num_attention_heads": 0}, "num_attention_heads"),
        (LLAMA_8B | {"num_attention_heads": True}, "num_attention_heads"),
        (MIXTRAL | {"num_experts_per_tok": None}, "num_experts_per_tok"),
    ],
)
def test_what_cannot_be_counted_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        counts.from_config(config)


def resnet50() -> onnx.ModelProto:
    """ResNet-50 by its shapes alone: the weights are said to lie in a file that does not exist."""
    nodes, weights = [], []

    def tensor(name: str, *dims: int) -> str:
        proto = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
        proto.external_data.add(key="location", value="nowhere")
        weights.append(proto)
        return name

    def conv(x: str, inside: int, out: int, kernel: int, stride: int = 1) -> str:
        name = f"c{len(nodes)}"
        weight, pad = tensor(f"{name}.w", out, inside, kernel, kernel), kernel // 2
        nodes.append(helper.make_node(
            "Conv", [x, weight], [name], strides=[stride] * 2, pads=[pad] * 4, kernel_shape=[kernel] * 2
        ))  # fmt: skip
        parts = [tensor(f"{name}.{part}", out) for part in ("scale", "shift", "mean", "variance")]
        nodes.append(helper.make_node("BatchNormalization", [name, *parts], [f"{name}.n"]))
        return f"{name}.n"

    x = conv("image", 3, 64, 7, 2)
    nodes.append(helper.make_node("MaxPool", [x], ["pool"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4))
    x, inside = "pool", 64
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first if block == 0 else 1
            y = conv(conv(conv(x, inside, width, 1), width, width, 3, stride), width, 4 * width, 1)
            short = conv(x, inside, 4 * width, 1, stride) if block == 0 else x
            x, inside = f"s{len(nodes)}", 4 * width
            nodes.append(helper.make_node("Add", [y, short], [x]))
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    nodes.append(
        helper.make_node("Gemm", ["flat", tensor("fc.w", 1000, 2048), tensor("fc.b", 1000)], ["out"], transB=1)
    )
    ends = [
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 1000])],
    ]
    return helper.make_model(helper.make_graph(nodes, "resnet50", *ends, initializer=weights))


def test_a_graph_is_counted_by_its_shapes() -> None:
    counted = graphs.count(resnet50(), {"image": (1, 3, 224, 224)})
    assert counted.parameters == 25_557_032
    assert counted.macs == pytest.approx(4.09e9, rel=0.005)
    assert counted.activations == pytest.approx(11.11e6, rel=0.005)


def test_an_open_dimension_is_refused() -> None:
    with pytest.raises(InputError, match="shape of"):
        graphs.count(resnet50())


def test_layers_that_look_at_the_nearest_tokens_read_and_compute_less_of_a_long_context() -> None:
    config = LLAMA_8B | {"model_type": "llama4_text", "num_local_experts": 16, "num_experts_per_tok": 1}
    near, far = (counts.from_config(config | more) for more in ({"attention_chunk_size": 8192}, {}))
    assert (near.local_layers, near.window, far.window) == (24, 8192, 0)
    assert near.seen_share(8000) == near.seen_share(1) == far.seen_share(20_000) == 1
    assert near.seen_share(16_384) == pytest.approx(1 - 0.75 / 2)
    assert near.attention_flops(4096) == far.attention_flops(4096)
    assert near.attention_flops(16_384) == pytest.approx(far.attention_flops(16_384) * (0.25 + 0.75 * 7 / 16))
    listed = counts.from_config(
        LLAMA_8B | {"layer_types": ["sliding_attention", "full_attention"] * 16, "sliding_window": 512}
    )
    assert (listed.local_layers, listed.window) == (16, 512)
