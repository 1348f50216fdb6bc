"""What the types cannot say: names that must exist, sections that must agree, needs that contradict each other.

Each check looks only at what could be read, so that one slip does not hide another.
"""

import re
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bedplate import graph as graphs
from bedplate.graph import Graph
from bedplate.records import REGIONS
from bedplate.usecase import approvals, quantities
from bedplate.usecase.convert import Reading
from bedplate.usecase.problems import Keys, listing, nearest
from bedplate.usecase.types import Kpi, Money, Quality, Rollout, Workload

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_HOUR = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PRIVATE = re.compile(r"[0-9a-fA-F]{3}[13579bdfBDF],xx[0-9a-fA-F]{2}")


def check(reading: Reading) -> None:
    """Run every check, noting problems in ``reading``."""
    for run in _CHECKS:
        run(reading)


def _names(reading: Reading) -> None:
    name = reading.get("name")
    if isinstance(name, str) and not _NAME.fullmatch(name):
        fixed = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63]
        reading.note(
            ("name",),
            f"{name[:60]!r} is not a name",
            allowed="a lower-case letter, then letters, digits and dashes, 63 at most",
            suggestion=fixed if _NAME.fullmatch(fixed) else None,
        )
    data = reading.root.at(("data",))
    if data is not None and data.kind == "mapping":
        if not data.entries and reading.get("workload", "kind") in _TRAINED:
            reading.note(("data",), "no data set is named", allowed="at least one data set")
        for dataset in data.entries:
            if not _WORD.fullmatch(dataset):
                reading.note(
                    ("data", dataset),
                    f"{dataset[:60]!r} is not the name of a data set",
                    allowed="a lower-case letter, then letters, digits and underscores",
                    suggestion=re.sub(r"[^a-z0-9]+", "_", dataset.lower()).strip("_") or None,
                    found=dataset[:60],
                )


def _objective(reading: Reading) -> None:
    kpi = reading.get("objective", "kpi")
    if not isinstance(kpi, Kpi):
        return
    if kpi.target == kpi.baseline:
        reading.note(("objective", "kpi", "target"), "target and baseline are the same", allowed="a target to reach")
    elif (kpi.target > kpi.baseline) != (kpi.direction == "up"):
        reading.note(
            ("objective", "kpi", "direction"),
            f"from {kpi.baseline:g} to {kpi.target:g} is not {kpi.direction}",
            allowed="the direction from baseline to target",
            suggestion="down" if kpi.direction == "up" else "up",
        )


_SIZES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "recommender": (("catalogue", "users"), ("model", "rows")),
    "tabular": (("target", "task"), ("model", "rows")),
    "image_training": (("model", "images"), ("epochs", "batch", "precision")),
    "image_inference": (("model",), ("precision",)),
    "embedding": (("model", "tokens_in"), ("precision",)),
    "llm_training": (("model", "tokens", "sequence", "batch"), ("precision",)),
    "llm_inference": (("model", "tokens_in", "tokens_out"), ("cached", "precision")),
    "batch_scoring": (("rows",), ()),
    "data_pipeline": (("bytes", "record", "cpu"), ("epochs",)),
}
"""What each kind of workload needs to be told of its size, and what it may be told."""
KINDS = tuple(_SIZES)
"""The kinds of workload."""
_TRAINED = ("recommender", "tabular")
"""Kinds that are trained from data sets of the file; the others can be planned before there are any."""
_RUNS = ("image_training", "llm_training", "batch_scoring", "data_pipeline")
"""Kinds that run and end; the others serve."""


def needed(kind: str) -> tuple[Keys, ...]:
    """The values that the planner cannot do without for a kind of workload."""
    sizes = tuple(("workload", field) for field in _SIZES[kind][0])
    if kind in _RUNS:
        return (*sizes, ("requirements", "time"))
    return (*sizes, ("requirements", "latency", "p99"), ("requirements", "throughput", "peak"))


