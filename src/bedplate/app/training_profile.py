"""What holds a training back: it is done again in its limited process, on the rows that it had, and watched."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bedplate import usecase
from bedplate.app import access, planning, profiling, queries
from bedplate.app.profile_models import ProfileReport, RoofPoint
from bedplate.app.stage import Context, Emit
from bedplate.app.stages import model
from bedplate.compute import code_profile, torch_trace, watched
from bedplate.errors import NotFoundError
from bedplate.identity import Principal
from bedplate.plan.bottlenecks import Signals
from bedplate.policy import values as policy
from bedplate.records import Event, Fact, TrainResult
from bedplate.train import run as trains

if TYPE_CHECKING:
    from bedplate.app.system import System


def profile(system: "System", principal: Principal, emit: Emit, run: str, seconds: float) -> ProfileReport:
    """The bottleneck of a training, by doing it again for at most ``seconds``; nothing that it makes is kept.

    Its rows are those of the run, read under policy like any training's; the file and its ``pipeline.py`` are taken as
    they are now, so that doing it once more tells whether a change helped.

    Raises:
        NotFoundError: there is no such run, or its tables have gone.
        DeniedError: policy does not let the principal run the use case.
        UserCodeError: it failed, or did too little to be seen.
    """
    context, fact = _context(system, principal, emit, run)
    taken = msgspec.convert(fact.body, TrainResult).seconds
    emit(Event(stage="profile", state="progress", message=f"{run}: training again under the sampler"))
    reply = trains.call(context.loaded, model.prepared(context), on_progress=context.progress, watch=seconds)
    found = code_profile.read(reply.files[watched.SAMPLES], run)
    probe = planning.probe(system.home, keep=False)
    peak = max(rate.gflops for rate in probe.matmul_sizes) * 1e9 * max(1, round(found.cores))
    traced = None
    if watched.TRACE in reply.files:
        traced = torch_trace.read(reply.files[watched.TRACE], len(found.windows), peak)
    report = profiling.sampled(
        run, found, probe, windows=_together(found.windows, traced.windows) if traced is not None else found.windows
    )
    return msgspec.structs.replace(
        report,
        what=f"{report.what}, of a training that took {taken:.1f} s",
        points=tuple(
            RoofPoint(
                name=item.name, intensity=item.flops / item.bytes, gflops=item.flops * item.calls / item.seconds / 1e9
            )
            for item in (traced.products if traced is not None else ())[:20]
        ),
        roof_gflops=peak / 1e9,
        roof_gbps=max(probe.copy_gbps, probe.score_gbps),
        verify=f"bedplate profile {run} --duration {seconds:g}",
    )


def _context(system: "System", principal: Principal, emit: Emit, run: str) -> tuple[Context, Fact]:
    """The use case of a training as its stages see it, with what they ended in before it; and the training."""
    with system.store.read() as tx:
        rows = [(row, fact) for row in tx.use_cases.list() if (fact := queries.training_of(tx, row.name, run))]
        parents = [tx.facts.get(digest) for _, fact in rows for digest in fact.parents]
    for row, fact in rows:
        access.demand(system, principal, "run", policy.use_case(row.name))
        context = Context(system, usecase.load(Path(row.folder) / row.file), principal, emit)
        context.stage = "profile"
        context.outputs = dict(zip(("features", "ingest"), parents, strict=False))
        return context, fact
    raise NotFoundError(f"there is no training {run}", fix="`bedplate run --json` and the pages of runs name them")


def _together(sampled: Sequence[Signals], traced: Sequence[Signals]) -> tuple[Signals, ...]:
    """What both saw of the same parts of the time; torch's profiler is believed where it tells something."""
    return tuple(
        msgspec.structs.replace(one, **{
            name: value for name in Signals.__struct_fields__
            if name != "seconds" and (value := getattr(other, name)) is not None
        })
        for one, other in zip(sampled, traced, strict=True)
    )  # fmt: skip
