"""A table of labels joined with the features of its entities, as they were known when each row was.

What training learns from here is what :mod:`bedplate.serve.joining` reads for a request: the newest features of the
entity, and the declared defaults where there are none.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from bedplate.errors import InputError
from bedplate.serve.expressions import Expression, on_demand
from bedplate.serve.joining import Joined
from bedplate.serve.state import AS_OF, MISSING, View, columns_of, identifiers, known, matrix
from bedplate.usecase import quantities


class Join(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``view`` names the feature views of ``entity``, which the table of labels has as well: one or several.

    ``on_demand`` are features made of theirs and of columns of the labels. ``defaults`` stand for what is missing;
    ``max_age`` is a duration (``1 h``) after which a value counts as missing, and ``within`` what reading may take of a
    request's time.
    """

    view: str | tuple[str, ...]
    entity: str
    defaults: dict[str, float] = {}
    max_age: str | None = None
    within: str = "10 ms"
    on_demand: dict[str, str] = {}

    @property
    def views(self) -> tuple[str, ...]:
        """The names of the views."""
        return (self.view,) if isinstance(self.view, str) else self.view


def config_of(join: Join, tables: Mapping[str, Any]) -> Joined:
    """What the release says of its features; ``tables`` are the feature tables by view.

    Raises:
        InputError: a duration or a default makes no sense.
    """
    views = tuple(View(namespace=name, columns=columns_of(tables[name], (join.entity,))) for name in join.views)
    try:
        return Joined(
            entity=join.entity,
            views=views,
            features=(*(column for view in views for column in view.columns), *join.on_demand),
            defaults=join.defaults,
            on_demand=join.on_demand,
            max_age=None if join.max_age is None else quantities.parse(join.max_age, "duration"),
            within=quantities.parse(join.within, "duration"),
        )
    except (ValueError, quantities.QuantityError) as error:
        raise InputError(f"the features cannot be joined: {error}", where="train.parameters.features") from error


def join(labels: Any, time: str, tables: Mapping[str, Any], config: Joined) -> Any:
    """``labels`` with each feature as a column: the newest that was known before the row's ``time``.

    Raises:
        InputError: a column is missing, holds no times or no whole numbers, or is in both tables.
    """
    import pyarrow as pa

    for name in (config.entity, time):
        if name not in labels.column_names:
            raise InputError(f"the table of labels has no column {name!r}", where="train.parameters")
    if twice := sorted(set(config.features) & set(labels.column_names)):
        raise InputError(f"{twice[0]!r} is a column and a feature", where="train.parameters", fix="rename one")
    if not pa.types.is_temporal(labels.schema.field(time).type):
        raise InputError(f"{time!r} holds no times", where="train.parameters.time", fix="name a timestamp column")
    asked, whose = _instants(labels[time]), identifiers(labels, config.entity)
    values: dict[str, Any] = {}
    for view in config.views:
        found = _newest(tables[view.namespace], asked, whose, config, view.columns)
        values |= {name: found[:, i] for i, name in enumerate(view.columns)}
    if config.on_demand:
        expressions = {name: Expression(text) for name, text in config.on_demand.items()}
        named = sorted(set().union(*(e.names for e in expressions.values())) - values.keys() - expressions.keys())
        if strange := [name for name in named if name not in labels.column_names]:
            raise InputError(
                f"a feature on demand takes {strange[0]!r}, which the labels have not",
                where="train.parameters.features",
            )
        given = dict(zip(named, matrix(labels, named).T, strict=True))
        values |= on_demand(expressions, {**given, **values}, config.defaults)
    for name in config.features:
        labels = labels.append_column(name, pa.array(np.ascontiguousarray(values[name]), pa.float32()))
    return labels


def _newest(view: Any, asked: Any, whose: Any, config: Joined, columns: tuple[str, ...]) -> Any:
    """The values of the newest row of each entity that is not after what is asked, shape (rows, columns)."""
    moments, owner = _instants(view[AS_OF]), identifiers(view, config.entity)
    order = np.lexsort((moments, owner))
    moments, owner = moments[order], owner[order]
    values, rests_on = matrix(view, columns)[order], known(view)[order].astype("datetime64[us]")
    # Rows of one entity lie side by side, the oldest first: the one before where this moment would stand.
    first = np.searchsorted(owner, whose, "left")
    found = np.empty(len(whose), np.intp)
    for i, (entity, moment) in enumerate(zip(whose, asked, strict=True)):
        last = np.searchsorted(owner, entity, "right")
        found[i] = first[i] + np.searchsorted(moments[first[i] : last], moment, "right") - 1
    there = found >= first
    if config.max_age is not None and len(moments):  # as a request would find it
        age = asked - rests_on[np.where(there, found, 0)]
        there &= age <= np.timedelta64(round(config.max_age * 1e6), "us")
    default = np.array([config.defaults.get(name, MISSING) for name in columns], np.float32)
    out = np.where(there[:, None], values[np.where(there, found, 0)], default) if len(values) else default[None, :]
    return np.broadcast_to(out, (len(whose), len(columns)))


def _instants(column: Any) -> Any:
    return column.to_numpy().astype("datetime64[us]")
