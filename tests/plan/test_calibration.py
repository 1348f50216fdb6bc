"""Constants and anchors: what measurements teach, what distance does, and what the shipped facts say."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.plan import accelerators, calibration, counts, generation, images, layouts, training
from bedplate.plan.calibration import Constant, Level, Measured, Model
from tests.laws import examples

KINDS = {"llm_training": training, "llm_serving": generation, "images": images}


class Job(NamedTuple):
    work: float
    machine: str


TOY: Model[Job] = Model(
    lambda c, job: job.work / c("rate", job.machine) + c("start"),
    {"rate": Constant(2.0, 0.5, 0.3), "start": Constant(1.0, 0.5)},
    lambda job: {"rate": [job.machine]},
    {"source": Level(0.05), "near": Level(0.05, near=True)},
    0.03,
    apart=("near", "source"),
    like="source",
)


def job(work: float, machine: str, source: str, seconds: float) -> Measured[Job]:
    return Measured(Job(work, machine), seconds, {"source": source, "near": source}, (math.log(work),))


def made(factor: dict[str, float] | None = None) -> list[Measured[Job]]:
    """Two machines, one twice as fast; start takes 0.5; a source may err by a factor of its own."""
    noise = np.random.default_rng(7).normal(0, 0.02, 60)
    found = []
    for i in range(60):
        machine, source, work = ("slow", "fast")[i % 2], f"s{i % 3}", 1.3 ** (i % 20)
        seconds = (work / (3.0 if machine == "slow" else 6.0) + 0.5) * math.exp(noise[i])
        found.append(job(work, machine, source, seconds * (factor or {}).get(source, 1.0)))
    return found


def test_constants_come_back_from_measurements() -> None:
    known = calibration.calibrate(TOY, made())
    rate = calibration.Constants(known.values)
    assert rate("rate", "slow") == pytest.approx(3.0, rel=0.08)
    assert rate("rate", "fast") == pytest.approx(6.0, rel=0.08)
    assert rate("start") == pytest.approx(0.5, rel=0.1)
    assert calibration.calibrate(TOY, made()).values == known.values


def test_a_source_that_errs_is_an_anchor_for_itself_alone() -> None:
    rows = made({"s1": 1.3})
    known = calibration.calibrate(TOY, rows)
    truth = 10 / 3 + 0.5
    own = known.estimate(Job(10, "slow"), {"source": "s1", "near": "s1"}, (math.log(10),))
    new = known.estimate(Job(10, "slow"), {"source": "new", "near": "new"}, (math.log(10),))
    assert own.seconds.value == pytest.approx(1.3 * truth, rel=0.06)
    assert own.seconds.method == "anchored"
    assert new.seconds.method == "model"
    assert own.known > 0.5
    assert new.known == pytest.approx(0.0, abs=1e-9)
    assert own.seconds.high / own.seconds.low < new.seconds.high / new.seconds.low
    assert new.seconds.low < truth < new.seconds.high


FEW = calibration.calibrate(TOY, made()[:12])


@examples(8)
@given(st.floats(0.0, 6.0), st.floats(0.1, 6.0))
def test_the_interval_widens_with_the_distance_from_measurements(near: float, more: float) -> None:
    groups = {"source": "s0", "near": "s0"}
    known = FEW
    top = max(row.at[0] for row in known.anchors)

    def width(distance: float) -> float:
        found = known.estimate(Job(math.exp(top + distance), "slow"), groups, (top + distance,)).seconds
        assert found.low <= found.value <= found.high
        return found.high / found.low

    assert width(near) <= width(near + more) * (1 + 1e-9)


def test_hardware_that_was_never_measured_widens_the_interval() -> None:
    known = calibration.calibrate(TOY, made())

    def width(machine: str) -> float:
        found = known.estimate(Job(100, machine), {"source": "new", "near": "new"}, (math.log(100),)).seconds
        return found.high / found.low

    assert width("slow") < width("never seen") < width("slow") * 3


def test_intervals_hold_nine_of_ten_of_what_was_left_out() -> None:
    """Ten sources that err by 10 % each: of each one, left out, the others' interval holds about nine in ten."""
    errs = np.random.default_rng(3).normal(0, 0.1, 10)
    noise = np.random.default_rng(4).normal(0, 0.02, 120)
    rows = []
    for i in range(120):
        source, machine, work = f"s{i % 10}", ("slow", "fast")[i % 2], 1.3 ** (i % 19)
        seconds = (work / (3.0 if machine == "slow" else 6.0) + 0.5) * math.exp(errs[i % 10] + noise[i])
        rows.append(job(work, machine, source, seconds))
    inside = []
    for source in sorted({row.groups["source"] for row in rows}):
        known = calibration.calibrate(TOY, [row for row in rows if row.groups["source"] != source])
        for row in rows:
            if row.groups["source"] == source:
                found = known.estimate(row.workload, row.groups, row.at).seconds
                inside.append(found.low <= row.seconds <= found.high)
    assert 0.75 < np.mean(inside) <= 1.0


