"""A table of labels joined with the features of its entities, as they were known when each row was.

What training learns from here is what :mod:`bedplate.serve.joining` reads for a request: the newest features of the
entity, and the declared defaults where there are none.
"""

from typing import Any

import msgspec
import numpy as np

from bedplate.errors import InputError
from bedplate.serve.joining import Joined
from bedplate.serve.state import MISSING, View, columns_of, identifiers, matrix
from bedplate.usecase import quantities


class Join(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``view`` is a feature view of ``entity``, which the table of labels has as well.

    ``defaults`` stand for what is missing; ``max_age`` is a duration (``1 h``) after which a value counts as missing,
    and ``within`` what reading may take of a request's time.
    """

    view: str
    entity: str
    defaults: dict[str, float] = {}
    max_age: str | None = None
    within: str = "10 ms"


def config_of(join: Join, view: Any) -> Joined:
    """What the release says of its features; ``view`` is the feature table.

    Raises:
        InputError: a duration or a default makes no sense.
    """
    columns = columns_of(view, (join.entity,))
    try:
        return Joined(
            entity=join.entity,
            views=(View(namespace=join.view, columns=columns),),
            features=columns,
            defaults=join.defaults,
            max_age=None if join.max_age is None else quantities.parse(join.max_age, "duration"),
            within=quantities.parse(join.within, "duration"),
        )
    except (ValueError, quantities.QuantityError) as error:
        raise InputError(f"the features cannot be joined: {error}", where="train.parameters.features") from error


def join(labels: Any, time: str, view: Any, config: Joined) -> Any:
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
    known, owner = _instants(view["as_of"]), identifiers(view, config.entity)
    order = np.lexsort((known, owner))
    known, owner = known[order], owner[order]
    values = matrix(view, config.features)[order]
    asked, whose = _instants(labels[time]), identifiers(labels, config.entity)
    # Rows of one entity lie side by side, the oldest first: the one before where this moment would stand.
    first = np.searchsorted(owner, whose, "left")
    found = np.empty(len(whose), np.intp)
    for i, (entity, moment) in enumerate(zip(whose, asked, strict=True)):
        last = np.searchsorted(owner, entity, "right")
        found[i] = first[i] + np.searchsorted(known[first[i] : last], moment, "right") - 1
    there = found >= first
    if config.max_age is not None and len(known):  # as a request would find it
        age = asked - known[np.where(there, found, 0)]
        there &= age <= np.timedelta64(round(config.max_age * 1e6), "us")
    default = np.array([config.defaults.get(name, MISSING) for name in config.features], np.float32)
    out = np.where(there[:, None], values[np.where(there, found, 0)], default) if len(values) else default[None, :]
    out = np.broadcast_to(out, (len(whose), len(config.features)))
    for i, name in enumerate(config.features):
        labels = labels.append_column(name, pa.array(np.ascontiguousarray(out[:, i]), pa.float32()))
    return labels


def _instants(column: Any) -> Any:
    return column.to_numpy().astype("datetime64[us]")
