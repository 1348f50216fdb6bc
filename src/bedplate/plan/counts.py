"""Exact counts of a transformer from its Hugging Face ``config.json``: parameters, operations, memory.

Nothing is fitted. A family that is not in the table below is refused: a parameter that nobody counted would make
every figure after it wrong by an unknown amount. One multiply-add is two operations. Memory follows Korthikanti et
al. (2022) for activations and Rajbhandari et al. (2020) for what an optimiser keeps.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec

from bedplate.errors import InputError

Recompute = Literal["none", "selective", "half", "full"]
"""What is computed again for the backward pass: nothing, the attention, every other product, or each whole layer."""


class _Family(NamedTuple):
    gated: bool = True
    """Three matrices in the feed-forward part instead of two."""
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    norm_vectors: int = 1
    """Scale only, or scale and shift."""
    norms: int = 2
    """In each layer."""
    qk_norm: bool = False
    learned_positions: bool = False
    encoder: bool = False
    head_bias: bool = False
    tied: bool = False
    """Unless the file says otherwise, the vectors of the vocabulary serve as output matrix too."""
    router_bias: bool = False
    sinks: bool = False
    """One learned number per head in the softmax."""
    local: int = 0
    """Of four layers, how many look at the nearest tokens only, where the file does not list them."""


_CLASSIC = _Family(gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, norm_vectors=2, learned_positions=True)
_FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(),
    "llama4_text": _Family(local=3),
    "mistral": _Family(),
    "mixtral": _Family(),
    "qwen2": _Family(qkv_bias=True),
    "qwen3": _Family(qk_norm=True),
    "qwen3_moe": _Family(qk_norm=True),
    "deepseek_v3": _Family(router_bias=True),
    "gpt_oss": _Family(qkv_bias=True, out_bias=True, mlp_bias=True, router_bias=True, sinks=True, local=2),
    "nemotron": _Family(gated=False, norm_vectors=2),
    "gpt2": _CLASSIC._replace(tied=True),
    "mpt": _CLASSIC._replace(tied=True),
    "gptj": _Family(gated=False, mlp_bias=True, norm_vectors=2, norms=1, head_bias=True),
    "bert": _CLASSIC._replace(encoder=True),
    "roberta": _CLASSIC._replace(encoder=True),
}
_NAMES: Mapping[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "vocab": ("vocab_size",),
}


class Transformer(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The sizes that decide what a transformer costs. Widths in elements, experts per layer."""

    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    """Width of the feed-forward part of a layer without experts."""
    vocab: int
    tied: bool
    positions: int = 0
    """Learned position vectors."""
    token_types: int = 0
    experts: int = 0
    experts_used: int = 0
    """By each token, besides the shared ones."""
    experts_shared: int = 0
    expert_ffn: int = 0
    moe_layers: int = 0
    q_rank: int = 0
    kv_rank: int = 0
    """Above zero: attention keeps a compressed vector of this width instead of keys and values (MLA)."""
    rope_dim: int = 0
    nope_dim: int = 0
    v_dim: int = 0
    window: int = 0
    """Tokens back that layers of local attention look, at most."""
    local_layers: int = 0

    @cached_property
    def parameters(self) -> int:
        """All weights."""
        kind = _FAMILIES[self.family]
        norm = kind.norm_vectors * self.hidden
        inside = self._attention + self._attention_vectors + kind.norms * norm
        total = self.layers * inside + self._feed_forward + self.vocab * self.hidden + self.positions * self.hidden
        if kind.encoder:  # types, the norm after the embedding, and the pooler
            return total + self.token_types * self.hidden + norm + self.hidden * (self.hidden + 1)
        total += norm
        if not self.tied:
            total += self.vocab * (self.hidden + kind.head_bias)
        return total

    @cached_property
    def active(self) -> int:
        """Weights that one token meets: all but the experts that it is not sent to."""
        return self.parameters - self.moe_layers * (self.experts - self.experts_used) * self.expert

    @cached_property
    def expert(self) -> int:
        """Weights of one expert of one layer."""
        return self._mlp(self.expert_ffn) if self.experts else 0

    @property
    def experts_met(self) -> int:
        """Weights of the experts that one token is sent to, over all layers."""
        return self.moe_layers * (self.experts_used + self.experts_shared) * self.expert

    @property
    def experts_all(self) -> int:
        """Weights of all experts of all layers, without the shared ones."""
        return self.moe_layers * self.experts * self.expert

    @cached_property
    def linear(self) -> int:
        """Weights of the matrices that one token is multiplied with, the output matrix among them."""
        dense = (self.layers - self.moe_layers) * self._matrices * self.hidden * self.ffn
        sent = self.experts_used + self.experts_shared
        sparse = self.moe_layers * (sent * self._matrices * self.hidden * self.expert_ffn + self.hidden * self.experts)
        return self.layers * self._attention + dense + sparse + self.head

    @property
    def head(self) -> int:
        """Weights of the output matrix, which scores the vocabulary; an encoder has none."""
        return 0 if _FAMILIES[self.family].encoder else self.vocab * self.hidden

    @cached_property
    def inputs(self) -> int:
        """Numbers of one token that go into the matrices of all layers: into attention, out of it, into the
        feed-forward part and its last matrix, for each expert that the token is sent to."""
        sent = self.experts_used + self.experts_shared
        dense = (self.layers - self.moe_layers) * (self.hidden + self.ffn)
        sparse = self.moe_layers * sent * (self.hidden + self.expert_ffn)
        return self.layers * (self.hidden + self.heads * (self.v_dim or self.head_dim)) + dense + sparse

    def attention_flops(self, context: float) -> float:
        """Operations of scores and weighted sum, forward, of one token that looks at ``context`` others, or on average
        does, as those of a causal sequence twice as long do."""
        wide = self.nope_dim + self.rope_dim + self.v_dim if self.kv_rank else 2 * self.head_dim
        short = 2 * context <= self.window
        near = context if short or not self.window else self.window - self.window**2 / (4 * context)
        return 2.0 * self.heads * wide * ((self.layers - self.local_layers) * context + self.local_layers * near)

    def forward_flops(self, sequence: int) -> float:
        """Operations of one token of a sequence, forward: on average it sees half of it, in an encoder all."""
        seen = sequence if _FAMILIES[self.family].encoder else sequence / 2
        return 2.0 * self.linear + self.attention_flops(seen)

    def kv_bytes(self, each: float) -> float:
        """Bytes that one token leaves in the cache, at ``each`` bytes an element."""
        if self.kv_rank:
            return self.layers * (self.kv_rank + self.rope_dim) * each
        return 2.0 * self.layers * self.kv_heads * self.head_dim * each

    def seen_share(self, context: float) -> float:
        """Of a cache of ``context`` tokens, the share that the next one looks at."""
        near = min(1.0, self.window / context) if self.window else 1.0
        return 1 - self.local_layers / self.layers * (1 - near)

    def touched(self, tokens: float) -> float:
        """Weights read to push a batch of so many tokens through: of the experts, those that any token is sent to."""
        if not self.experts:
            return float(self.parameters)
        hit = 1 - math.pow(1 - self.experts_used / self.experts, tokens)
        return self.parameters - self.moe_layers * self.experts * (1 - hit) * self.expert

    @property
    def _matrices(self) -> int:
        return 3 if _FAMILIES[self.family].gated else 2

    @property
    def _attention(self) -> int:
        if self.kv_rank:
            head = self.nope_dim + self.rope_dim
            q = self.q_rank * (self.hidden + self.heads * head) if self.q_rank else self.hidden * self.heads * head
            kv = self.hidden * (self.kv_rank + self.rope_dim) + self.kv_rank * self.heads * (self.nope_dim + self.v_dim)
            return q + kv + self.heads * self.v_dim * self.hidden
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def _attention_vectors(self) -> int:
        kind = _FAMILIES[self.family]
        biases = (self.heads + 2 * self.kv_heads) * self.head_dim * kind.qkv_bias + self.hidden * kind.out_bias
        return biases + 2 * self.head_dim * kind.qk_norm + self.q_rank + self.kv_rank + self.heads * kind.sinks

    def _mlp(self, width: int) -> int:
        biases = (self._matrices - 1) * width + self.hidden if _FAMILIES[self.family].mlp_bias else 0
        return self._matrices * self.hidden * width + biases

    @property
    def _feed_forward(self) -> int:
        router = self.experts * (self.hidden + _FAMILIES[self.family].router_bias)
        sparse = router + (self.experts + self.experts_shared) * self.expert
        return (self.layers - self.moe_layers) * self._mlp(self.ffn) + self.moe_layers * sparse