def _workload(reading: Reading) -> None:
    kind = reading.get("workload", "kind")
    node = reading.root.at(("workload",))
    if node is None or node.kind != "mapping" or kind not in _SIZES:
        return
    needs, may = _SIZES[kind]
    for field in needs:
        if field not in node.entries:
            reading.note(
                ("workload",), f"workload {kind!r} needs {field!r}", allowed=f"{listing(needs, 'and')} given", found=""
            )
    for field in node.entries:
        if field in Workload.__struct_fields__ and field not in ("kind", *needs, *may):
            reading.note(
                ("workload", field), f"{field!r} has no meaning for workload {kind!r}", allowed=listing((*needs, *may))
            )
        elif reading.get("workload", field) == 0 and field != "cached":
            reading.note(("workload", field), f"{field!r} must be above zero", allowed="more than zero")
    if (reading.get("workload", "cached") or 0) >= 1:
        reading.note(("workload", "cached"), "of every request something is new", allowed="less than 100 %")
    _promised(reading, kind)


def _promised(reading: Reading, kind: str) -> None:
    """What serves has a latency and a throughput; what runs has a time in which it ends."""
    given = reading.root.at(("requirements",))
    if given is None or given.kind != "mapping":
        return
    ends = kind in _RUNS
    wanted, foreign = (("time",), ("latency", "throughput")) if ends else (("latency", "throughput"), ("time",))
    for field in wanted:
        if field not in given.entries:
            reading.note(("requirements",), f"workload {kind!r} needs {field!r}", allowed=listing(wanted), found="")
    for field in foreign:
        if field in given.entries:
            text = f"{field!r} has no meaning for workload {kind!r}, which {'ends' if ends else 'serves'}"
            reading.note(("requirements", field), text, allowed=listing(wanted))
    for field in ("first_token", "per_token"):
        if kind != "llm_inference" and reading.get("requirements", "latency", field) is not None:
            reading.note(("requirements", "latency", field), "only llm_inference answers in tokens", allowed="p99, p50")
    if reading.get("requirements", "time") == 0:
        reading.note(("requirements", "time"), "'time' must be above zero", allowed="more than zero")
    if kind in _TRAINED and reading.root.at(("data",)) is None:
        reading.note(("data",), "no data set is named", allowed="at least one data set")


def _speed(reading: Reading) -> None:
    section = ("requirements", "latency")
    for keys in (
        (*section, "p99"),
        (*section, "p50"),
        (*section, "first_token"),
        (*section, "per_token"),
        ("requirements", "throughput", "peak"),
    ):
        if reading.get(*keys) == 0:
            reading.note(keys, f"{keys[-1]!r} must be above zero", allowed="more than zero")
    p50, p99 = reading.get(*section, "p50"), reading.get(*section, "p99")
    if p50 is not None and p99 is not None and p50 > p99:
        reading.note((*section, "p50"), "half of the calls may be slower than nearly all of them", allowed="p50 <= p99")
    availability = reading.get("requirements", "availability")
    if availability is not None and not 0.5 <= availability < 1:
        text = "100 % cannot be promised" if availability == 1 else f"{availability * 100:g} % is no availability"
        reading.note(("requirements", "availability"), text, allowed="from 50 % to below 100 %", suggestion="99.9 %")


def _quality(reading: Reading) -> None:
    needs = reading.root.at(("requirements", "quality"))
    seen: dict[tuple[Any, ...], int] = {}
    for i in range(len(needs.items) if needs is not None else 0):
        need = reading.get("requirements", "quality", i)
        if not isinstance(need, Quality):
            continue
        keys: Keys = ("requirements", "quality", i)
        forms = [f for f in ("better_than", "not_worse_than", "at_least") if getattr(need, f) is not None]
        if len(forms) != 1:
            reading.note(
                keys,
                f"{listing(forms).replace(' or ', ' and ')} together"
                if forms
                else "this need says nothing about the metric",
                allowed="exactly one of better_than, not_worse_than or at_least",
                found=need.metric,
            )
            continue
        if need.not_worse_than is not None and need.not_worse_than.margin < 0:
            reading.note((*keys, "not_worse_than", "margin"), "a margin below zero", allowed="zero or more")
        form = forms[0]
        value = getattr(need, form)
        baseline = value.baseline if form == "not_worse_than" else value if form == "better_than" else None
        same = (need.metric, need.on, form, baseline)
        if same in seen:
            first = reading.root.position(("requirements", "quality", seen[same]))[0]
            reading.note(
                keys,
                f"{need.metric} on {need.on} has this need already, on line {first}",
                allowed="each need once",
                found=need.metric,
            )
        seen.setdefault(same, i)


