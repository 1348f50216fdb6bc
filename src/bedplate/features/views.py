"""A feature view as it was declared: SQL over inputs that end before ``as_of``, and what is made of it."""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Literal, Protocol

import msgspec

from bedplate import ids
from bedplate.errors import InputError
from bedplate.ids import Digest
from bedplate.serve.expressions import Expression
from bedplate.usecase import quantities

Aggregate = Literal["count", "sum", "mean", "min", "max", "last"]


class Declaration(Protocol):
    """A marked function, as :func:`bedplate.compute.sandbox.describe` tells of it, or a file of SQL."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def sql(self) -> str | None: ...
    @property
    def line(self) -> int: ...
    @property
    def file(self) -> str: ...


class Periods(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time as a count of periods of ``days`` days: period 1 begins at ``first``."""

    column: str
    first: date
    days: int


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One windowed feature: ``of`` the values of ``column`` in the rows of an entity that lie in [t - ``over``, t).

    ``over`` in seconds. ``count`` counts rows and has no column; ``last`` is the value of the newest row.
    """

    of: Aggregate
    over: float
    column: str = ""


class FeatureView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One view. ``times`` says for every input by what it ends: a timestamp column, periods, or None for "no time".

    A view *of moments* (``rows`` is False) is computed for given moments. A view *of rows* knows an entity's features
    at any moment: those of its newest row, or what ``windows`` make of its rows. ``ttl`` in seconds: how old the moment
    or the newest row may be. ``on_demand`` are expressions over features and the ``request`` columns.
    """

    name: str
    entity: tuple[str, ...]
    times: dict[str, str | Periods | None]
    sql: str
    rows: bool = False
    windows: dict[str, Window] = {}
    on_demand: dict[str, str] = {}
    request: tuple[str, ...] = ()
    ttl: float | None = None
    defaults: dict[str, float] = {}
    owner: str = ""

    @property
    def digest(self) -> Digest:
        """The version of the declaration: another one, another digest."""
        return ids.digest_of(self)

    @property
    def event_time(self) -> str:
        """The timestamp column of the one input of a view of rows."""
        (time,) = self.times.values()
        assert isinstance(time, str), "checked when it was declared"
        return time

    def speaks_of(self, column: str) -> bool:
        """Whether its features may rest on ``column`` of an input: its SQL, or a time, names it, or takes every one."""
        text = f"{self.sql} {self.times}"
        return "*" in self.sql or re.search(rf"(?i)(?<!\w){re.escape(column)}(?!\w)", text) is not None


def declared(declarations: Iterable[Declaration], wanted: Iterable[str]) -> tuple[FeatureView, ...]:
    """The views called ``wanted``, in that order.

    Raises:
        InputError: one is declared nowhere, or in two places, or an option of it makes no sense.
    """
    found: dict[str, Declaration] = {}
    for each in declarations:
        if each.kind == "feature_view" and found.setdefault(each.name, each) is not each:
            places = f"{found[each.name].file}:{found[each.name].line} and {each.file}"
            raise InputError(f"the feature view {each.name!r} is declared twice", where=places, fix="leave one out")
    views = []
    for name in wanted:
        if name not in found:
            known = ", ".join(sorted(found)) or "none at all"
            raise InputError(
                f"no feature view {name!r} is declared",
                where="features",
                fix=f"name one of {known}, or write features/{name}.sql",
            )
        views.append(_view(found[name]))
    return tuple(views)


