"""What a contract promises over time, its ``slaProperties``: those that something here keeps or watches."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bedplate.data.model import Frequency, Freshness, Retention
from bedplate.data.yaml_lines import Path as Place
from bedplate.words import span

if TYPE_CHECKING:
    from bedplate.data.contracts import Parser

_SECONDS = {
    "s": 1.0, "second": 1.0, "seconds": 1.0, "min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0,
    "hours": 3600.0, "d": 86_400.0, "day": 86_400.0, "days": 86_400.0, "month": 30 * 86_400.0, "months": 30 * 86_400.0,
    "y": 365 * 86_400.0, "yr": 365 * 86_400.0, "year": 365 * 86_400.0, "years": 365 * 86_400.0,
}  # fmt: skip
"""Seconds in each unit that a time may be written in."""
_SHARES = {"percent": 0.01, "%": 0.01}
_NAMES = {
    "retention": "retention", "re": "retention", "freshness": "freshness", "frequency": "frequency", "fy": "frequency",
    "completeness": "completeness",
}  # fmt: skip
_CRON = re.compile(r"[0-9A-Za-z*/,?#-]+( [0-9A-Za-z*/,?#-]+){4}")
_ANY = re.compile(r"(?i)(^| )[hr](?![a-z])")
"""Fields that some schedulers fill in by chance or by name: nobody else knows what they mean."""
Promised = Retention | Freshness | Frequency | float | None


def promised(parser: "Parser", value: dict[str, Any], place: Place) -> Promised:
    """What an SLA property promises; None where it is for people. A number is a completeness."""
    promise, amount = _NAMES.get(str(value.get("property")).lower()), value.get("value")
    if promise is None:
        return None
    units = _SHARES if promise == "completeness" else _SECONDS
    factor = units.get(str(value.get("unit", "d" if units is _SECONDS else "percent")).lower())
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount > 0:
        parser.problem((*place, "value"), f"a {promise} is a number above 0")
    elif factor is None:
        parser.problem((*place, "unit"), f"unit is {value.get('unit')!r}; use one of {', '.join(units)}")
    elif promise == "completeness":
        if amount * factor > 1:
            parser.problem((*place, "value"), "a completeness is 100 percent at most")
        return float(amount * factor)
    elif promise == "frequency":
        element = str(value.get("element") or parser.document.value.get("slaDefaultElement") or "")
        return Frequency(
            table=element.partition(".")[0], seconds=amount * factor, schedule=_schedule(parser, value, place)
        )
    else:
        return _timed(parser, promise, value, amount * factor, place)
    return None


def _timed(
    parser: "Parser", promise: str, value: dict[str, Any], seconds: float, place: Place
) -> Retention | Freshness | None:
    """A promise that is counted from the time in a column."""
    element = value.get("element") or parser.document.value.get("slaDefaultElement") or ""
    table, _, column = str(element).rpartition(".")
    if not column:
        parser.problem(place, f"a {promise} needs the element whose time it counts from, as in table.column")
        return None
    if _kind_of(parser, table, column) not in ("date", "timestamp"):
        parser.problem((*place, "element"), f"{column} is no date or timestamp of {table or 'the schema'}")
    if promise == "freshness":
        return Freshness(table=table, column=column, seconds=seconds, schedule=_schedule(parser, value, place))
    return Retention(table=table, column=column, days=seconds / 86_400)


def _kind_of(parser: "Parser", table: str, column: str) -> Any:
    """The logical type that the document gives a column of an object, of any where ``table`` is empty."""
    for _, model in parser.items(parser.document.value, "schema", ()):
        if isinstance(model, dict) and table in ("", model.get("name")):
            for _, item in parser.items(model, "properties", ()):
                if isinstance(item, dict) and item.get("name") == column:
                    return item.get("logicalType")
    return None


def due(schedule: str, now: datetime) -> datetime:
    """The newest moment of a schedule that is not after ``now``, in UTC; ``now`` itself without a schedule."""
    if not schedule:
        return now
    from croniter import croniter  # on use: most contracts have no schedule

    second = now.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)  # what comes now counts
    found: datetime = croniter(schedule, second).get_prev(datetime)
    return found


def told(promised: Freshness | Frequency) -> str:
    """A promise that is watched, in words."""
    length = span(promised.seconds)
    words = f"at most {length} old" if isinstance(promised, Freshness) else f"rows every {length}"
    return f"{words}, by the schedule {promised.schedule} (UTC)" if promised.schedule else words


def _schedule(parser: "Parser", value: dict[str, Any], place: Place) -> str:
    """When a promise is judged, five fields of cron; empty where that is at any moment."""
    scheduler, schedule = value.get("scheduler"), value.get("schedule")
    if scheduler is None and schedule is None:
        return ""
    if scheduler not in (None, "cron"):
        parser.problem((*place, "scheduler"), f"scheduler is {scheduler!r}; use cron, which is watched here")
        return ""
    text = " ".join(str(schedule).split()) if isinstance(schedule, str) else ""
    if not _CRON.fullmatch(text) or _ANY.search(text) or not _ever(text):
        parser.problem((*place, "schedule"), f"schedule is {schedule!r}; write five fields of cron, as in 0 6 * * 1-5")
        return ""
    return text


def _ever(schedule: str) -> bool:
    """Whether it is a schedule that has a moment at all."""
    from croniter import CroniterError

    try:
        due(schedule, datetime(2024, 3, 1, tzinfo=UTC))  # just after a 29th of February
    except CroniterError:
        return False
    return True