def _money(reading: Reading) -> None:
    places: tuple[Keys, ...] = (
        ("requirements", "budget", "monthly"),
        ("requirements", "budget", "training_run"),
        ("objective", "value", "per_unit"),
    )
    found = [(keys, reading.get(*keys)) for keys in places]
    amounts = [(keys, money) for keys, money in found if isinstance(money, Money)]
    for keys, money in amounts[1:]:
        first_keys, first = amounts[0]
        if money.currency != first.currency:
            line = reading.root.position(first_keys)[0]
            reading.note(
                keys,
                f"{money.currency} here but {first.currency} on line {line}",
                allowed="one currency in the whole file",
                suggestion=f"{money.amount:g} {first.currency}",
            )
    for keys, money in amounts:
        if money.amount == 0:
            reading.note(keys, f"{keys[-1]!r} is zero", allowed="more than zero")


def _residency(reading: Reading) -> None:
    node = reading.root.at(("requirements", "residency"))
    for i, child in enumerate(node.items if node is not None else ()):
        if reading.get("requirements", "residency", i) is not None and child.text not in REGIONS:
            reading.note(
                ("requirements", "residency", i),
                f"{child.text[:60]!r} is not a residency",
                allowed=listing(REGIONS),
                suggestion=nearest(child.text, REGIONS),
            )
    data = reading.root.at(("data",))
    for name in data.entries if data is not None and data.kind == "mapping" else ():
        region = reading.get("data", name, "source", "region")
        if isinstance(region, str) and region and region not in REGIONS:
            reading.note(
                ("data", name, "source", "region"),
                f"{region[:60]!r} is not a region",
                allowed=listing(REGIONS),
                suggestion=nearest(region, REGIONS),
            )


def _release(reading: Reading) -> None:
    node = reading.root.at(("release", "approvals"))
    for environment, child in (node.entries if node is not None else {}).items():
        keys: Keys = ("release", "approvals", environment)
        if not _NAME.fullmatch(environment):
            reading.note(keys, f"{environment[:60]!r} is not the name of an environment", allowed="dev or production")
        text = reading.get(*keys)
        if isinstance(text, str):
            try:
                approvals.parse(text)
            except approvals.QuorumError as error:
                form = "a name, or '2 of [name, name]'"
                reading.note(keys, str(error)[:120], allowed=form, found=child.text[:60])
    gates = reading.root.at(("release", "gates"))
    words = [g.text for g in gates.items] if gates is not None else []
    for i, gate in enumerate(words):
        if gate in words[:i]:
            reading.note(("release", "gates", i), f"gate {gate!r} stands twice", allowed="each gate once")
    whole = reading.get("requirements")
    if whole is None:
        return
    if "quality" in words and not whole.quality:
        _unmet(reading, words, "quality", "requirements.quality names nothing to compare")
    if "size" in words and whole.size is None:
        _unmet(reading, words, "size", "requirements.size gives no limit")
    if "fairness" in words and all(need.on == "all" for need in whole.quality):
        _unmet(reading, words, "fairness", "no need in requirements.quality is on a group")


def _unmet(reading: Reading, gates: list[str], gate: str, reason: str) -> None:
    reading.note(
        ("release", "gates", gates.index(gate)),
        f"the {gate} gate has nothing to judge: {reason}",
        allowed=f"what the {gate} gate needs, or no such gate",
    )


def _schedule(reading: Reading) -> None:
    """The times of day at which more replicas serve, and the clock they are read from."""
    at = ("serve", "replicas")
    zone = reading.get(*at, "zone")
    if zone is not None:
        try:
            ZoneInfo(zone)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            reading.note((*at, "zone"), f"{zone!r} is not a time zone", allowed="a name like Europe/Berlin, or UTC")
    high = reading.get(*at, "max")
    for i, shift in enumerate(reading.get(*at, "schedule") or ()):
        for name, value in (("from", shift.from_), ("to", shift.to)):
            if not _HOUR.fullmatch(value):
                reading.note(
                    (*at, "schedule", i, name),
                    f"{value!r} is not a time of day",
                    allowed='hours and minutes, for example "07:30"',
                )
        if shift.min > (1 if high is None else high):
            reading.note(
                (*at, "schedule", i, "min"), f"at least {shift.min} but at most {high or 1}", allowed="min <= max"
            )
        if not shift.days:
            reading.note((*at, "schedule", i, "days"), "it never begins", allowed="one day or more")


