"""Train in a limited process, on governed rows, with honest baselines."""

from bedplate import clock, ids
from bedplate.app import access, actuals, declarations, inputs
from bedplate.app.inputs import section
from bedplate.app.stage import Context, Evidence, Outcome, Stage
from bedplate.app.stages import data
from bedplate.errors import GateError, InputError, UserCodeError
from bedplate.ids import Digest
from bedplate.plan.types import Plan
from bedplate.records import Fact, FeatureSet, TrainResult
from bedplate.store import Transaction
from bedplate.tracking import SystemMetrics, code_of, of_training, save
from bedplate.tracking.actors import Actor
from bedplate.train import run

PRIMARY = {"recommender": "recall@20"}
"""The metric that one line about a model names first, by workload; the first one measured elsewhere."""


def _code(context: Context) -> dict[str, str]:
    return {"recipe": _recipe_digest(), "pipeline.py": _training_code(context)}


def _training_code(context: Context) -> str:
    """The digest of ``pipeline.py`` if it trains or answers: a feature view alone changes no more than features."""
    counts = any(
        declared.kind in ("train", "predictor") for declared in declarations.described(context.system, context.loaded)
    )
    return inputs.pipeline_digest(context.loaded) if counts else "none"


def _recipe_digest() -> Digest:
    """The digest of the recipes and of the code that serves what they make."""
    from pathlib import Path

    import bedplate.train as recipes

    folder = Path(recipes.__file__).parent
    served = (folder.parent / "serve" / name for name in ("graph.py", "recommender.py", "state.py", "vectors.py"))
    sources = sorted((*folder.glob("*.py"), *served))
    return ids.digest_of([ids.digest_file(path) for path in sources])


def _train_inputs(context: Context) -> dict[str, str]:
    found = {
        "features": ids.digest_of(context.body("features", FeatureSet)),
        "train": section(context, "train"),
        "workload": section(context, "workload"),
        "graph": section(context, "graph"),
        "models": ids.digest_of(inputs.model_digests(context.loaded)),
        "sensitive columns": ids.digest_of(context.use_case.governance.sensitive),
        **_code(context),
        **data.row_policies(context),
    }
    return found | {f"table {name}": result.table.digest for name, result in data.ingested(context).items()}


def _train(context: Context) -> Outcome:
    """Train, unless that would take the month over a budget whose breach blocks, and no longer than budgets allow.

    Raises:
        GateError: it would.
        UserCodeError, InputError: it failed, or was ended by a budget; what it cost is written down.
    """
    plan, system = context.body("plan", Plan), SystemMetrics()
    with context.system.store.read() as tx:
        over = actuals.overspent(tx, context.use_case.name, plan)
        limit = actuals.allowance(tx, context.use_case.name, plan)
    if over:
        raise GateError(
            over, where="requirements.budget", fix="raise the budget, let its breach warn, or train next month"
        )
    pipeline = inputs.pipeline_path(context.loaded)
    made, began = prepared(context), clock.monotonic()
    try:
        body = run.run(
            context.loaded, made, context.system.contents,
            pipeline=pipeline, on_progress=context.progress, on_usage=system.add, limit=limit,
        )  # fmt: skip
    except (InputError, UserCodeError):
        _spent(context, plan, clock.monotonic() - began)
        raise
    code = code_of(context.loaded.folder) if pipeline is not None else None
    tracked = of_training(context.use_case.name, body, code, system)
    texts = {name: text.encode() for name, text in tracked.files.items()}
    files = {name: (context.system.contents.put(text), len(text)) for name, text in texts.items()}
    by = Actor(ledger=context.system.ledger, name=context.actor)

    def track(tx: Transaction, _facts: tuple[Fact, ...]) -> None:
        save(tx, context.system.appends, tracked, files, by=by)

    parents = (context.output("features").digest, context.output("ingest").digest, context.output("plan").digest)
    held = actuals.of_training(plan, body.run_id, seconds=body.seconds, peak=system.peak, at=clock.timestamp())
    evidence = (
        Evidence(kind=actuals.KIND, body=held, parents=(context.output("plan").digest,)),
        Evidence(kind="training", body=body, parents=parents),
    )
    return Outcome(evidence=evidence, summary=headline(body), apply=track)


def _spent(context: Context, plan: Plan, seconds: float) -> None:
    """Write down what a training cost that came to nothing: the next one has so much less of the month."""
    with context.system.store.transaction() as tx:
        fact = tx.facts.put(
            actuals.KIND, context.use_case.name, actuals.of_failure(plan, seconds), (context.output("plan").digest,)
        )
        context.system.ledger.record(
            tx, actor=context.actor, action="plan.compare", resource=f"use_case/{context.use_case.name}",
            payload={"failure": fact.body["when"], "actual": fact.digest},
        )  # fmt: skip


def prepared(context: Context) -> run.Prepared:
    """What the training of a use case is called with, from the outputs of the stages before it."""
    made = context.body("features", FeatureSet)
    return run.prepare(
        context.loaded,
        access.reader(context.system, context.use_case),
        {name: result.table for name, result in data.ingested(context).items()},
        made if made.views else None,
        pipeline=inputs.pipeline_path(context.loaded),
        declared=declarations.described(context.system, context.loaded),
    )


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
