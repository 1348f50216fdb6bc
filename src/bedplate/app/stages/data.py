"""Ingest under contracts; compute features point in time."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from bedplate import ids
from bedplate.app import access, contract_changes, declarations, deidentified, inputs, row_access
from bedplate.app.ingesting import Rate
from bedplate.app.stage import Context, Evidence, Outcome, Stage
from bedplate.data.parsing.template import TEMPLATE
from bedplate.errors import InputError, NotFoundError
from bedplate.ids import Digest
from bedplate.records import FeatureSet, IngestResult, ViewRecord

if TYPE_CHECKING:
    import pyarrow as pa

    from bedplate.features.views import FeatureView


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``data``: the data sets of one use case, each with the fact of its ingestion."""

    datasets: dict[str, Digest]


# -------------------------------------------------------------------------------------------------------------- ingest


def _ingest_inputs(context: Context) -> dict[str, str]:
    contracts = inputs.contract_digests(context.loaded)
    methods = deidentified.methods(context.loaded)
    deidentified.nothing_is_open(context.system, context.loaded)  # here, as what was made before is not made again
    found: dict[str, str] = {}
    for name, data in context.use_case.data.items():
        found[f"data.{name}"] = ids.digest_of(data)
        found[f"contract of {name}"] = contracts[data.contract]
        if data.incremental is not None:
            # What it is added to counts as well: a backfill or a replay is seen by the next run.
            found[f"table of {name}"] = _newest(context, name)
        if methods[name]:
            found[f"de-identification of {name}"] = methods[name]
        found[f"source of {name}"] = inputs.source_digest(context.loaded, name, context.system.settings)
    cleaning = [d for d in declarations.described(context.system, context.loaded) if d.kind == "dataset"]
    if cleaning:
        found["cleaning in pipeline.py"] = inputs.pipeline_digest(context.loaded)
    return found


def _newest(context: Context, dataset: str) -> str:
    try:
        return context.system.tables.current(access.table_name(context.use_case.name, dataset)).digest
    except NotFoundError:
        return "none"


def _ingest(context: Context) -> Outcome:
    TEMPLATE.warm()  # while this process loads its half
    from bedplate.data.ingest import ingest

    contract_changes.check(context.system, context.loaded, views(context))
    wanted = _ingest_inputs(context)
    hidden = access.governance_of(context.loaded).hidden
    pseudonyms = deidentified.begin(context.system, context.loaded)
    evidence: list[Evidence] = []
    names = list(context.use_case.data)
    kept = [contract_changes.kept(context.loaded, name) for name in names]
    texts = [Evidence(kind=contract_changes.KIND, body=text) for text in kept]
    for position, (name, data) in enumerate(context.use_case.data.items()):
        key = ids.digest_of([name, *(wanted[k] for k in wanted if k.endswith(f" {name}") or k == f"data.{name}")])

        progress = Rate(name, context.progress)
        context.progress(f"{name} ({position + 1} of {len(names)})")
        result = ingest(
            context.system.tables,
            use_case=context.use_case.name,
            dataset=name,
            spec=data,
            folder=context.loaded.folder,
            key=key,
            on_progress=progress,
            reach=inputs.reach(context.system.settings, context.use_case),
            sensitive=hidden,
            pseudonyms=pseudonyms,
            safe_harbor=context.use_case.governance.deidentify != "none",
        )
        contract_changes.same(kept[position], result, data.contract)
        parents = (context.output("check").digest, _fact_digest(context, contract_changes.KIND, texts[position]))
        evidence.append(Evidence(kind="dataset", body=result, parents=parents))
    digests = {name: _fact_digest(context, "dataset", item) for name, item in zip(names, evidence, strict=True)}
    resting = tuple(range(len(texts), len(texts) + len(evidence)))
    whole = Evidence(kind="data", body=Ingested(datasets=digests), rests_on=resting)
    total = sum(item.body.accepted for item in evidence)
    summary = f"{total:,} rows in {len(evidence)} tables{_unconfined(item.body for item in evidence)}"
    return Outcome(evidence=(*texts, *evidence, whole), summary=summary)


def _unconfined(results: Iterable[IngestResult]) -> str:
    """What a run and its ledger entry say where the kernel could not confine the parsing of sources."""
    reasons = dict.fromkeys(result.unconfined for result in results if result.unconfined)
    return f"; not isolated: {'; '.join(reasons)}" if reasons else ""


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
    results = list(ingested(context).values())
    rows, rejected = sum(r.accepted for r in results), sum(r.rejected for r in results)
    kept = f"{rows:,} rows in {len(results)} tables"
    aside = f"{rejected:,} in quarantine" if rejected else "none rejected"
    return f"{kept}; {aside}{_unconfined(results)}"


INGEST = Stage(
    name="ingest",
    title="Ingest under contracts",
    needs=(),
    inputs=_ingest_inputs,
    run=_ingest,
    summarise=_ingested,
)


# ------------------------------------------------------------------------------------------------------------ features

PART = "features"
"""The part of the use case whose tables are what training learns from."""


def views(context: Context) -> "tuple[FeatureView, ...]":
    """The feature views that the file names."""
    return declarations.views_of(context.system, context.loaded)