def _upkeep(reading: Reading) -> None:
    for task in ("promises", "expire", "compact", "scrub", "skew"):
        interval = reading.get("upkeep", task)
        if interval is not None and interval < 60:
            reading.note(("upkeep", task), "it would be done all the time", allowed="1 min or more", suggestion="1 d")
    if reading.get("upkeep", "skew") is not None and not reading.get("features"):
        reading.note(("upkeep", "skew"), "no feature could differ", allowed="a view or more in features")


def _alerts(reading: Reading) -> None:
    for number, alert in enumerate(reading.get("alerts") or ()):
        if alert.when == "skew" and reading.get("upkeep", "skew") is None:
            reading.note(("alerts", number, "when"), "nothing measures skew", allowed="upkeep: { skew: 1 d } beside it")
        if alert.when == "skew" and alert.then == "consider_retrain":
            reading.note(
                ("alerts", number, "then"),
                "what was served was wrong, not what was learned",
                allowed="nothing",
                suggestion="nothing",
            )
        if alert.then == "roll_back" and alert.when != "slo_burn":
            reading.note(
                ("alerts", number, "then"),
                f"{alert.when} rolls nothing back",
                allowed="roll_back with when: slo_burn",
                suggestion="nothing",
            )
        if alert.then == "roll_back" and reading.get("requirements", "availability") == 1:
            reading.note(
                ("requirements", "availability"),
                "with an availability of 100 % there is no budget that could burn",
                allowed="below 100 %",
                suggestion="99.9 %",
            )


def _deidentified(reading: Reading) -> None:
    for name, data in (reading.get("data") or {}).items():
        asked = data.deidentify
        if asked is None:
            continue
        at: Keys = ("data", name, "deidentify")
        profile = {"dicom": "dicom-basic", "images": "images"}.get(data.source.kind)
        if asked.profile != profile:
            allowed = f"{profile}, for files of {data.source.kind}" if profile else "source.kind: dicom or images"
            reading.note((*at, "profile"), f"{data.source.kind} has no such profile", allowed=allowed)
        options = set(asked.options)
        if asked.profile == "images" and options - {"clean-pixel-data"}:
            text = "files other than DICOM have pixels alone"
            reading.note((*at, "options"), text, allowed="clean-pixel-data", suggestion="[clean-pixel-data]")
        if "clean-visual-features" in options:
            text = "nothing here finds a face in pixels"
            reading.note((*at, "options"), text, allowed="to leave it out, and to take faces out of the files before")
        if {"retain-full-dates", "modified-dates"} <= options:
            reading.note((*at, "options"), "dates are kept or moved, not both", allowed="one of them")
        if (bool(asked.regions) or asked.text == "find") != ("clean-pixel-data" in options):
            text = "the option clean-pixel-data belongs together with regions, or with text: find"
            reading.note((*at, "regions"), text, allowed="both of them, or none")
        if bool(asked.private) != ("retain-safe-private" in options):
            text = "private and the option retain-safe-private belong together"
            reading.note((*at, "private"), text, allowed="both of them, or none")
        for number, region in enumerate(asked.regions):
            for place, box in enumerate(region.boxes):
                if len(box) != 4 or min(box) < 0 or box[0] >= box[2] or box[1] >= box[3]:
                    keys = (*at, "regions", number, "boxes", place)
                    reading.note(keys, "this is no box", allowed="[left, top, right, bottom], such as [0, 0, 640, 40]")
        for creator, elements in asked.private.items():
            for place, element in enumerate(elements):
                if not _PRIVATE.fullmatch(element):
                    keys = (*at, "private", creator, place)
                    reading.note(keys, "this is no private element", allowed="an odd group and xx, such as 0043,xx39")


