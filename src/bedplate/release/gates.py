"""Gates: what the file promised against what was measured. A verdict rests on an interval, never on a point.

A gate passes when the whole interval is on the right side of the limit, and fails when it is not. Where too little was
seen to say either, it is ``insufficient_evidence``: shown, never a pass, and let through only by a named person's
waiver in ``dev``.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from bedplate.records import Comparison, Estimate, GateReport, GateResult, Metric, TrainResult
from bedplate.usecase import Loaded
from bedplate.usecase.types import Quality

MINIMUM_GROUP = 200
"""Fewer units than this say too little about a group; trust.md 5 gives the arithmetic for rates near 0.9."""
SMALLEST_SHOWN = 10
"""Figures of smaller groups are not shown: they could be about one person."""
WAIVABLE_IN = "dev"

Verdict = Literal["pass", "fail", "insufficient_evidence"]


class Waiver(Protocol):
    """A named person's waiver of one gate or of one of its lines, as the store keeps it."""

    @property
    def id(self) -> str: ...
    @property
    def gate(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def by(self) -> str: ...


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about how a candidate came about. ``refused`` maps file names to why they are not loaded.

    ``limited``: the files may hold code, and a limited process runs it.
    """

    isolated: bool
    formats: dict[str, str]
    refused: dict[str, str] = {}
    limited: bool = False
    reason: str = ""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer takes, in milliseconds. ``stalls``: how far the upper bound of the 99th percentile of fixed work,
    done between the answers, lies above its median; so much of ``p99.high`` may be the measuring machine's own."""

    p99: Estimate
    stalls: float = 0.0


def evaluate(
    loaded: Loaded,
    training: TrainResult,
    *,
    size: int,
    latency: Latency | None,
    security: Security,
    waivers: Sequence[Waiver] = (),
    environment: str = WAIVABLE_IN,
) -> GateReport:
    """Every gate that ``release.gates`` names, each line of the file with its own result.

    ``size`` is of the bundle in bytes; ``latency`` is None when it was not measured. ``waivers`` are those in force.
    """
    check = {
        "quality": lambda: _quality(loaded, training),
        "latency": lambda: iter([_latency(loaded, latency)]),
        "size": lambda: iter([_size(loaded, size)]),
        "fairness": lambda: _fairness(loaded, training),
        "security": lambda: _security(loaded, security),
    }
    found = [result for gate in loaded.use_case.release.gates for result in check[gate]()]
    results = tuple(_waived(result, waivers, environment) for result in found)
    passed = all(result.verdict == "pass" or result.waiver is not None for result in results)
    return GateReport(results=results, passed=passed, summary=_summary(results, passed))


# -------------------------------------------------------------------------------------------------------------- quality


def _quality(loaded: Loaded, training: TrainResult) -> Iterator[GateResult]:
    promises = loaded.use_case.requirements.quality
    if not promises:
        yield GateResult(
            gate="quality",
            name="quality",
            verdict="insufficient_evidence",
            measured=None,
            limit="none in the file",
            reason="the file promises nothing about quality, so nothing can be shown to hold",
            line=loaded.line("requirements"),
        )
    for index, promise in enumerate(promises):
        line = loaded.line("requirements", "quality", index)
        if promise.at_least is not None:
            yield _at_least(promise, promise.at_least, training.metrics, line)
        elif promise.not_worse_than is not None:
            margin = promise.not_worse_than.margin
            yield _compared(promise, promise.not_worse_than.baseline, margin, training.comparisons, line)
        else:
            for baseline in _baselines(promise, training.comparisons):
                yield _compared(promise, baseline, None, training.comparisons, line)


def _baselines(promise: Quality, comparisons: Sequence[Comparison]) -> list[str]:
    if promise.better_than != "each baseline":
        return [promise.better_than or ""]
    on = {c.baseline: None for c in comparisons if (c.metric, c.slice) == (promise.metric, promise.on)}
    return list(on) or [promise.better_than]


def _at_least(promise: Quality, limit: float, metrics: Sequence[Metric], line: int) -> GateResult:
    name = f"{promise.metric} at least {limit:g} on {promise.on}"
    wanted = (promise.metric, "candidate", promise.on)
    measured = next((m.estimate for m in metrics if (m.metric, m.model, m.slice) == wanted), None)
    return _judged("quality", name, measured, limit, f">= {limit:g}", line, strictly=False)


def _compared(
    promise: Quality, baseline: str, margin: float | None, comparisons: Sequence[Comparison], line: int, *,
    gate: str = "quality",
) -> GateResult:  # fmt: skip
    """Candidate minus baseline: above zero, or above minus the margin, with its whole interval."""
    wanted = (promise.metric, baseline, promise.on)
    measured = next((c.difference for c in comparisons if (c.metric, c.baseline, c.slice) == wanted), None)
    if margin is None:
        name = f"{promise.metric} better than {baseline} on {promise.on}"
        return _judged(gate, name, measured, 0.0, "> 0", line)
    name = f"{promise.metric} not worse than {baseline} by more than {margin:g} on {promise.on}"
    return _judged(gate, name, measured, -margin, f"> {-margin:g}", line)


def _judged(
    gate: str, name: str, measured: Estimate | None, limit: float, shown: str, line: int, *, strictly: bool = True
) -> GateResult:
    """The verdict on an estimate that should lie above ``limit``."""

    def result(verdict: Verdict, reason: str, estimate: Estimate | None) -> GateResult:
        return GateResult(
            gate=gate, name=name, verdict=verdict, measured=estimate, limit=shown, reason=reason, line=line
        )

    if measured is None:
        return result("insufficient_evidence", "training reported no such figure", None)
    if measured.n < SMALLEST_SHOWN:
        return result("insufficient_evidence", f"fewer than {SMALLEST_SHOWN} units: nothing is shown", None)
    if measured.n < MINIMUM_GROUP:
        reason = f"{measured.n:,} units; {MINIMUM_GROUP} are needed to say anything"
        return result("insufficient_evidence", reason, measured)
    interval = f"{measured.value:+.4g} [{measured.low:+.4g}, {measured.high:+.4g}]"
    if measured.low > limit or (not strictly and measured.low >= limit):
        return result("pass", f"{interval}: the whole interval is above the limit", measured)
    if measured.value > limit:
        return result("fail", f"{interval}: above the limit, but chance could explain it", measured)
    return result("fail", f"{interval}: not above the limit", measured)


# ------------------------------------------------------------------------------------------------------- fairness


def _fairness(loaded: Loaded, training: TrainResult) -> Iterator[GateResult]:
    """Each group of each sensitive attribute, by the margins that the file gives for its metrics."""
    use_case = loaded.use_case
    line = loaded.line("governance", "sensitive")
    margins = [promise for promise in use_case.requirements.quality if promise.not_worse_than is not None]
    if not use_case.governance.sensitive:
        affects = use_case.risk.affects_people
        yield GateResult(
            gate="fairness",
            name="sensitive attributes",
            verdict="insufficient_evidence" if affects else "pass",
            measured=None,
            limit="every group within the margin",
            reason="the file names no sensitive attribute"
            + (", and the use case affects people" if affects else ", and the use case does not affect people"),
            line=line,
        )
        return
    if not margins:
        yield GateResult(
            gate="fairness",
            name="margin",
            verdict="insufficient_evidence",
            measured=None,
            limit="a margin in the file",
            reason="no quality line says not_worse_than, so how far a group may fall is not known",
            line=loaded.line("requirements", "quality"),
        )
        return
    for attribute in use_case.governance.sensitive:
        form = re.compile(rf"{re.escape(attribute)}[=:]")
        groups = list({c.slice: None for c in training.comparisons if form.match(c.slice)})
        if not groups:
            yield GateResult(
                gate="fairness",
                name=f"groups by {attribute}",
                verdict="insufficient_evidence",
                measured=None,
                limit="every group within the margin",
                reason=f"training reported no group by {attribute}",
                line=line,
            )
        seen: set[tuple[str, str]] = set()
        for promise in margins:
            assert promise.not_worse_than is not None
            baseline, margin = promise.not_worse_than.baseline, promise.not_worse_than.margin
            if (promise.metric, baseline) in seen:
                continue
            seen.add((promise.metric, baseline))
            for group in groups:
                on_group = msgspec.structs.replace(promise, on=group)
                yield _compared(on_group, baseline, margin, training.comparisons, line, gate="fairness")


# ------------------------------------------------------------------------------------------- latency, size, security


def _latency(loaded: Loaded, latency: Latency | None) -> GateResult:
    """The upper bound of the p99 against the limit. Where the machine's own stalls are what may have lifted it over
    the limit, nothing was shown: neither that the candidate keeps it, nor that it does not."""
    limit = loaded.use_case.requirements.p99 * 1000
    line = loaded.line("requirements", "latency", "p99")
    shown = f"<= {limit:g} ms"
    if latency is None or latency.p99.n == 0:
        reason = "not measured yet"
        return GateResult(gate="latency", name="p99", verdict="insufficient_evidence", measured=None, limit=shown,
                          reason=reason, line=line)  # fmt: skip
    p99 = latency.p99
    interval = f"{p99.value:.3g} ms [{p99.low:.3g}, {p99.high:.3g}] from {p99.n:,} requests"
    verdict: Verdict
    if p99.high <= limit:
        verdict, because = "pass", "the upper bound meets the limit"
    elif p99.high - latency.stalls > limit:
        verdict, because = "fail", "the upper bound is over the limit"
    else:
        verdict = "insufficient_evidence"
        because = (
            f"over the limit, but this machine held up fixed work by {latency.stalls:.3g} ms as often; "
            "measure on a quieter one"
        )
    return GateResult(gate="latency", name="p99", verdict=verdict, measured=p99, limit=shown,
                      reason=f"{interval}: {because}", line=line)  # fmt: skip


def _size(loaded: Loaded, size: int) -> GateResult:
    limit = loaded.use_case.requirements.size
    shown = _bytes(size)
    if limit is None:
        return GateResult(gate="size", name="bundle size", verdict="pass", measured=None, limit="none in the file",
                          reason=f"the bundle has {shown}", line=loaded.line("requirements"))  # fmt: skip
    met = size <= limit
    reason = f"the bundle has {shown}, {'within' if met else 'over'} {_bytes(limit)}"
    return GateResult(gate="size", name="bundle size", verdict="pass" if met else "fail", measured=None,
                      limit=f"<= {_bytes(limit)}", reason=reason, line=loaded.line("requirements", "size"))  # fmt: skip


def _security(loaded: Loaded, facts: Security) -> Iterator[GateResult]:
    line = loaded.line("release", "gates")
    names = ", ".join(f"{name} ({found})" for name, found in sorted(facts.formats.items()))
    refused = "; ".join(facts.refused.values())
    harmless = "a limited process runs what is code" if facts.limited else "every file runs no code"
    yield GateResult(
        gate="security",
        name="formats",
        verdict="fail" if facts.refused or not facts.formats else "pass",
        measured=None,
        limit="code only for a limited process" if facts.limited else "only formats that run no code",
        reason=refused or (f"{harmless}: {names}" if names else "there is no file to release"),
        line=line,
    )
    high = loaded.use_case.risk.level == "high"
    missing = f"the training code was not isolated{': ' + facts.reason if facts.reason else ''}"
    yield GateResult(
        gate="security",
        name="isolation",
        verdict="fail" if high and not facts.isolated else "pass",
        measured=None,
        limit="isolated" if high else "isolated where the machine can; required at high risk",
        reason="the training code ran isolated" if facts.isolated else missing,
        line=loaded.line("risk", "level"),
    )


# ----------------------------------------------------------------------------------------------------- waivers, summary


def _waived(result: GateResult, waivers: Sequence[Waiver], environment: str) -> GateResult:
    """A waiver lets through only what lacks evidence, and only in ``dev``; a failed gate stays failed."""
    if result.verdict != "insufficient_evidence" or environment != WAIVABLE_IN:
        return result
    for waiver in waivers:
        if waiver.environment == environment and waiver.gate in (result.gate, result.name):
            return msgspec.structs.replace(result, waiver=waiver.id, reason=f"{result.reason}; waived by {waiver.by}")
    return result


def _summary(results: Sequence[GateResult], passed: bool) -> str:
    count = {
        "passed": sum(r.verdict == "pass" for r in results),
        "failed": sum(r.verdict == "fail" for r in results),
        "waived": sum(r.waiver is not None for r in results),
        "without sufficient evidence": sum(r.verdict == "insufficient_evidence" and not r.waiver for r in results),
    }
    counted = ", ".join(f"{number} {what}" for what, number in count.items() if number)
    return f"{'passed' if passed else 'refused'}: {counted or 'no gate asked for'}"


def _bytes(size: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.1f} {unit}"
    return f"{size} bytes"
