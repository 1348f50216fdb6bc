"""Running a use case as the owner: one execution, its summary, and what it leaves serving."""

from collections.abc import Callable
from pathlib import Path

from bedplate import clock, usecase
from bedplate.app import access, flow, queries
from bedplate.app.read_models import RunSummary
from bedplate.app.stage import Context
from bedplate.app.system import System
from bedplate.errors import BedplateError
from bedplate.identity import Principal
from bedplate.records import Event


def run(
    system: System, principal: Principal, path: Path, only: str | None, emit: Callable[[Event], None]
) -> RunSummary:
    """Run the flow of one use case; a second run of the same one waits for the first.

    Raises:
        BedplateError: a stage failed; what was finished before stays finished.
    """
    loaded = usecase.load(path)
    name = loaded.use_case.name
    access.demand(system, principal, "run", access.use_case_resource(loaded.use_case))
    with system.lock(name):
        started = clock.monotonic()
        context = Context(system, loaded, principal, emit)
        with system.store.transaction() as tx:
            for left in tx.executions.running():
                if left.use_case == name:  # this lock is ours, so whoever ran it is gone
                    tx.executions.end(left.id, "stopped", "interrupted")
            execution = tx.executions.start(name, principal.id).id
        try:
            result = flow.run(context, execution, emit, only)
        except BaseException as error:
            message = error.message if isinstance(error, BedplateError) else type(error).__name__
            with system.store.transaction() as tx:
                tx.executions.end(execution, "failed", message)
            raise
        with system.store.transaction() as tx:
            if result.halt is None:
                tx.executions.end(execution, "succeeded")
            else:
                waits = result.halt.state == "waiting"
                tx.executions.end(execution, "waiting" if waits else "stopped", result.halt.reason)
        with system.store.read() as tx:
            evidence = queries.evidence(tx, name, access.kept_in(tx, name, principal))
    prediction = context.outputs["trace"].body.get("prediction_id") if "trace" in context.outputs else None
    return RunSummary(
        use_case=name,
        run_id=execution,
        stages=result.stages,
        evidence=evidence,
        seconds=clock.monotonic() - started,
        halted=result.halt.state if result.halt is not None else None,
        halted_because=result.halt.reason if result.halt is not None else "",
        prediction=prediction,
    )