def test_errors_of_hardware_that_one_source_alone_has_are_held_to_what_is_told_of_unknown_hardware() -> None:
    """Twelve sources, each with a machine of its own: leaving one out leaves its machine out, and an estimate knows."""
    does = np.random.default_rng(5).normal(0, 0.3, 12)
    noise = np.random.default_rng(6).normal(0, 0.02, 96)
    rows = [
        job(1.3 ** (8 + i % 8), f"m{i // 8}", f"s{i // 8}", 1.3 ** (8 + i % 8) / 3 * math.exp(does[i // 8] + noise[i]))
        for i in range(96)
    ]
    assert 1.0 < calibration.calibrate(TOY, rows).tails[""][1] < 2.5


def test_few_sources_of_one_kind_are_held_near_what_all_sources_err() -> None:
    """Two sources that err by much more than is told, where others err as told: their own point, but less of it."""
    own = np.array([1.8, 1.8, 1.8, 1.8])
    alone = calibration._point(own, ["a", "a", "b", "b"], 1.8**2)
    among = calibration._point(own, ["a", "a", "b", "b"], 1.0)
    assert alone == pytest.approx(1.645 * 1.8, rel=1e-3)
    assert 1.645 < among < alone
    many = [f"s{i}" for i in range(20)]
    assert calibration._point(np.linspace(0.1, 2.0, 20), many, 1.0) == calibration._point(
        np.linspace(0.1, 2.0, 20), many, 4.0
    ), "where there are enough names, they alone decide"


def test_an_interval_is_held_to_the_farthest_group_that_nothing_is_known_of_and_else_to_the_nearest() -> None:
    known = FEW._replace(tails={"": (1.0, 3.0)})

    def width(near: str, source: str) -> float:
        found = known.estimate(Job(10, "slow"), {"source": source, "near": near}, (math.log(10),)).seconds
        plain = FEW._replace(tails={"": (1.0, 1.0)}).estimate(
            Job(10, "slow"), {"source": source, "near": near}, (math.log(10),)
        )
        return math.log(found.high / found.value) / math.log(plain.seconds.high / plain.seconds.value)

    assert width("s0", "s0") == pytest.approx(1.0)
    assert width("new", "s0") == pytest.approx(1.0)
    assert width("new", "new") == pytest.approx(3.0)


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(InputError, match="no measurement"):
        calibration.calibrate(TOY, [])


@pytest.mark.parametrize("kind", KINDS)
def test_each_measurement_says_where_it_is_from(kind: str) -> None:
    for row in accelerators.rows(kind):
        assert row["source"].strip()
        assert row["reference"].strip()
        assert row["date"][:2] == "20"
        assert row["quality"] in ("exact", "unverified")


@pytest.mark.parametrize("kind", KINDS)
def test_the_constants_that_ship_belong_to_the_model_and_its_measurements(kind: str) -> None:
    module = KINDS[kind]
    exact = [row for quality, row in module.measured() if quality == "exact"]
    wanted = {*module.MODEL.constants, "noise", *(f"spread of {name}" for name in module.MODEL.levels)}
    for row in exact:
        wanted |= {f"{name}@{part}" for name, parts in module.MODEL.names(row.workload).items() for part in parts}
    shipped = [row for row in accelerators.rows("efficiencies") if row["kind"] == kind]
    likes = ["", *{row.groups[module.MODEL.like] for row in exact}]
    wanted |= {f"tail {name} {like}".strip() for name in module.MODEL.apart for like in likes}
    wanted |= {f"scale of {like}" for like in likes if like}
    assert {row["constant"] for row in shipped} == wanted
    assert {row["source"] for row in shipped} == {f"calibration of the {len(exact)} exact rows of {kind}.csv"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_measured_is_told_again_within_a_few_percent(kind: str) -> None:
    """Not accuracy (``benchmarks/planner.py`` leaves out what it asks): only that anchors pull."""
    known = KINDS[kind].calibrated()
    found = [known.estimate(row.workload, row.groups, row.at) for row in known.anchors]
    errors = [abs(f.seconds.value / row.seconds - 1) for f, row in zip(found, known.anchors, strict=True)]
    assert np.median(errors) < 0.06
    inside = [f.seconds.low <= row.seconds <= f.seconds.high for f, row in zip(found, known.anchors, strict=True)]
    assert np.mean(inside) > 0.9


def step(**changes: object) -> training.Training:
    sizes = {"devices": 64, "precision": "bf16", "sequence": 8192, "batch": 128, "sharding": 3} | changes
    model = accelerators.models()["llama-3-8b"]
    return training.Training(model=model, accelerator=accelerators.accelerator("h100"), **sizes)  # type: ignore[arg-type]


def test_a_step_of_training() -> None:
    """Llama-3 8B on 64 H100: published runs of its kind reach 35 to 55 % of the peak."""
    found = training.step(step()).seconds
    share = 6 * 8.03e9 * 8192 * 128 / 64 / 989e12 / found.value
    assert 0.3 < share < 0.6
    assert found.level == 0.9
    assert found.low < found.value < found.high
    assert training.step(step(recompute="full")).seconds.value > found.value
    assert training.step(step(batch=256)).seconds.value == pytest.approx(2 * found.value, rel=0.1)


def test_attention_alone_suffers_from_old_kernels_and_from_a_ring() -> None:
    values = calibration.Constants(training.calibrated().values)

    def longer(sequence: int, **changes: int) -> float:
        plain = step(devices=8, batch=8, sequence=sequence)
        return training.MODEL.seconds(values, step(devices=8, batch=8, sequence=sequence, **changes)) / (
            training.MODEL.seconds(values, plain)
        )

    old = 1 / values("dated")
    assert 1 < longer(2048, dated=1) < 1.1 < longer(131_072, dated=1) < old
    assert longer(131_072, dated=1) < longer(131_072, dated=2) < old**2
    # Of four that share a sequence each computes as much as before: only keys and values come round.
    shared = step(devices=8, batch=2, sequence=131_072, context=4)
    alone = step(devices=8, batch=8, sequence=131_072)
    each = [training.MODEL.seconds(values, t) / (t.batch * t.sequence) for t in (alone, shared)]
    assert 1.05 < each[1] / each[0] < 1 + 2 * values("ring")


def test_memory_of_training_decides_what_fits() -> None:
    """Held to peaks that were published, and to what ran; 70B without sharding on a card of 80 GB does not fit."""
    over, ran = [], []
    for row, (_, step) in zip(accelerators.rows("llm_training"), training.measured(), strict=True):
        needed = training.memory_bytes(step.workload) / 2**30
        if row["memory_gib"]:
            over.append(needed / float(row["memory_gib"]))
        if row["recompute"]:
            ran.append(needed / step.workload.accelerator.memory_gib)
    assert len(over) >= 10
    assert 1.0 < np.median(over) < 1.15
    assert min(over) > 0.95
    assert max(ran) < 1.05
    assert np.median(ran) < 0.95
    big = accelerators.models()["llama-3-70b"]
    whole = training.Training(
        model=big, accelerator=accelerators.accelerator("h100"), devices=64, precision="bf16", sequence=8192, batch=64,
        sharding=0,
    )  # fmt: skip
    assert training.memory_bytes(whole) > 80 * 2**30


@pytest.mark.parametrize(
    ("layout", "fits"),
    [
        ({"devices": 8, "batch": 8, "sharding": 0}, False),  # out of memory, in DeepSpeed's tutorial of ZeRO
        ({"devices": 8, "batch": 8, "sharding": 1}, True),  # the same, with the optimiser's states split
    ],
)
def test_memory_of_gpt2_on_cards_of_32_gb_is_as_published(layout: dict[str, int], fits: bool) -> None:
    config = {"model_type": "gpt2", "n_layer": 48, "n_embd": 1600, "n_head": 16, "n_positions": 1024}
    model = counts.from_config(config | {"vocab_size": 50257})
    device = accelerators.accelerator("v100_32gb")
    early = training.Training(model=model, accelerator=device, precision="bf16", sequence=1024, **layout)
    assert (training.memory_bytes(early, flash=False) < layouts.ROOM * device.memory_gib * 2**30) is fits


def test_a_loss_that_keeps_no_copies_takes_a_fraction_of_the_memory() -> None:
    copies = training.memory_bytes(step()) - training.memory_bytes(step(fused_loss=True))
    assert copies == pytest.approx(10 * 8192 * 128256)


def test_a_layout_must_divide_the_devices() -> None:
    with pytest.raises(InputError, match="not a multiple"):
        step(tensor=7)


def test_checkpoints_at_the_best_interval() -> None:
    every, share = training.goodput(checkpoint=60, restart=600, between_failures=3 * 3600)
    assert every == pytest.approx(math.sqrt(2 * 60 * 10800))
    assert 0.8 < share < 0.95
    assert training.goodput(checkpoint=60, restart=600, between_failures=600)[1] == 0.0


def serve(**changes: object) -> generation.Generation:
    sizes = {"devices": 1, "precision": "fp8", "tokens_in": 1000, "tokens_out": 500} | changes
    model = accelerators.models()["llama-3-8b"]
    return generation.Generation(model=model, accelerator=accelerators.accelerator("h100"), **sizes)  # type: ignore[arg-type]


def test_serving_a_language_model() -> None:
    found = generation.token(serve(), "llama-3-8b")
    assert 5_000 < 1 / found.seconds.value < 40_000
    yours = generation.token(serve())
    assert yours.known == pytest.approx(0.0, abs=1e-9), "it shares neither model nor publication with any anchor"
    assert found.known > 0.05, "what a model does was measured; what your engine does was not, and that is most of it"
    assert found.seconds.high / found.seconds.low < yours.seconds.high / yours.seconds.low
    assert generation.token(serve(tokens_in=8000)).seconds.value > generation.token(serve()).seconds.value
    assert generation.token(serve(devices=2)).seconds.value < generation.token(serve()).seconds.value


def sparse(width: int, **changes: object) -> generation.Generation:
    sizes = {"devices": width, "tensor": width, "precision": "fp4", "tokens_in": 128, "tokens_out": 2048} | changes
    model = accelerators.models()["qwen3-30b-a3b"]
    device = accelerators.accelerator("rtx_pro_6000")
    return generation.Generation(model=model, accelerator=device, **sizes)  # type: ignore[arg-type]


def test_devices_that_share_experts_keep_attention_whole_and_cache_their_own_requests() -> None:
    """Four heads of keys on eight devices: were heads split, each would be kept twice."""
    four, eight = (generation.cached_tokens(sparse(width)) for width in (4, 8))
    assert eight > 1.5 * four
    held = generation.held_bytes(sparse(8), sparse(8).model.parameters)
    assert held > generation.weight_bytes(sparse(8), sparse(8).model.parameters) / 8


def test_tokens_travel_to_experts_at_the_bits_of_the_weights_and_back_at_sixteen() -> None:
    slow = calibration.Constants({**generation.calibrated().values, "dispatch": 1e-6})
    eight, sixteen = (generation.MODEL.seconds(slow, sparse(4, precision=p, concurrency=64)) for p in ("fp8", "bf16"))
    assert eight / sixteen == pytest.approx((1 + 2) / 4, rel=0.01)


def test_a_cache_of_more_bits_than_the_weights_takes_room_and_time() -> None:
    """Engines differ in what they keep keys and values at; weights at 8 bits do not say it."""
    narrow, wide = serve(concurrency=100), serve(concurrency=100, cache="bf16")
    assert generation.cached_tokens(narrow) == pytest.approx(2 * generation.cached_tokens(wide))
    assert generation.token(wide).seconds.value > generation.token(narrow).seconds.value
    assert serve(cache="fp8").cached_bytes == serve().cached_bytes


def test_each_device_that_shares_experts_computes_prompts_of_its_own() -> None:
    """Were nothing sent between them, each would read fewer weights for as many prompts."""
    values = calibration.Constants({**generation.calibrated().values, "dispatch": 1e9, "latency": 1e-12})
    one, four = (
        generation.MODEL.seconds(values, sparse(width, phase="prefill", tokens_in=4096, tokens_out=0))
        for width in (1, 4)
    )
    assert one / 5 < four < one / 4


def test_few_requests_fill_no_batch_and_the_last_wave_runs_half_empty() -> None:
    values = calibration.Constants(generation.calibrated().values)
    endless = generation.MODEL.seconds(values, sparse(1))
    batch = generation.steps(values, sparse(1)).batch
    told = {
        waves: generation.MODEL.seconds(values, sparse(1, requests=round(waves * batch))) for waves in (0.5, 1.5, 9)
    }
    assert told[0.5] > told[1.5] > told[9] > 0.99 * endless
    assert told[9] < 1.05 * endless


def test_half_as_many_bits_take_half_the_power_and_little_power_for_each_operation_slows_a_card() -> None:
    h100, h20, b200 = (accelerators.accelerator(name) for name in ("h100", "h20", "b200"))
    assert h100.load("fp8") == pytest.approx(h100.load("bf16"), rel=0.01)
    assert h20.load("bf16") < h100.load("bf16") < b200.load("bf16")
    with pytest.raises(InputError, match="no known rate at fp4"):
        h100.load("fp4")


def test_prompts_ride_along_with_answers_and_a_pipeline_waits_for_its_host() -> None:
    values = calibration.Constants(generation.calibrated().values)
    one = generation.steps(values, serve(concurrency=1))
    alone = generation.MODEL.seconds(values, serve(phase="prefill")) * 1000
    assert one.prefill < 1.5 * alone  # weights are read for the answer anyway
    slow = calibration.Constants({**generation.calibrated().values, "waiting": 1e-4})
    for pipeline, waits in ((1, False), (4, True)):
        g = serve(devices=4, tensor=4 // pipeline, pipeline=pipeline, concurrency=256)
        assert (generation.MODEL.seconds(slow, g) > 1.5 * generation.MODEL.seconds(values, g)) == waits


def test_answers_that_are_followed_side_by_side_share_their_prompt_and_cost_a_token_each() -> None:
    values = calibration.Constants(generation.calibrated().values)
    one, four = (generation.MODEL.seconds(values, serve(concurrency=64, beams=beams)) for beams in (1, 4))
    assert 1.5 * one < four < 4 * one  # weights are read once for all of them
    room, less = (generation.steps(values, serve(tokens_out=4000, beams=beams)).batch for beams in (1, 4))
    assert room / 4 < less < room
    prompts = [generation.MODEL.seconds(values, serve(phase="prefill", beams=beams)) for beams in (1, 4)]
    assert prompts[0] == prompts[1]


def test_what_does_not_fit_or_is_not_known_gets_no_number() -> None:
    big = accelerators.models()["llama-3.1-405b"]
    one = generation.Generation(
        model=big, accelerator=accelerators.accelerator("h100"), devices=1, precision="fp8", tokens_in=100, tokens_out=9
    )
    assert generation.cached_tokens(one) < 0
    with pytest.raises(InputError, match="do not fit"):
        generation.token(one)
    with pytest.raises(InputError, match="no known rate at fp4"):
        generation.token(serve(precision="fp4"))
    with pytest.raises(InputError, match="not counted"):
        generation.token(serve(precision="int3"))
    with pytest.raises(InputError, match="nothing is known"):
        accelerators.accelerator("h900")
    with pytest.raises(InputError, match="no known rate at fp8"):
        training.step(
            training.Training(
                model=accelerators.models()["llama-3-8b"], accelerator=accelerators.accelerator("a100_80gb"), devices=8,
                precision="fp8", sequence=2048, batch=8,
            )
        )  # fmt: skip


def test_a_batch_of_images() -> None:
    sizes = {"parameters": 25.6e6, "macs": 4.1e9, "activations": 11.1e6, "precision": "fp16"}
    one = images.Images(accelerator=accelerators.accelerator("t4"), batch=1, **sizes)  # type: ignore[arg-type]
    many = images.Images(accelerator=accelerators.accelerator("t4"), batch=64, **sizes)  # type: ignore[arg-type]
    assert images.batch(one).seconds.value < images.batch(many).seconds.value < 64 * images.batch(one).seconds.value


@given(st.sampled_from(sorted(accelerators.models())), st.integers(1, 8), st.integers(1, 8))
def test_more_shards_never_need_more_memory(name: str, few: int, more: int) -> None:
    model = accelerators.models()[name]
    low, high = sorted((few, more))
    for stage in range(4):
        less = counts.state_bytes(model.parameters, shards=high, stage=stage)
        assert less <= counts.state_bytes(model.parameters, shards=low, stage=stage)
