"""A feature view as declared in ``pipeline.py``: SQL over inputs that end before ``as_of``."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Protocol

import msgspec

from bedplate.errors import InputError


class Declaration(Protocol):
    """A marked function, as :func:`bedplate.compute.sandbox.describe` tells of it."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def sql(self) -> str | None: ...


class Periods(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time as a count of periods of ``days`` days: period 1 begins at ``first``."""

    column: str
    first: date
    days: int


class FeatureView(msgspec.Struct, frozen=True, kw_only=True):
    """One view. ``times`` says for every input by what it ends: a timestamp column, periods, or None for "no time"."""

    name: str
    entity: tuple[str, ...]
    times: dict[str, str | Periods | None]
    sql: str


def declared(declarations: Iterable[Declaration], wanted: Iterable[str]) -> tuple[FeatureView, ...]:
    """The views called ``wanted``, in that order.

    Raises:
        InputError: ``pipeline.py`` declares no such view, or an option of it makes no sense.
    """
    found = {d.name: d for d in declarations if d.kind == "feature_view"}
    views = []
    for name in wanted:
        if name not in found:
            known = ", ".join(sorted(found)) or "none at all"
            raise InputError(
                f"pipeline.py declares no feature view {name!r}", where="features", fix=f"name one it declares: {known}"
            )
        views.append(_view(found[name]))
    return tuple(views)


def _view(declaration: Declaration) -> FeatureView:
    where = f"pipeline.py: {declaration.name}"
    entity, inputs = tuple(declaration.options["entity"]), tuple(declaration.options["inputs"])
    if not 1 <= len(entity) <= 2:
        raise InputError("a feature view has one or two entity columns", where=where, fix="name one or two")
    if not inputs:
        raise InputError("a feature view needs at least one input", where=where, fix="name its data sets in inputs")
    option = declaration.options.get("time")
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
    return FeatureView(name=declaration.name, entity=entity, times=times, sql=declaration.sql or "")