def _feature_inputs(context: Context) -> dict[str, str]:
    found: dict[str, str] = {}
    used: set[str] = set()
    for view in views(context):
        found[f"feature view {view.name}"] = ids.digest_of(view)
        used.update(view.times)
    found["holdout"] = str(context.use_case.train.holdout)
    found["windows"] = str(context.use_case.train.windows)
    found["joined"] = ids.digest_of([context.use_case.train.parameters.get(name) for name in ("features", "time")])
    for name, result in ingested(context).items():
        if name in used:
            found[f"table {name}"] = result.table.digest
    return found | row_policies(context)


def row_policies(context: Context) -> dict[str, str]:
    """What the flow sees of its tables depends on the row policies of the file."""
    return {f"row policies of {name}": ids.digest_of(rule) for name, rule in row_access.read(context.loaded).items()}


def holdout(context: Context) -> timedelta | None:
    """How long the held-out time is; None where rows are held out, or nothing has a time."""
    from bedplate.usecase.checks import parse_holdout

    if not context.use_case.features or context.use_case.train.holdout is None:
        return None
    kind, amount = parse_holdout(context.use_case.train.holdout)
    return timedelta(seconds=amount) if kind == "time" else None


def time_columns(context: Context) -> dict[str, str]:
    """The time column of each input of the feature views that has one."""
    times = (item for view in views(context) for item in view.times.items())
    return {name: column for name, column in times if isinstance(column, str)}


def _moments(context: Context) -> tuple[datetime, ...]:
    """The moments that features are for: the cut before the holdout, and those to learn from, newest first."""
    from bedplate import features

    held_out = holdout(context)
    if held_out is None:
        raise InputError(
            "features need a moment to be for",
            where="train.holdout",
            fix="hold out a stretch of time, for example 28 d",
        )
    times = time_columns(context)
    if not times:
        raise InputError("no feature view has a time column, so there is no moment to cut at", where="features")
    name, column = next(iter(times.items()))
    rows = access.reader(context.system, context.use_case).read(ingested(context)[name].table, [column])
    return features.moments(features.newest(rows, column), holdout=held_out, windows=context.use_case.train.windows)


def compute(context: Context, moments: tuple[datetime, ...], part: str) -> FeatureSet:
    """Every view of the file at every moment; ``part`` keeps feature tables of different use apart."""
    from bedplate import features

    results = ingested(context)
    return features.compute(
        context.system.tables,
        access.reader(context.system, context.use_case),
        {name: result.table for name, result in results.items()},
        views(context),
        moments,
        prefix=access.table_name(context.use_case.name, part, ""),
        asked=lambda view: _asked(context, view) if part == PART else None,
        key=ids.digest_of([_feature_inputs(context), [moment.isoformat() for moment in moments]]),
        on_progress=context.progress,
    )


def _asked(context: Context, view: "FeatureView") -> "pa.Table | None":
    """Whose features training asks for, and when: those of the rows that it joins a view of rows to."""
    import pyarrow as pa

    from bedplate.features import clocks
    from bedplate.serve.state import AS_OF

    parameters = context.use_case.train.parameters
    joined, time = parameters.get("features"), parameters.get("time")
    named = joined.get("view") if isinstance(joined, dict) else None
    if (
        not view.rows
        or not isinstance(time, str)
        or view.name not in ([named] if isinstance(named, str) else named or ())
    ):
        return None
    found, kinds = [], {}
    for name, result in ingested(context).items():
        names = context.system.tables.schema(result.table).names
        if parameters.get("table", name) != name or not {*view.entity, time} <= set(names):
            continue
        rows = access.reader(context.system, context.use_case).read(result.table, [*view.entity, time]).read_all()
        kinds[name] = rows.schema.field(time).type
        found.append(rows.rename_columns([*view.entity, AS_OF]))
    clocks.same("train.parameters.time", kinds)
    return pa.concat_tables(found, promote_options="permissive") if found else None


def _features(context: Context) -> Outcome:
    parents = (context.output("ingest").digest,)
    if views(context):
        body = compute(context, _moments(context), PART)
    else:
        tables = tuple(result.table for result in ingested(context).values())
        body = FeatureSet(views={}, columns={}, as_of=(), code_digest=ids.digest_of([]), inputs=tables)
    return Outcome(
        evidence=(Evidence(kind="features", body=body, parents=parents),), summary=f"{len(body.views)} views"
    )


def cut(context: Context) -> datetime | None:
    """The moment before the held-out time; None without features."""
    as_of = context.body("features", FeatureSet).as_of
    return datetime.fromisoformat(as_of[0]) if as_of else None


def feature_tables(
    context: Context, moment: datetime, made: FeatureSet | None = None
) -> "dict[str, tuple[ViewRecord, pa.Table]]":
    """The feature tables of one moment, governed: what was declared and rows, by view."""
    import pyarrow as pa

    from bedplate.features.online import at

    made = context.body("features", FeatureSet) if made is None else made
    source = access.reader(context.system, context.use_case)
    found: dict[str, tuple[ViewRecord, pa.Table]] = {}
    for name, declared in made.declared.items():
        rows = source.read(made.views[name])
        parts = [at(pa.Table.from_batches([batch]), moment) for batch in rows]
        found[name] = (declared, pa.concat_tables(parts))
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
