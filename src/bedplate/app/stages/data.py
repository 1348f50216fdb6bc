"""Ingest under contracts; compute features point in time."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate import ids
from bedplate.app import access, inputs
from bedplate.app.stage import Context, Evidence, Outcome, Stage
from bedplate.errors import InputError
from bedplate.ids import Digest
from bedplate.records import FeatureSet, IngestResult, TableVersion
from bedplate.usecase.checks import parse_holdout

if TYPE_CHECKING:
    import pyarrow as pa

    from bedplate.compute.sandbox import Declared
    from bedplate.features.views import FeatureView

DEFAULT_WINDOWS = 5
"""Label windows to learn from, before the one that is held out."""
REPLAY_STEPS = 4
"""Parts that the held-out time is replayed in; online features are refreshed before each."""


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``data``: the data sets of one use case, each with the fact of its ingestion."""

    datasets: dict[str, Digest]


# -------------------------------------------------------------------------------------------------------------- ingest


def _ingest_inputs(context: Context) -> dict[str, str]:
    contracts = inputs.contract_digests(context.loaded)
    found: dict[str, str] = {}
    for name, data in context.use_case.data.items():
        found[f"data.{name}"] = ids.digest_of(data)
        found[f"contract of {name}"] = contracts[data.contract]
        found[f"source of {name}"] = inputs.source_digest(context.loaded.folder, data)
    cleaning = [d for d in _described(context) if d.kind == "dataset"]
    if cleaning:
        found["cleaning in pipeline.py"] = inputs.pipeline_digest(context.loaded)
    return found


def _ingest(context: Context) -> Outcome:
    from bedplate.data.ingest import ingest

    wanted = _ingest_inputs(context)
    evidence: list[Evidence] = []
    names = list(context.use_case.data)
    for position, (name, data) in enumerate(context.use_case.data.items()):
        key = ids.digest_of([name, *(wanted[k] for k in wanted if k.endswith(f" {name}") or k == f"data.{name}")])

        def progress(done: float, total: float | None = None, name: str = name) -> None:
            context.progress(f"{name} {done:,.0f} rows", done, total)

        context.progress(f"{name} ({position + 1} of {len(names)})")
        result = ingest(
            context.system.tables,
            use_case=context.use_case.name,
            dataset=name,
            spec=data,
            folder=context.loaded.folder,
            key=key,
            on_progress=progress,
        )
        evidence.append(Evidence(kind="dataset", body=result, parents=(context.output("check").digest,)))
    digests = {
        name: _fact_digest(context, "dataset", item) for name, item in zip(names, evidence, strict=True)
    }
    whole = Evidence(kind="data", body=Ingested(datasets=digests), rests_on=tuple(range(len(evidence))))
    total = sum(item.body.accepted for item in evidence)
    return Outcome(evidence=(*evidence, whole), summary=f"{total:,} rows in {len(evidence)} tables")


def _fact_digest(context: Context, kind: str, evidence: Evidence) -> Digest:
    return ids.digest_of(
        {
            "kind": kind,
            "use_case": context.use_case.name,
            "parents": list(evidence.parents),
            "body": msgspec.to_builtins(evidence.body, str_keys=True),
        }
    )


def ingested(context: Context) -> dict[str, IngestResult]:
    """What was ingested, by data set."""
    found = context.body("ingest", Ingested)
    with context.system.store.read() as tx:
        return {
            name: msgspec.convert(tx.facts.get(digest).body, IngestResult) for name, digest in found.datasets.items()
        }


def _ingested(context: Context) -> str:
    results = ingested(context).values()
    rows, rejected = sum(r.accepted for r in results), sum(r.rejected for r in results)
    kept = f"{rows:,} rows in {len(results)} tables"
    return f"{kept}; {rejected:,} in quarantine" if rejected else f"{kept}; none rejected"


INGEST = Stage(
    name="ingest",
    title="Ingest under contracts",
    needs=(),
    inputs=_ingest_inputs,
    run=_ingest,
    summarise=_ingested,
)


# ------------------------------------------------------------------------------------------------------------ features


def _described(context: Context) -> "tuple[Declared, ...]":
    """What ``pipeline.py`` declares; read in a limited process, once for each version of the file."""
    from bedplate.compute import sandbox

    pipeline = inputs.pipeline_path(context.loaded)
    if pipeline is None:
        return ()
    known = context.system.described
    digest = inputs.pipeline_digest(context.loaded)
    if digest not in known:
        known[digest] = sandbox.describe(pipeline, require_isolation=context.use_case.risk.level == "high")
    return known[digest]


def described(context: Context) -> "tuple[Declared, ...]":
    """What ``pipeline.py`` declares."""
    return _described(context)


def views(context: Context) -> "tuple[FeatureView, ...]":
    """The feature views that the file names."""
    from bedplate.features.views import declared

    return declared(_described(context), context.use_case.features)