def _serving(reading: Reading) -> None:
    low, high = reading.get("serve", "replicas", "min"), reading.get("serve", "replicas", "max")
    if low is not None and high is not None and low > high:
        reading.note(("serve", "replicas", "min"), f"at least {low} but at most {high}", allowed="min <= max")
    if high == 0:
        reading.note(("serve", "replicas", "max"), "no replica could ever serve", allowed="1 or more")
    _schedule(reading)
    for key in ("port", "grpc_port"):
        port = reading.get("serve", key)
        if port is not None and not 1 <= port <= 65535:
            reading.note(("serve", key), f"{port} is not a port", allowed="1 to 65535")
    if reading.get("serve", "grpc_port") is not None and "grpc" not in (reading.get("serve", "protocol") or ()):
        reading.note(("serve", "grpc_port"), "the protocols do not name grpc", allowed="protocol: [rest, grpc]")
    rollout = reading.get("serve", "rollout")
    if isinstance(rollout, Rollout):
        steps = rollout.steps
        if not steps or steps[-1] != 1 or any(b <= a for a, b in zip((0.0, *steps), steps, strict=False)):
            reading.note(
                ("serve", "rollout", "steps"),
                "the steps do not rise to 100 %",
                allowed="rising shares that end in 100 %",
                suggestion="[1 %, 10 %, 50 %, 100 %]",
            )
        if rollout.between[0] >= rollout.between[1]:
            reading.note(("serve", "rollout", "between"), "no value lies between them", allowed="a rising pair")
    rate, burst = (reading.get("serve", "quota", field) for field in ("rate", "burst"))
    if burst is not None and rate is None:
        reading.note(("serve", "quota", "burst"), "a burst of no rate", allowed="a rate beside it")
    for field, value in (("rate", rate), ("burst", burst)):
        if value == 0:
            reading.note(
                ("serve", "quota", field), f"with this {field} nobody could ask anything", allowed="above zero"
            )
    if reading.get("risk", "level") == "high" and reading.get("serve", "log") == "buffered":
        reading.note(
            ("serve", "log"),
            "a use case of high risk keeps every prediction it answered",
            allowed="durable",
            suggestion="durable",
        )


def _monitoring(reading: Reading) -> None:
    data = reading.root.at(("data",))
    names = list(data.entries) if data is not None else []
    dataset = reading.get("monitor", "outcomes", "data")
    if isinstance(dataset, str) and dataset not in names:
        reading.note(
            ("monitor", "outcomes", "data"),
            f"{dataset[:60]!r} is not a data set of this file",
            allowed=listing(names) or "a data set",
            suggestion=nearest(dataset, names),
        )
    within, retention = reading.get("monitor", "outcomes", "within"), reading.get("governance", "retention")
    if within is not None and retention is not None and within > retention:
        reading.note(
            ("monitor", "outcomes", "within"),
            "outcomes are awaited for longer than data may be kept",
            allowed="at most governance.retention",
        )


def _training(reading: Reading) -> None:
    holdout = reading.get("train", "holdout")
    if isinstance(holdout, str):
        try:
            parse_holdout(holdout)
        except quantities.QuantityError as error:
            reading.note(("train", "holdout"), str(error)[:120], allowed=error.allowed, suggestion=error.suggestion)
    for field in ("cpu", "memory"):
        if reading.get("train", "resources", field) == 0:
            reading.note(("train", "resources", field), f"no {field} to train with", allowed="more than zero")


def _graph(reading: Reading) -> None:
    graph = reading.get("graph")
    for keys, message, allowed in graphs.problems(graph) if isinstance(graph, Graph) else ():
        reading.note(("graph", *keys), message, allowed=allowed)


def parse_holdout(text: str) -> tuple[str, float]:
    """``("share", 0.2)`` for ``20 %``, ``("time", seconds)`` for ``28 d``.

    Raises:
        QuantityError: neither of them, or a share that leaves nothing to train or to test on.
    """
    allowed = "a share of the rows (20 %) or the last stretch of time (28 d)"
    kind = "share" if text.strip().endswith("%") else "duration"
    try:
        value = quantities.parse(text, kind)
    except quantities.QuantityError as error:
        raise quantities.QuantityError(str(error), allowed, error.suggestion) from None
    if value == 0 or (kind == "share" and value >= 0.9):
        raise quantities.QuantityError(f"{text!r} leaves nothing to train or to test on", allowed)
    return ("share" if kind == "share" else "time"), value


_CHECKS: tuple[Callable[[Reading], None], ...] = (
    _names,
    _deidentified,
    _objective,
    _workload,
    _speed,
    _quality,
    _money,
    _residency,
    _release,
    _serving,
    _alerts,
    _upkeep,
    _monitoring,
    _training,
    _graph,
)
