"""The one-screen summary of a run: at most 24 lines of 100 columns, each figure with its interval."""

from collections.abc import Callable, Iterator

from bedplate.app.read_models import STAGES, Evidence, RunSummary, StageState
from bedplate.records import TrainResult
from bedplate.words import cut, estimate, money, seconds, size

MODELS = 5
MARKS = {"finished": "done", "skipped": "same", "running": "runs", "waiting": "WAIT", "failed": "FAIL", "pending": "-"}


def summary_lines(summary: RunSummary) -> Iterator[str]:
    """Title, one line per stage, the models with their intervals, and where to look next."""
    head = f"{summary.use_case}   {seconds(summary.seconds)}"
    yield cut(head)
    for stage in summary.stages[: len(STAGES)]:
        yield _stage_line(stage, summary.evidence)
    if summary.evidence.training is not None:
        yield from _models(summary.evidence.training.body)
    if summary.link or summary.address:
        yield cut(f"page   {summary.link or summary.address}")
    if summary.prediction:
        yield cut(f"trace  bedplate trace {summary.prediction}")
    if summary.address:
        yield "stop   bedplate stop"


def _stage_line(stage: StageState, evidence: Evidence) -> str:
    place = f"{STAGES.index(stage.stage) + 1:>2}" if stage.stage in STAGES else "  "
    told = TELL[stage.stage](evidence) if stage.stage in TELL and stage.state in ("finished", "skipped") else ""
    took = seconds(stage.seconds) if stage.seconds is not None else ""
    return cut(f"{place} {stage.stage:<9} {MARKS[stage.state]:<4} {took:>10}  {told or stage.summary}")


def _models(training: TrainResult) -> Iterator[str]:
    """The first metric of each model on everyone, best first, and the model's lead over each baseline."""
    overall = [m for m in training.metrics if m.slice == "all"]
    if not overall:
        return
    name = overall[0].metric
    leads = {c.baseline: c.difference for c in training.comparisons if c.slice == "all" and c.metric == name}
    rows = sorted((m for m in overall if m.metric == name), key=lambda m: -m.estimate.value)
    yield f"   {name:<24} {'value':<24} model's lead over it"
    for row in rows[:MODELS]:
        lead = leads.get(row.model)
        label = "this model" if row.model == "candidate" else row.model
        yield f"   {label:<24} {estimate(row.estimate):<24} {_signed(lead) if lead else ''}".rstrip()


def _signed(lead: object) -> str:
    text = estimate(lead)  # type: ignore[arg-type]
    return text if text.startswith("-") else f"+{text}"


def _plan(evidence: Evidence) -> str:
    if evidence.plan is None:
        return ""
    plan = evidence.plan.body
    if plan.monthly_cost is None:
        return "none: nothing meets the file, or the budget blocks what does"
    return (
        f"{plan.chosen}, {money(plan.monthly_cost, plan.currency)} a month; "
        f"bound by {plan.binding_constraint}; runner-up {plan.runner_up or 'none'}"
    )


def _ingest(evidence: Evidence) -> str:
    accepted = sum(item.body.accepted for item in evidence.datasets)
    rejected = sum(item.body.rejected for item in evidence.datasets)
    counted = f"{len(evidence.datasets)} data sets, {accepted:,} rows accepted, {rejected:,} in quarantine"
    return f"{counted}; not counted for you: {', '.join(evidence.kept_in)}" if evidence.kept_in else counted


def _gates(evidence: Evidence) -> str:
    if evidence.gates is None:
        return ""
    results = evidence.gates.body.results
    counts = [
        f"{sum(r.verdict == verdict for r in results)} {word}"
        for verdict, word in (("pass", "passed"), ("fail", "FAILED"), ("insufficient_evidence", "without evidence"))
        if any(r.verdict == verdict for r in results)
    ]
    failed = "; ".join(r.name for r in results if r.verdict == "fail")
    return ", ".join(counts) + (f": {failed}" if failed else "")


def _bundle(evidence: Evidence) -> str:
    if evidence.bundle is None:
        return ""
    bundle = evidence.bundle.body
    return f"version {bundle.version}, {len(bundle.files)} files, {size(bundle.size)}, signed"


def _approve(evidence: Evidence) -> str:
    if evidence.approval is None:
        return ""
    approval = evidence.approval.body
    by = ", ".join(approval.by)
    return f"{approval.environment}: {approval.state}{f' by {by}' if by else ''}: {approval.reason}"


def _serve(evidence: Evidence) -> str:
    if evidence.endpoint is None:
        return ""
    endpoint = evidence.endpoint.body
    if endpoint.load is None:
        return f"{endpoint.url} (not load-tested)"
    load = endpoint.load
    verdict = "meets" if load.met else "MISSES"
    return f"p99 {estimate(load.p99, 1)} ms {verdict} {load.limit_p99_ms:g} ms at {load.rate:,.0f}/s; {endpoint.url}"


def _observe(evidence: Evidence) -> str:
    if evidence.observation is None:
        return ""
    seen = evidence.observation.body
    alarms = [finding.feature for finding in seen.drift if finding.alarm]
    quiet = "no drift alarm" if seen.drift else "drift not watched"
    drift = f"drift in {', '.join(alarms)}" if alarms else quiet
    matched = f"matched purchases {estimate(seen.matched)}" if seen.with_outcome else "no outcome joined"
    return f"{seen.predictions:,} predictions, {matched}; {drift}"


def _decide(evidence: Evidence) -> str:
    if evidence.retrain is None:
        return ""
    decision = evidence.retrain.body
    return f"{'retrain' if decision.retrain else 'do not retrain'}: {decision.reason}"


TELL: dict[str, Callable[[Evidence], str]] = {
    "plan": _plan,
    "ingest": _ingest,
    "gates": _gates,
    "bundle": _bundle,
    "approve": _approve,
    "serve": _serve,
    "observe": _observe,
    "decide": _decide,
}