def _feature_inputs(context: Context) -> dict[str, str]:
    found: dict[str, str] = {}
    used: set[str] = set()
    for view in views(context):
        found[f"feature view {view.name}"] = ids.digest_of(view)
        used.update(view.times)
    found["holdout"] = str(context.use_case.train.holdout)
    found["windows"] = str(context.use_case.train.parameters.get("windows", DEFAULT_WINDOWS))
    for name, result in ingested(context).items():
        if name in used:
            found[f"table {name}"] = result.table.digest
    return found


def cuts(context: Context) -> tuple[tuple[datetime, ...], timedelta]:
    """The moments that features are for, newest first without the replay's, and the length of the holdout."""
    from bedplate.features.compute import moments

    kind, amount = parse_holdout(context.use_case.train.holdout or "20 %")
    if kind != "time":
        return (), timedelta(0)
    holdout = timedelta(seconds=amount)
    windows = int(context.use_case.train.parameters.get("windows", DEFAULT_WINDOWS))
    return moments(_newest(context), holdout=holdout, windows=windows), holdout


def replay_moments(cut: datetime, holdout: timedelta) -> tuple[datetime, ...]:
    """The moments before which the replay refreshes online features, oldest first; the first is the cut itself."""
    return tuple(cut + i * holdout / REPLAY_STEPS for i in range(REPLAY_STEPS))


def _newest(context: Context) -> datetime:
    """The newest time in the data that features are made of."""
    import pyarrow.compute as pc

    times = {name: column for view in views(context) for name, column in view.times.items() if isinstance(column, str)}
    if not times:
        raise InputError("no feature view has a time column, so there is no moment to cut at", where="features")
    name, column = next(iter(times.items()))
    newest: datetime | None = None
    source = access.reader(context.system, context.use_case)
    for batch in source.read(ingested(context)[name].table, [column]):
        here = pc.max(batch.column(0)).as_py()
        if here is not None and (newest is None or here > newest):
            newest = here
    if newest is None:
        raise InputError(f"{name}.{column} holds no time", where="features", fix="check the data")
    return newest


def _features(context: Context) -> Outcome:
    from bedplate.data import duck
    from bedplate.features.compute import compute_view

    results = ingested(context)
    declared_views = views(context)
    parents = (context.output("ingest").digest,)
    if not declared_views:
        empty = FeatureSet(
            views={}, columns={}, as_of=(), code_digest=ids.digest_of([]), inputs=tuple(r.table for r in results.values())
        )
        evidence = Evidence(kind="features", body=empty, parents=parents)
        return Outcome(evidence=(evidence,), summary="none declared: the columns are used as they are")
    training, holdout = cuts(context)
    as_of = tuple(dict.fromkeys((*training, *replay_moments(training[0], holdout))))
    source = access.reader(context.system, context.use_case)
    key = ids.digest_of(_feature_inputs(context))
    made: dict[str, TableVersion] = {}
    columns: dict[str, tuple[str, ...]] = {}
    for position, view in enumerate(declared_views):
        context.progress(f"{view.name} at {len(as_of)} moments", position, len(declared_views))
        name = access.table_name(context.use_case.name, "features", view.name)
        found = context.system.tables.made_by(name, key)
        if found is None:
            with duck.connect(memory=3 << 30) as connection:
                table = compute_view(
                    view, lambda dataset: source.read(results[dataset].table), as_of, lambda c=connection: c
                )
            found = context.system.tables.write(name, table, mode="overwrite", key=key)
        made[view.name] = found
        columns[view.name] = tuple(context.system.tables.schema(found).names)
    used = {name for view in declared_views for name in view.times}
    body = FeatureSet(
        views=made,
        columns=columns,
        as_of=tuple(moment.isoformat() for moment in as_of),
        code_digest=ids.digest_of([ids.digest_of(view) for view in declared_views]),
        inputs=tuple(results[name].table for name in sorted(used)),
    )
    return Outcome(
        evidence=(Evidence(kind="features", body=body, parents=parents),), summary=f"{len(made)} views"
    )


def feature_tables(context: Context, moments: tuple[datetime, ...]) -> "dict[str, tuple[tuple[str, ...], pa.Table]]":
    """The feature tables of some moments, governed: entity columns and rows, by view."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from bedplate.features.materialise import at

    features = context.body("features", FeatureSet)
    source = access.reader(context.system, context.use_case)
    found: dict[str, tuple[tuple[str, ...], Any]] = {}
    for view in views(context):
        parts = []
        for batch in source.read(features.views[view.name]):
            kept = pa.Table.from_batches([batch])
            parts.extend(part for moment in moments if (part := at(kept, moment)).num_rows)
        table = pa.concat_tables(parts).combine_chunks()
        order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in ("as_of", *view.entity)])
        found[view.name] = (view.entity, table.take(order))
    return found


def _featured(context: Context) -> str:
    features = context.body("features", FeatureSet)
    if not features.views:
        return "none declared: columns are used as they are"
    rows = sum(version.rows for version in features.views.values())
    return f"{len(features.views)} views at {len(features.as_of)} moments, {rows:,} rows, none sees its future"


FEATURES = Stage(
    name="features",
    title="Compute features, point in time",
    needs=("ingest",),
    inputs=_feature_inputs,
    run=_features,
    summarise=_featured,
)


