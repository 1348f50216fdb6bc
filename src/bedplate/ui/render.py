"""Pages from templates: everything is escaped, an undefined name is an error, numbers look the same everywhere."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate import words
from bedplate.records import Estimate
from bedplate.ui import charts
from bedplate.ui.curves import CONTROLS
from bedplate.ui.frame import model_address, part, table_address

if TYPE_CHECKING:
    from jinja2 import Environment

STAGE_TITLES = {
    "check": "Checked",
    "plan": "Planned",
    "ingest": "Data in",
    "features": "Features",
    "train": "Trained",
    "gates": "Gates",
    "bundle": "Signed",
    "approve": "Approved",
    "serve": "Serving",
    "observe": "Watched",
    "decide": "Retraining",
    "look": "Pages",
    "trace": "Traced",
}
VERDICTS = {"pass": "passed", "fail": "failed", "insufficient_evidence": "not enough evidence"}
STATES = {
    "new": "new",
    "running": "running",
    "waiting": "waiting for approval",
    "served": "serving",
    "refused": "refused by a gate",
    "failed": "failed",
    "trained": "trained",
}
RUN_STATES = {
    "RUNNING": "running",
    "SCHEDULED": "scheduled",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "stopped",
}
TONES = {
    "RUNNING": "info", "FINISHED": "good", "FAILED": "bad", "KILLED": "warn", "safe": "good", "unsafe": "bad",
    "unknown": "warn", "Production": "good", "Staging": "info",
    "served": "good", "ready": "good", "pass": "good", "approved": "good", "finished": "good", "skipped": "good",
    "completed": "good", "passed": "good", "now": "info", "frozen": "warn", "rolled_back": "bad", "stopped": "bad",
    "waiting": "warn", "running": "info", "starting": "info", "asleep": "plain", "insufficient_evidence": "warn",
    "failed": "bad", "fail": "bad", "refused": "bad", "deny": "bad",
    "bad": "bad", "good": "good", "info": "info", "hidden": "warn",
}  # fmt: skip


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")


def render(template: str, context: Mapping[str, Any]) -> str:
    """The page ``template`` with ``context``."""
    return _environment().get_template(template).render(context)


@lru_cache(maxsize=1)
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape  # the first page, not the start

    environment = Environment(
        loader=PackageLoader("bedplate.ui"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.globals.update(
        charts=charts,
        curve_controls=CONTROLS,
        model_address=model_address,
        part=part,
        run_states=RUN_STATES,
        stage_titles=STAGE_TITLES,
        states=STATES,
        table_address=table_address,
        tone=lambda s: TONES.get(s, "plain"),
        verdicts=VERDICTS,
    )
    return environment


def places(estimate: Estimate) -> int:
    """Decimal places that an interval deserves: one digit of its half-width, two where that digit is a one."""
    half = (estimate.high - estimate.low) / 2
    if half <= 0:
        return 3
    return next((digits for digits in range(5) if half * 10**digits >= 1.95), 5)


def percent(value: float, digits: int = 1) -> str:
    """``15.8 %``."""
    return f"{100 * value:.{digits}f} %"


def seconds(value: float | None) -> str:
    """``4.1 s`` or ``3 min 12 s``; nothing for nothing."""
    return "" if value is None else words.seconds(value)


def moment(text: str) -> str:
    """``24 Nov 2026, 09:04 UTC`` of an RFC 3339 time; what is not one is shown as it is."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{time.astimezone(UTC) if time.tzinfo else time:%-d %b %Y, %H:%M} UTC"


def at(milliseconds: int) -> str:
    """``24 Nov 2026, 09:04 UTC`` of a time in milliseconds since 1970; what no calendar holds is shown as it is."""
    time = _time(milliseconds)
    return str(milliseconds) if time is None else f"{time:%-d %b %Y, %H:%M} UTC"


def iso(milliseconds: int) -> str:
    """``2026-11-24T09:04:12Z``, for machines and for who points at a time."""
    time = _time(milliseconds)
    return "" if time is None else f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _time(milliseconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def elapsed(milliseconds: int) -> str:
    """``4.1 s``, ``3 min 12 s``, ``5 h 02 min`` or ``3 d 4 h``; nothing for what cannot be a duration."""
    if milliseconds < 0:
        return ""
    whole = milliseconds // 1000
    if whole < 90:
        return f"{milliseconds / 1000:.1f} s"
    if whole < 5400:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def value(number: float) -> str:
    """A logged number with five digits that count: ``0.15800``, ``1,469,307``, ``2.4e-07``, ``NaN``, ``∞``."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    size = abs(number)
    if number == int(number) and size < 1e12:
        return f"{number:,.0f}".replace("-", "−")
    if not 1e-4 <= size < 1e7:
        return f"{number:.4e}".replace("e-0", "e-").replace("e+0", "e+").replace("-", "−")
    digits = max(0, 4 - math.floor(math.log10(size)))
    return f"{number:,.{digits}f}".replace("-", "−")


def told(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a recipe says of how it tested, as names and words. How large its groups are stands with the groups."""
    found: list[tuple[str, str]] = []
    for name, what in said.items():
        if isinstance(what, Mapping):
            found += [] if name == "slices" else told(what)
        elif what not in ("", [], None):
            found.append((name, ", ".join(map(_told, what)) if isinstance(what, list) else _told(what)))
    return found


def _told(what: object) -> str:
    if isinstance(what, bool) or not isinstance(what, int | float):
        return moment(str(what)) if _TIME.match(str(what)) else str(what)
    return value(what)


def base(path: str) -> str:
    """The last part of a path, whatever system it is of."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


def spelled(name: str) -> str:
    """``own_most_bought`` as ``own most bought``; the candidate as ``this model``."""
    return "this model" if name == "candidate" else name.replace("_", " ")


def title(name: str) -> str:
    """``Retail personalisation``: the name of a use case as a heading."""
    text = name.replace("-", " ").replace("_", " ")
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """``text`` on one line, with a capital first letter and one full stop."""
    text = words.one_line(text)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def symbols(text: str) -> str:
    """``>=`` and ``<=`` as people write them."""
    return text.replace(">=", "≥").replace("<=", "≤")


def as_json(value: object) -> str:
    """Indented JSON of structs and plain values."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


FILTERS: dict[str, Callable[..., object]] = {
    "as_json": as_json,
    "at": at,
    "base": base,
    "elapsed": elapsed,
    "iso": iso,
    "moment": moment,
    "money": words.money,
    "number": words.number,
    "percent": percent,
    "places": places,
    "seconds": seconds,
    "short": words.short,
    "sentence": sentence,
    "size": words.size,
    "symbols": symbols,
    "title": title,
    "told": told,
    "value": value,
    "words": spelled,
}