def from_config(config: Mapping[str, Any], where: str = "config.json") -> Transformer:
    """The sizes from the fields of a ``config.json``.

    Raises:
        InputError: the family is not counted, or a size is missing or no whole number above zero.
    """
    config = config.get("text_config", config)
    family = str(config.get("model_type"))
    if family not in _FAMILIES:
        raise InputError(
            f"models of type {family!r} are not counted",
            where=f"{where}: model_type",
            fix=f"name one of {', '.join(_FAMILIES)}, or measure the model instead",
        )
    kind = _FAMILIES[family]

    def size(*names: str, default: int | None = None) -> int:
        value = next((config[name] for name in names if config.get(name) is not None), default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0 or (value == 0 and default != 0):
            raise InputError(
                f"{value!r} is not a size", where=f"{where}: {names[0]}", fix="give a whole number above zero"
            )
        return value

    hidden, layers, heads, vocab = (size(*_NAMES[name]) for name in ("hidden", "layers", "heads", "vocab"))
    experts = size("num_local_experts", "num_experts", "n_routed_experts", default=0)
    ffn = size("intermediate_size", "n_inner", default=hidden * size("expansion_ratio", default=4))
    dense_first = size("first_k_dense_replace", default=0)
    every = size("interleave_moe_layer_step", "decoder_sparse_step", default=1)
    kinds = config.get("layer_types") or ()
    local = sum(kind != "full_attention" for kind in kinds) if kinds else layers * kind.local // 4
    return Transformer(
        family=family,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=size("num_key_value_heads", default=heads),
        head_dim=size("head_dim", default=hidden // heads),
        ffn=size("intermediate_size_mlp", default=ffn),
        vocab=vocab,
        tied=bool(config.get("tie_word_embeddings", kind.tied)),
        positions=size("max_position_embeddings", "n_positions", "max_seq_len") if kind.learned_positions else 0,
        token_types=size("type_vocab_size", default=0),
        experts=experts,
        experts_used=size("num_experts_per_tok") if experts else 0,
        experts_shared=size("n_shared_experts", default=int(family == "llama4_text")) if experts else 0,
        expert_ffn=size("moe_intermediate_size", default=ffn) if experts else 0,
        moe_layers=(layers - dense_first) // every if experts else 0,
        q_rank=size("q_lora_rank", default=0),
        kv_rank=size("kv_lora_rank", default=0),
        rope_dim=size("qk_rope_head_dim", default=0),
        nope_dim=size("qk_nope_head_dim", default=0),
        v_dim=size("v_head_dim", default=0),
        window=size("attention_chunk_size", "sliding_window", default=0) if local else 0,
        local_layers=local,
    )


def state_bytes(parameters: float, *, shards: int, stage: int, accumulate: float = 2.0) -> float:
    """Bytes that weights, gradients and Adam's states take on one of ``shards`` devices in mixed precision.

    ``stage``: 0 copies everything to each, 1 shards the optimiser, 2 the gradients too, 3 the weights too (FSDP).
    ``accumulate``: bytes of one gradient, 2 or 4. The optimiser keeps 12: a 32-bit copy and two moments.
    """
    weights = 2.0 / (shards if stage >= 3 else 1)
    gradients = accumulate / (shards if stage >= 2 else 1)
    return parameters * (weights + gradients + 12.0 / (shards if stage >= 1 else 1))


def activation_bytes(
    model: Transformer,
    *,
    sequence: int,
    micro_batch: int,
    recompute: Recompute,
    tensor: int = 1,
    sequence_parallel: bool = False,
    flash: bool = True,
    layers: float | None = None,
) -> float:
    """Bytes that 16-bit activations take between forward and backward of one micro-batch, without the logits.

    The factor 34 of Korthikanti et al. belongs to a feed-forward part of two matrices, four times as wide as the
    model; here it is counted from the widths, so that a gated or a sparse one is right too.
    """
    token = sequence * micro_batch
    count = model.layers if layers is None else layers
    if recompute == "full":
        return count * 2.0 * token * model.hidden
    # Inputs of both halves, both norms and both dropout masks: ten bytes an element, not split by tensors alone.
    whole = 10.0 * model.hidden
    heads = model.heads * model.head_dim
    keys = 2 * model.kv_heads * model.head_dim
    split = 2.0 * (heads + keys) + 2.0 * heads  # what goes into the scores, and what comes out
    sparse = model.moe_layers / model.layers
    width = (1 - sparse) * model.ffn + sparse * (model.experts_used + model.experts_shared) * model.expert_ffn
    split += 2.0 * width * (3 if _FAMILIES[model.family].gated else 2)
    scores = 0.0 if flash or recompute == "selective" else 5.0 * model.heads * sequence
    shared = whole / tensor if sequence_parallel else whole
    kept = token * (shared + (split + scores) / tensor)
    return count * ((kept + 2.0 * token * model.hidden) / 2 if recompute == "half" else kept)


def logit_bytes(model: Transformer, *, tokens: int, tensor: int = 1, fused: bool = False) -> float:
    """Bytes of the output scores of a micro-batch, and of what the loss makes of them.

    Step by step these are the scores in 16 bits, and in 32 their copy, the logarithms of their shares and the gradient;
    ``fused``: the scores and their gradient in 16 bits, and nothing else is ever written.
    """
    return (4.0 if fused else 14.0) * tokens * model.vocab / tensor
