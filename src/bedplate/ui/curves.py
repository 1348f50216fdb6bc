"""Which metrics are drawn together, and how: what the script in ``static/curves.js`` is told."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from bedplate.errors import InputError

MOST_LINES = 8
"""Lines of one chart; more of them go into another one."""
CONTROLS: dict[str, tuple[str, ...]] = {
    "group": ("prefix", "name", "none"),
    "axis": ("step", "time", "relative"),
    "scale": ("linear", "log"),
    "smooth": ("0", "0.3", "0.6", "0.8", "0.9", "0.95", "0.98"),
}
"""What can be chosen, the first of each unless something else is."""
_STEPS = re.compile(r"(-?\d{1,18}):(-?\d{1,18})")


class Chart(NamedTuple):
    """One chart: its title, and the metrics that are lines of it."""

    title: str
    keys: tuple[str, ...]


def one_each(keys: Iterable[str]) -> list[Chart]:
    """A chart for each metric."""
    return [Chart(key, (key,)) for key in keys]


def grouped(keys: Iterable[str], how: str) -> list[Chart]:
    """Charts of metrics that have the same prefix, or the same name behind their prefix: ``val/loss``, ``train/loss``.

    What has no prefix is drawn by itself.
    """
    if how == "none":
        return one_each(keys)
    groups: dict[str, list[str]] = {}
    for key in keys:
        prefix, slash, name = key.rpartition("/")
        groups.setdefault(key if not slash else prefix if how == "prefix" else name, []).append(key)
    charts = []
    for title, members in groups.items():
        parts = [members[start : start + MOST_LINES] for start in range(0, len(members), MOST_LINES)]
        for number, part in enumerate(parts, 1):
            charts.append(Chart(title if len(parts) == 1 else f"{title} ({number} of {len(parts)})", tuple(part)))
    return charts


def control(name: str, given: str) -> str:
    """The setting that is asked for, or the usual one."""
    return given if given in CONTROLS[name] else CONTROLS[name][0]


def steps(text: str) -> tuple[int, int]:
    """The steps that ``10:200`` asks for.

    Raises:
        InputError: it asks for none.
    """
    found = _STEPS.fullmatch(text)
    if found is None:
        raise InputError("steps are written as first:last", where="steps")
    return int(found[1]), int(found[2])
