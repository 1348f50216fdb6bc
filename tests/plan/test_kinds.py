"""Each kind of workload from a file to a plan, and the laws that hold for all of them."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.app import planning
from bedplate.errors import InputError, UseCaseError
from bedplate.ids import Digest, canonical, digest_bytes
from bedplate.plan import catalogue, choose, explain, requirements
from bedplate.plan.types import BatchTime, LanguageTrainingSize, ModelProbe, Plan, Requirements
from bedplate.usecase import load
from tests.compute import models
from tests.laws import examples
from tests.plan.conftest import PROBE, SETTINGS, changed
from tests.usecase.conftest import write

CATALOGUE = catalogue.load()
EXAMPLES = Path(__file__).parents[2] / "examples"
HEAD = """
bedplate: 1
name: some-case
owner: { team: a, accountable: b }
objective: { statement: c, kpi: { name: d, unit: e, direction: up, baseline: 0, target: 1 } }
risk: { level: minimal }
governance: { purpose: f }
"""
SERVES = """
requirements: { latency: { p99: 2 s }, throughput: { peak: 20/s }, residency: [eu] }
serve: { replicas: { max: 99 } }
"""
ENDS = "requirements: { time: 10 d, residency: [eu] }\n"
KINDS = {
    "image_training": ("{ model: resnet50, images: 1000000 images, epochs: 3 }", ENDS),
    "image_inference": ("{ model: resnet50 }", SERVES),
    "embedding": ("{ model: llama-3-8b, tokens_in: 200 tokens }", SERVES),
    "llm_training": ("{ model: llama-3-8b, tokens: 2000000000, sequence: 4096, batch: 128 }", ENDS),
    "llm_inference": ("{ model: llama-3-8b, tokens_in: 300, tokens_out: 20, precision: [fp8, bf16] }", SERVES),
    "batch_scoring": ("{ rows: 2000000000 rows }", ENDS),
    "data_pipeline": ("{ bytes: 10 TB, record: 120 kB, cpu: 8 ms }", ENDS),
}


def needs_of(folder: Path, kind: str, workload: str, rest: str) -> Requirements:
    text = f"{HEAD}workload: {workload.replace('{', '{ kind: ' + kind + ',', 1)}\n{rest}"
    (folder / "usecase.yaml").write_text(text, encoding="utf-8")
    loaded = load(folder)
    return requirements.derive(loaded, planning.facts(loaded, SETTINGS))


@pytest.fixture(scope="module")
def needs_by_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Requirements]:
    return {kind: needs_of(tmp_path_factory.mktemp(kind), kind, *given) for kind, given in KINDS.items()}


def total(plan: Plan) -> float:
    assert plan.chosen is not None, plan.reason
    assert plan.chosen.cost is not None
    return plan.chosen.cost.total.value


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_planned_with_figures_intervals_and_chances(
    kind: str, needs_by_kind: dict[str, Requirements]
) -> None:
    plan = choose.plan(needs_by_kind[kind], CATALOGUE, PROBE)
    assert plan == choose.plan(needs_by_kind[kind], CATALOGUE, PROBE)
    assert msgspec.json.decode(canonical(plan), type=Plan) == plan
    assert plan.chosen is not None, plan.reason
    assert len(plan.runners_up) == 2
    accelerated = kind not in ("batch_scoring", "data_pipeline")
    for option in plan.options:
        assert bool(option.lost) != (option == plan.chosen)
        if option.cost is None:
            continue
        assert (option.layout is not None) == accelerated
        assert option.carbon is not None
        assert any(figure.limit is not None for figure in option.predicted)
        for figure in option.predicted:
            e = figure.estimate
            assert 0 < e.low <= e.value <= e.high
            assert figure.limit is None or 0 <= (figure.chance or 0) <= 1
            if option.meets and figure.limit is not None:
                assert e.high <= figure.limit
                assert (figure.chance or 0) >= 0.94
        parts = (option.cost.compute, option.cost.idle, option.cost.storage, option.cost.logging, option.cost.egress)
        assert sum(part.value for part in parts) + option.cost.retraining.value == pytest.approx(
            option.cost.total.value
        )
    words = " ".join(explain.words(plan))
    assert plan.chosen.instance in words


def test_processors_answer_with_a_model_that_was_measured_on_one(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(models.perceptron(16, 32, 4))
    needs = needs_of(tmp_path, "image_inference", "{ model: net.onnx }", SERVES)

    def planned(digest: Digest, seconds: float) -> Plan:
        known = ModelProbe(name="net.onnx", digest=digest, times=(BatchTime(rows=1, seconds=seconds),))
        return choose.plan(needs, CATALOGUE, msgspec.structs.replace(PROBE, models=(known,)))

    other = planned(digest_bytes(b"another model"), 7e-3)
    assert all(option.layout for option in other.options if option.cost)
    assert "`bedplate probe --model FILE`" in " ".join(explain.words(other))
    quick, slow = (planned(digest_bytes(path.read_bytes()), seconds) for seconds in (7e-3, 3.0))
    assert total(quick) < total(other)
    assert quick.chosen is not None
    assert quick.chosen.layout is None
    assert quick.here is not None
    assert quick.here.service is not None
    assert quick.here.service.low < 7e-3 < quick.here.service.value < 8e-3
    words = " ".join(explain.words(quick))
    assert "net.onnx itself" in words
    assert "bedplate probe" not in words
    assert slow.here is not None
    assert "one request alone may take" in slow.here.lost
    assert slow.chosen is not None
    assert slow.chosen.layout is not None


@pytest.mark.parametrize(
    ("kind", "workload"),
    [
        ("tabular", "{ target: y, task: regression, model: net.onnx }"),
        ("recommender", "{ catalogue: 92000, users: 2500, model: net.onnx }"),
        ("embedding", "{ model: net.onnx, tokens_in: 200 tokens }"),
    ],
)
def test_the_very_file_that_answers_is_planned_by_its_measurement(kind: str, workload: str, tmp_path: Path) -> None:
    """On this machine nothing is between them; unmeasured, processors get no number, and the plan says why."""
    path = tmp_path / "net.onnx"
    path.write_bytes(models.perceptron(16, 32, 4))
    (tmp_path / "config.json").write_text((EXAMPLES / "llm-chat" / "config.json").read_text())
    if kind == "embedding":
        needs = needs_of(tmp_path, kind, workload, SERVES)
    else:
        write(tmp_path)
        file = tmp_path / "usecase.yaml"
        lines = [line for line in file.read_text().splitlines() if not line.startswith("workload")]
        file.write_text("\n".join([*lines, f"workload: {workload.replace('{', '{ kind: ' + kind + ',', 1)}"]))
        loaded = load(tmp_path)
        needs = requirements.derive(loaded, planning.facts(loaded, SETTINGS))
    measured = ModelProbe(
        name="net.onnx", digest=digest_bytes(path.read_bytes()), times=(BatchTime(rows=1, seconds=7e-3),)
    )
    here = choose.plan(needs, CATALOGUE, msgspec.structs.replace(PROBE, models=(measured,))).here
    assert here is not None
    assert here.service is not None
    assert here.service.low < 7e-3 < here.service.value < 8e-3
    assert {figure.known for figure in here.predicted} == {1.0}
    unmeasured = choose.plan(needs, CATALOGUE, PROBE)
    assert unmeasured.here is None
    assert "`bedplate probe --model FILE`" in " ".join(unmeasured.cautions)
    assert bool(unmeasured.options) is (kind == "embedding")
    assert ("in the way" in " ".join(explain.words(unmeasured))) is bool(unmeasured.in_the_way)


@pytest.mark.parametrize("kind", KINDS)
def test_residency_holds_and_the_price_of_money_changes_nothing(
    kind: str, needs_by_kind: dict[str, Requirements]
) -> None:
    needs = needs_by_kind[kind]
    own = {i.instance for i in CATALOGUE.instances if i.provider == "aws"}
    plan = choose.plan(needs, CATALOGUE, PROBE)
    allowed = {i.region for i in CATALOGUE.instances if i.residency == "eu"} | {"here"}
    assert {option.region for option in plan.options} <= allowed
    alone = only("aws", 1)
    doubled = only("aws", 2)
    one, two = choose.plan(needs, alone, PROBE).chosen, choose.plan(needs, doubled, PROBE).chosen
    assert one is not None
    assert two is not None
    assert (one.instance, one.region, one.market, one.machines) == (two.instance, two.region, two.market, two.machines)
    assert one.instance in own


@pytest.mark.parametrize("kind", ["llm_inference", "batch_scoring"])
def test_what_a_requirement_costs_is_what_a_plan_without_it_saves(
    kind: str, needs_by_kind: dict[str, Requirements]
) -> None:
    needs = needs_by_kind[kind]
    plan = choose.plan(needs, CATALOGUE, PROBE)
    saved = {constraint.name: constraint.saved for constraint in plan.constraints}
    anywhere = choose.plan(msgspec.structs.replace(needs, residency=()), CATALOGUE, PROBE)
    assert total(plan) - total(anywhere) == pytest.approx(saved["residency: anywhere"])
    name, let_go = ("p99", "latency: ten times the p99")
    if kind == "batch_scoring":
        name, let_go = ("time of a run", "time: ten times as long")
    slow = choose.plan(changed(needs, name, needs.value(name) * 10), CATALOGUE, PROBE)
    assert max(0.0, total(plan) - total(slow)) == pytest.approx(saved[let_go])


def only(provider: str, factor: float) -> catalogue.Catalogue:
    """The catalogue of one provider, all that it charges multiplied."""
    instances = tuple(
        msgspec.structs.replace(
            i, price_hour=i.price_hour * factor, spot_hour=i.spot_hour * factor if i.spot_hour else None
        )
        for i in CATALOGUE.instances
        if i.provider == provider
    )
    charged = dict(CATALOGUE.services[provider])
    for name in ("object_storage", "egress"):
        f = charged[name]
        charged[name] = msgspec.structs.replace(f, value=f.value * factor, low=f.low * factor, high=f.high * factor)
    dear = {
        name: msgspec.structs.replace(f, value=f.value * 1e4, high=f.high * 1e4) if name.endswith("_month") else f
        for name, f in CATALOGUE.services["here"].items()
    }
    return msgspec.structs.replace(CATALOGUE, instances=instances, services={provider: charged, "here": dear})


@examples(1)
@given(share=st.floats(0.3, 0.95))
@pytest.mark.parametrize("kind", ["llm_inference", "image_inference", "llm_training", "data_pipeline"])
def test_tighter_limits_are_never_cheaper(kind: str, needs_by_kind: dict[str, Requirements], share: float) -> None:
    needs = needs_by_kind[kind]
    name = "p99" if any(item.name == "p99" for item in needs.items) else "time of a run"
    tight = choose.plan(changed(needs, name, needs.value(name) * share), CATALOGUE, PROBE)
    if tight.chosen is not None:
        assert total(tight) >= total(choose.plan(needs, CATALOGUE, PROBE)) - 1e-9


@pytest.mark.parametrize("name", ["llm-pretraining", "llm-chat", "chest-xray"])
def test_the_examples_are_planned_within_what_they_ask_for(name: str) -> None:
    loaded = load(EXAMPLES / name)
    plan = planning.derive(loaded, PROBE, SETTINGS)[1]
    assert plan.chosen is not None
    assert plan.breach == "none"
    assert not any("none" in figure.name for figure in plan.chosen.predicted)
    if isinstance(plan.requirements.size, LanguageTrainingSize):
        assert plan.requirements.value("parameters") == pytest.approx(6.2e9, rel=0.01)


def test_a_file_that_mixes_kinds_is_refused(tmp_path: Path) -> None:
    for workload, rest, says in (
        ("{ model: resnet50 }", ENDS, "needs 'latency'"),
        ("{ model: resnet50, tokens: 5 }", SERVES, "no meaning"),
    ):
        with pytest.raises(UseCaseError, match=says):
            needs_of(tmp_path, "image_inference", workload, rest)
    with pytest.raises(UseCaseError, match="needs 'images'"):
        needs_of(tmp_path, "image_training", "{ model: resnet50 }", ENDS)
    with pytest.raises(UseCaseError, match="has no meaning"):
        needs_of(tmp_path, "batch_scoring", "{ rows: 5 rows }", ENDS.replace("time", "latency: {p99: 1 s}, time"))
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        needs_of(tmp_path, "image_inference", "{ model: resnet5O }", SERVES)
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="no ONNX graph"):
        needs_of(tmp_path, "image_inference", "{ model: broken.onnx }", SERVES)
    with pytest.raises(InputError, match="counted from another model"):
        needs_of(tmp_path, "embedding", "{ model: resnet50, tokens_in: 5 }", SERVES)
