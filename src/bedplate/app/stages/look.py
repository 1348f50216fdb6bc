"""Make sure the page has everything it promises; walk from one prediction back to the objective."""

import msgspec

from bedplate.app import access, queries, tracing
from bedplate.app.stage import Context, Evidence, Outcome, Stage
from bedplate.errors import IntegrityError
from bedplate.ids import Digest

PARTS = (
    "objective", "plan", "datasets", "features", "training", "gates", "bundle", "approval", "endpoint", "observation",
    "retrain",
)  # fmt: skip
"""What the page of a use case that is served must show."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``page``: which fact each part of the page shows."""

    parts: dict[str, tuple[Digest, ...]]


def _look_inputs(context: Context) -> dict[str, str]:
    return {stage: fact.digest for stage, fact in context.outputs.items() if stage not in ("look", "trace")}


def _look(context: Context) -> Outcome:
    with context.system.store.read() as tx:
        evidence = queries.evidence(tx, context.use_case.name)
    parts: dict[str, tuple[Digest, ...]] = {}
    for part in PARTS:
        shown = getattr(evidence, part)
        found = shown if isinstance(shown, tuple) else (shown,) if shown is not None else ()
        if not found:
            raise IntegrityError(f"the page has no {part} to show", where=f"use case {context.use_case.name}")
        parts[part] = tuple(item.digest for item in found)
    body = Page(parts=parts)
    parents = (context.output("decide").digest, context.output("check").digest)
    return Outcome(evidence=(Evidence(kind="page", body=body, parents=parents),), summary=_shown(context))


def _shown(context: Context) -> str:
    return f"page of {context.use_case.name}: {len(PARTS)} parts, each with its evidence"


LOOK = Stage(
    name="look",
    title="Show it to people",
    needs=("decide",),
    inputs=_look_inputs,
    run=_look,
    summarise=_shown,
)


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``trace``: one prediction walked back to its objective, every digest on the way computed again."""

    prediction_id: str
    nodes: tuple[str, ...]
    verified: bool


def _trace_inputs(context: Context) -> dict[str, str]:
    return {"observation": context.output("observe").digest}


def _trace(context: Context) -> Outcome:
    from bedplate.observe.ship import latest

    version = context.system.tables.current(access.predictions_table(context.use_case.name))
    newest = latest(access.reader(context.system, context.use_case), version)
    if newest is None:
        raise IntegrityError("no prediction was logged", where=f"use case {context.use_case.name}")
    walked = tracing.walk(context.system, newest)
    if not walked.verified:
        broken = next(node for node in walked.nodes if not node.verified)
        raise IntegrityError(f"the line is broken at {broken.kind}: {broken.summary}", where=newest.id)
    body = Traced(prediction_id=newest.id, nodes=tuple(node.digest for node in walked.nodes), verified=walked.verified)
    parents = (context.output("observe").digest, context.output("check").digest)
    return Outcome(evidence=(Evidence(kind="trace", body=body, parents=parents),), summary=_walked(body))


def _walked(traced: Traced) -> str:
    return f"{traced.prediction_id}: {len(traced.nodes)} links back to the objective, every digest holds"


TRACE = Stage(
    name="trace",
    title="Walk a prediction back to the objective",
    needs=("observe",),
    inputs=_trace_inputs,
    run=_trace,
    summarise=lambda context: _walked(context.body("trace", Traced)),
)
