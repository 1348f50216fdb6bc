"""The story: thirteen stages from the file to a prediction traced back to it. Explaining and running read one list.

A stage is finished when its row (use case, stage, digest of its inputs) stands in the store, written in one transaction
with its evidence and its ledger entry. The workflow engine only drives: killed anywhere, the next run carries on.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from bedplate import clock
from bedplate.app import endpoints, residency
from bedplate.app.read_models import StagePlan, StageState
from bedplate.app.stage import Context, Halt, Stage
from bedplate.app.stages import data, look, model, objective, release, serving
from bedplate.errors import BedplateError, DeniedError, InputError, NotFoundError
from bedplate.ids import Digest, digest_of
from bedplate.records import Event, Fact
from bedplate.workflow.engine import Step

STAGES: tuple[Stage, ...] = (
    objective.CHECK,
    objective.PLAN,
    data.INGEST,
    data.FEATURES,
    model.TRAIN,
    release.GATES,
    release.BUNDLE,
    release.APPROVE,
    serving.SERVE,
    serving.OBSERVE,
    serving.DECIDE,
    look.LOOK,
    look.TRACE,
)


class FlowResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run of the flow ended."""

    stages: tuple[StageState, ...]
    halt: Halt | None


def stage_named(name: str) -> Stage:
    """The stage of that name.

    Raises:
        NotFoundError: there is none; the text lists those there are.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise NotFoundError(
        f"there is no stage {name!r}", where="--only", fix=f"use one of {', '.join(s.name for s in STAGES)}"
    )


def first_run() -> tuple[StagePlan, ...]:
    """What a run would do where nothing has run yet."""
    return tuple(StagePlan(stage=stage.name, action="run", because="it has not run yet") for stage in STAGES)


def explain(context: Context) -> tuple[StagePlan, ...]:
    """Say for each stage whether a run would do it, and because of what. Changes nothing."""
    plans: list[StagePlan] = []
    again: set[str] = set()
    for stage in STAGES:
        upstream = [name for name in stage.needs if name in again]
        if upstream:
            again.add(stage.name)
            plans.append(StagePlan(stage=stage.name, action="run", because=f"{_and(upstream)} will run"))
            continue
        inputs = dict(stage.inputs(context))
        fact = _finished(context, stage, inputs)
        if fact is None:
            again.add(stage.name)
            plans.append(StagePlan(stage=stage.name, action="run", because=_because(context, stage, inputs)))
        else:
            context.outputs[stage.name] = fact
            plans.append(StagePlan(stage=stage.name, action="skip", because="done, and nothing it depends on changed"))
    return tuple(plans)


def run(context: Context, execution: str, emit: Callable[[Event], None], only: str | None = None) -> FlowResult:
    """Run every stage that is not finished for its present inputs, in order, until the end or a halt.

    Raises:
        BedplateError: a stage failed; what was finished before it stays finished.
    """
    states: dict[str, StageState] = {}
    halted: list[Halt] = []

    def step(stage: Stage) -> Step:
        def work() -> dict[str, Any]:
            if not halted:
                states[stage.name] = _advance(context, stage, execution, emit, selected=only in (None, stage.name))
                halt = stage.halts(context)
                if halt is not None:
                    halted.append(halt)
                    emit(Event(stage=stage.name, state="waiting", message=halt.reason))
            return msgspec.to_builtins(states.get(stage.name)) or {}

        return Step(name=stage.name, run=work)

    chosen = STAGES if only is None else STAGES[: STAGES.index(stage_named(only)) + 1]
    context.system.engine.execute(execution, [step(stage) for stage in chosen])
    pending = (StageState(stage=s.name, state="pending", summary="") for s in STAGES if s.name not in states)
    return FlowResult(stages=(*states.values(), *pending), halt=halted[0] if halted else None)


def _advance(
    context: Context, stage: Stage, execution: str, emit: Callable[[Event], None], *, selected: bool
) -> StageState:
    context.stage = stage.name
    if stage.holds:
        _held(context)
    inputs = dict(stage.inputs(context))
    fact = _finished(context, stage, inputs)
    if fact is not None:
        context.outputs[stage.name] = fact
        with context.system.store.transaction() as tx:
            tx.stages.reuse(context.use_case.name, stage.name, digest_of(inputs))
        stage.resume(context)
        summary = stage.summarise(context)
        emit(Event(stage=stage.name, state="skipped", message=summary))
        return StageState(stage=stage.name, state="skipped", summary=summary, output=fact.digest, because="unchanged")
    because = _because(context, stage, inputs)
    if not selected:
        raise InputError(
            f"stage {stage.name} must run first: {because}",
            where="--only",
            fix=f"run `bedplate run {context.loaded.folder}` or `--only {stage.name}` before",
        )
    emit(Event(stage=stage.name, state="started", message=because))
    with context.system.store.transaction() as tx:
        tx.executions.enter(execution, stage.name, because)
    started = clock.monotonic()
    try:
        fact = _work(context, stage, inputs, started)
    except BedplateError as error:
        emit(Event(stage=stage.name, state="failed", message=str(error), seconds=clock.monotonic() - started))
        raise
    seconds = clock.monotonic() - started
    summary = stage.summarise(context)
    emit(Event(stage=stage.name, state="finished", message=summary, seconds=seconds))
    return StageState(
        stage=stage.name,
        state="finished",
        summary=summary,
        seconds=seconds,
        finished=clock.timestamp(),
        output=fact.digest,
        because=because,
    )


def _held(context: Context) -> None:
    """Refuse to go on where rows may not lie, and take down what serves.

    The check before put the residency into force for every other read.

    Raises:
        DeniedError: they may not lie here.
    """
    use_case, system = context.use_case, context.system
    places, asked = residency.of_use_case(system.settings, use_case), use_case.requirements.residency
    try:
        residency.demand(system, context.actor, f"flow.{context.stage}", use_case.name, asked, places)
    except DeniedError:
        endpoints.withdraw(system, use_case.name)
        raise


def _work(context: Context, stage: Stage, inputs: dict[str, str], started: float) -> Fact:
    outcome = stage.run(context)
    name = context.use_case.name
    with context.system.store.transaction() as tx:
        facts: list[Fact] = []
        for evidence in outcome.evidence:
            parents = (*evidence.parents, *(facts[i].digest for i in evidence.rests_on))
            facts.append(tx.facts.put(evidence.kind, name, evidence.body, tuple(dict.fromkeys(parents))))
        output = facts[-1]
        if outcome.apply is not None:
            outcome.apply(tx, tuple(facts))
        tx.stages.finish(name, stage.name, digest_of(inputs), inputs, output.digest, clock.monotonic() - started)
        context.system.ledger.record(
            tx,
            actor=context.actor,
            action=f"flow.{stage.name}",
            resource=f"use_case/{name}",
            decision="allow",
            payload={
                "inputs": inputs,
                "output": output.digest,
                "summary": outcome.summary,
                **(residency.declared(context.system.settings, context.use_case) if stage.holds else {}),
            },
            purpose=context.use_case.governance.purpose,
        )
    context.outputs[stage.name] = output
    if stage.name == "check":
        endpoints.republish_access(context.system)  # who may see features by key is said by the file
    return output


def _finished(context: Context, stage: Stage, inputs: dict[str, str]) -> Fact | None:
    with context.system.store.read() as tx:
        digest = tx.stages.finished(context.use_case.name, stage.name, digest_of(inputs))
        return None if digest is None else tx.facts.get(Digest(digest))


def _because(context: Context, stage: Stage, inputs: dict[str, str]) -> str:
    with context.system.store.read() as tx:
        latest = tx.stages.latest(context.use_case.name, stage.name)
    if latest is None:
        return "it has not run yet"
    before = latest.inputs
    changed = [key for key in {**before, **inputs} if before.get(key) != inputs.get(key)]
    return f"{_and(changed)} changed" if changed else "its last run was replaced"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