def _view(declaration: Declaration) -> FeatureView:
    where = f"{declaration.file}:{declaration.line}: {declaration.name}"
    options = declaration.options
    entity, inputs = tuple(options["entity"]), tuple(options["inputs"])
    if not 1 <= len(entity) <= 2:
        raise InputError("a feature view has one or two entity columns", where=where, fix="name one or two")
    if not inputs:
        raise InputError("a feature view needs at least one input", where=where, fix="name its data sets in inputs")
    times = _times(options.get("time"), inputs, where)
    view = FeatureView(
        name=declaration.name,
        entity=entity,
        times=times,
        sql=declaration.sql or "",
        rows=bool(options.get("rows")),
        windows={name: _window(name, given, where) for name, given in (options.get("windows") or {}).items()},
        on_demand=dict(options.get("on_demand") or {}),
        request=tuple(options.get("request") or ()),
        ttl=_duration(options.get("ttl"), "ttl", where),
        defaults=_defaults(options.get("defaults") or {}, where),
        owner=str(options.get("owner") or ""),
    )
    if view.rows and not (len(times) == 1 and isinstance(next(iter(times.values())), str)):
        raise InputError(
            "a view of rows has one input, with a timestamp column",
            where=where,
            fix="name one input and its column in time, or leave rows and windows out",
        )
    _check_on_demand(view, where)
    return view


def _times(option: Any, inputs: tuple[str, ...], where: str) -> dict[str, str | Periods | None]:
    try:
        by_input = option if isinstance(option, Mapping) else dict.fromkeys(inputs, option)
        times = {name: msgspec.convert(by_input[name], str | Periods | None) for name in inputs}
    except (KeyError, msgspec.ValidationError) as error:
        raise InputError(
            f"time does not say how each input ends: {error}",
            where=where,
            fix="give a timestamp column, a count of periods, or None for each input",
        ) from error
    if all(time is None for time in times.values()):
        raise InputError("no input has a time, so nothing keeps the view from its future", where=where, fix="give time")
    return times


def _window(name: str, given: Mapping[str, Any], where: str) -> Window:
    seconds = _duration(given.get("over"), f"windows.{name}.over", where)
    if seconds is None:
        raise InputError(f"the window of {name} has no length", where=where, fix='write "over": "7 d"')
    try:
        window = msgspec.convert({**given, "over": seconds}, Window)
    except msgspec.ValidationError as error:
        raise InputError(f"the window of {name} cannot be used: {error}", where=where) from error
    if strange := sorted(given.keys() - {"of", "column", "over"}):
        raise InputError(f"the window of {name} has no {strange[0]!r}", where=where, fix="give of, column and over")
    if (window.of == "count") == bool(window.column):
        raise InputError(
            f"the window of {name} is a {window.of} of {window.column or 'no column'}",
            where=where,
            fix="name a column, except for count, which counts rows",
        )
    return window


def _duration(given: Any, what: str, where: str) -> float | None:
    if given is None:
        return None
    try:
        seconds = quantities.parse(given, "duration")
    except quantities.QuantityError as error:
        raise InputError(f"{what}: {error}", where=where, fix="write a time with its unit, such as 7 d") from error
    if not seconds > 0:
        raise InputError(f"{what} is no time: {given!r}", where=where, fix="write a time above 0, such as 7 d")
    return seconds


def _defaults(given: Mapping[str, Any], where: str) -> dict[str, float]:
    try:
        return msgspec.convert(dict(given), dict[str, float])
    except msgspec.ValidationError as error:
        raise InputError(f"a default is no number: {error}", where=where, fix="give numbers by feature") from error


def _check_on_demand(view: FeatureView, where: str) -> None:
    if view.on_demand and len(view.entity) != 1:
        raise InputError("features on demand are of one entity", where=where, fix="declare them in a view of one")
    for name, text in view.on_demand.items():
        try:
            expression = Expression(text)
        except InputError as error:
            raise InputError(f"{name}: {error.message}", where=where, fix=error.fix) from None
        if name in view.request or name in view.windows:
            raise InputError(f"{name!r} is declared twice", where=where, fix="rename one")
        if view.windows and (odd := sorted(expression.names - view.windows.keys() - set(view.request))):
            raise InputError(
                f"{name}: {odd[0]!r} is no feature of the view and not in request",
                where=where,
                fix=f"use {', '.join((*view.windows, *view.request))}",
            )
    named = set().union(*(Expression(text).names for text in view.on_demand.values()), set())
    if unused := [name for name in view.request if name not in named]:
        raise InputError(f"no feature on demand uses {unused[0]!r}", where=where, fix="leave it out of request")
