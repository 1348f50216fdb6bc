"""Train in a limited process, on governed rows, with honest baselines."""

import msgspec

from bedplate import ids
from bedplate.app import access, inputs
from bedplate.app.inputs import section
from bedplate.app.stage import Context, Evidence, Outcome, Stage
from bedplate.app.stages import data
from bedplate.bundle.environment import environment_digest
from bedplate.ids import Digest
from bedplate.records import Comparison, FeatureSet, Metric, ModelSignature, TrainResult

PRIMARY = {"recommender": "recall@20"}
"""The metric that one line about a model names first, by workload; the first one measured elsewhere."""


def _entry(context: Context) -> str:
    for declared in data.described(context):
        if declared.kind == "train":
            return f"pipeline:{declared.name}"
    return f"bedplate.train.{context.use_case.workload.kind}:train"


def _datasets(context: Context) -> tuple[str, ...]:
    return context.use_case.train.inputs or tuple(context.use_case.data)


def _code(context: Context) -> dict[str, str]:
    return {"recipe": _recipe_digest(), "pipeline.py": inputs.pipeline_digest(context.loaded)}


def _recipe_digest() -> Digest:
    """The digest of the recipes and of the code that serves what they make."""
    from pathlib import Path

    import bedplate.train as recipes

    folder = Path(recipes.__file__).parent
    sources = sorted((*folder.glob("*.py"), folder.parent / "serve" / "recommender.py"))
    return ids.digest_of([ids.digest_file(path) for path in sources])


def _train_inputs(context: Context) -> dict[str, str]:
    found = {
        "features": ids.digest_of(context.body("features", FeatureSet)),
        "train": section(context, "train"),
        "workload": section(context, "workload"),
        "sensitive columns": ids.digest_of(context.use_case.governance.sensitive),
        **_code(context),
    }
    results = data.ingested(context)
    return found | {f"table {name}": results[name].table.digest for name in _datasets(context)}


def _train(context: Context) -> Outcome:
    from bedplate.compute import sandbox

    use_case = context.use_case
    results = data.ingested(context)
    source = access.reader(context.system, use_case)
    tables = {name: source.read(results[name].table) for name in _datasets(context)}
    moments, holdout = data.cuts(context)
    read = [results[name].table for name in _datasets(context)]
    if moments:
        tables |= {name: table for name, (_, table) in data.feature_tables(context, moments).items()}
        read += context.body("features", FeatureSet).views.values()
    parameters = {
        "workload": msgspec.to_builtins(use_case.workload),
        "holdout": use_case.train.holdout,
        "sensitive": list(use_case.governance.sensitive),
        "as_of": [moment.isoformat() for moment in moments],
        "holdout_days": holdout.total_seconds() / 86_400,
        "threads": use_case.train.resources.cpu,
        **use_case.train.parameters,
    }
    reply = sandbox.call(
        _entry(context),
        pipeline=inputs.pipeline_path(context.loaded),
        tables=tables,
        parameters=parameters,
        resources=use_case.train.resources,
        seed=use_case.train.seed,
        on_progress=context.progress,
        require_isolation=use_case.risk.level == "high",
    )
    artifacts = {name: context.system.blobs.put(content) for name, content in sorted(reply.files.items())}
    made = reply.result
    body = TrainResult(
        run_id=f"run_{ids.digest_of(artifacts)[7:33]}",
        workload=use_case.workload.kind,
        artifacts=artifacts,
        signature=msgspec.convert(made["signature"], ModelSignature),
        parameters=made.get("parameters", {}),
        metrics=msgspec.convert(made["metrics"], tuple[Metric, ...]),
        comparisons=msgspec.convert(made["comparisons"], tuple[Comparison, ...]),
        split={**made.get("split", {}), "checks": made.get("checks", {}), "importance": made.get("importance", {})},
        inputs=tuple(read),
        code_digest=ids.digest_of(_code(context)),
        environment_digest=environment_digest(),
        seed=use_case.train.seed,
        seconds=round(reply.seconds, 1),
        isolated=reply.isolated,
    )
    parents = (context.output("features").digest, context.output("ingest").digest, context.output("plan").digest)
    return Outcome(evidence=(Evidence(kind="training", body=body, parents=parents),), summary=headline(body))


def primary(training: TrainResult) -> str:
    """The metric that is named first."""
    measured = [metric.metric for metric in training.metrics]
    wanted = PRIMARY.get(training.workload, "")
    return wanted if wanted in measured else measured[0]


def headline(training: TrainResult) -> str:
    """The model against its best baseline, in one line."""
    name = primary(training)
    on_all = {m.model: m.estimate for m in training.metrics if m.metric == name and m.slice == "all"}
    mine = on_all["candidate"]
    closest = min(
        (c for c in training.comparisons if c.metric == name and c.slice == "all"),
        key=lambda comparison: comparison.difference.value,
        default=None,
    )
    text = f"{name} {mine.value:.3f} [{mine.low:.3f}, {mine.high:.3f}]"
    if closest is None:
        return text
    gain = closest.difference
    return f"{text}, {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] against {closest.baseline}"


TRAIN = Stage(
    name="train",
    title="Train, with baselines and intervals",
    needs=("ingest", "features"),
    inputs=_train_inputs,
    run=_train,
    summarise=lambda context: headline(context.body("train", TrainResult)),
)
