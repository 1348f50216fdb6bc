"""Decorators for ``pipeline.py``: they mark ordinary typed functions, which stay callable and testable as they are.

Nothing here runs user code; :mod:`bedplate.compute` does, in a process of its own.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, overload

import msgspec

F = TypeVar("F", bound=Callable[..., Any])

Kind = Literal["dataset", "feature_view", "train", "evaluate", "predictor", "network"]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What a decorator recorded about a function: its role, its name in the use case, and its options."""

    kind: Kind
    name: str
    options: Mapping[str, Any]


def _marker(kind: Kind, function: F, options: dict[str, Any]) -> F:
    function.__bedplate__ = Mark(kind=kind, name=function.__name__, options=options)  # type: ignore[attr-defined]
    return function


def mark_of(value: object) -> Mark | None:
    """The mark a decorator left on ``value``, if any."""
    mark = getattr(value, "__bedplate__", None)
    return mark if isinstance(mark, Mark) else None


def dataset(*, name: str) -> Callable[[F], F]:
    """Mark a function that cleans one data set: Arrow table in, Arrow table out, before the contract is applied."""
    return lambda function: _marker("dataset", function, {"name": name})


def feature_view(
    *,
    entity: tuple[str, ...] | str,
    inputs: tuple[str, ...],
    time: str | Mapping[str, Any] | None = None,
    rows: bool = False,
    windows: Mapping[str, Mapping[str, str]] | None = None,
    on_demand: Mapping[str, str] | None = None,
    request: tuple[str, ...] = (),
    ttl: str | None = None,
    defaults: Mapping[str, float] | None = None,
    owner: str = "",
) -> Callable[[F], F]:
    """Mark a function that returns the SQL of a feature view.

    The SQL sees each input as a governed view that already ends before ``as_of``, and gives one row per ``entity``.
    ``$as_of`` is bound to the moment the features are for.

    ``time`` says by what an input ends: the name of its timestamp column, for all inputs or by input; a count of
    periods as ``{"column": "week", "first": "2016-12-26", "days": 7}``, where period 1 begins at ``first`` and its rows
    are known from its beginning on; or None for an input that has no time, such as a product list.

    With ``rows``, or ``windows``, the SQL gives a row for each row of its one input instead, with its timestamp column:
    an entity's features at any moment are those of its newest row before it. ``windows`` makes features of these rows,
    by name: ``{"spend_7d": {"of": "sum", "column": "value", "over": "7 d"}}`` (of ``count``, ``sum``, ``mean``,
    ``min``, ``max`` or ``last``).

    ``on_demand`` are features that a request completes: arithmetic on the view's features and the columns that
    ``request`` names, ``{"over_usual": "amount / spend_mean"}``. ``ttl`` (``30 d``) is how old may be what features
    rest on, ``defaults`` are what stands for a feature that is missing, ``owner`` who answers for it.
    """
    options = feature_options(
        entity=entity, inputs=inputs, time=time, rows=rows, windows=windows, on_demand=on_demand, request=request,
        ttl=ttl, defaults=defaults, owner=owner,
    )  # fmt: skip
    return lambda function: _marker("feature_view", function, options)


def feature_options(
    *,
    entity: tuple[str, ...] | str,
    inputs: tuple[str, ...],
    time: str | Mapping[str, Any] | None,
    rows: bool,
    windows: Mapping[str, Mapping[str, str]] | None,
    on_demand: Mapping[str, str] | None,
    request: tuple[str, ...],
    ttl: str | None,
    defaults: Mapping[str, float] | None,
    owner: str,
) -> dict[str, Any]:
    """The options of a feature view as both ways of declaring one give them; see :func:`feature_view`."""
    return {
        "entity": (entity,) if isinstance(entity, str) else entity,
        "inputs": inputs,
        "time": time,
        "rows": rows or bool(windows),
        "windows": {name: dict(window) for name, window in (windows or {}).items()},
        "on_demand": dict(on_demand or {}),
        "request": request,
        "ttl": ttl,
        "defaults": dict(defaults or {}),
        "owner": owner,
    }


@overload
def train(function: F) -> F: ...
@overload
def train(*, inputs: Mapping[str, tuple[str, ...] | None]) -> Callable[[F], F]: ...
def train(
    function: F | None = None, *, inputs: Mapping[str, tuple[str, ...] | None] | None = None
) -> F | Callable[[F], F]:
    """Mark the function that trains: it gets a :class:`bedplate.compute.task.Task` and returns a ``Result``.

    ``inputs`` names the data sets it works on and the columns of each (None for all of them); without it, all data
    sets come. The feature tables come too, by the names of their views.
    """
    if function is not None:
        return _marker("train", function, {})
    return lambda marked: _marker("train", marked, {"inputs": dict(inputs or {})})


def evaluate(function: F) -> F:
    """Mark a function that adds metrics per unit to those the recipe reports."""
    return _marker("evaluate", function, {})


def predictor(function: F) -> F:
    """Mark a function that answers requests: NumPy arrays by input name in, arrays by output name out.

    It runs in a limited process of its own, whose working folder holds the files of the bundle.
    """
    return _marker("predictor", function, {})


def network(function: F) -> F:
    """Mark a function that builds a model for the planner to count: a ``torch.nn.Module``, and an input for it.

    It takes nothing and returns ``(module, input, ...)``; the inputs are tensors whose first dimension is the batch.
    Under ``torch.device("meta")`` a module of any size takes no memory.
    """
    return _marker("network", function, {})
