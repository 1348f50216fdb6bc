"""Feature views that are written in SQL alone: ``features/NAME.sql``, whose first comments say what a decorator would.

::

    -- entity: customer
    -- inputs: [visits]
    -- time: seen_at
    -- windows: { spend_7d: { of: sum, column: amount, over: 7 d } }
    select customer, seen_at, amount from visits where amount > 0

The lines that begin with two dashes, up to the first that does not, are YAML; ``-- # ...`` is for people. The same text
declares the same view, of the same digest, in either place.
"""

from pathlib import Path
from typing import Any

import msgspec

from bedplate.errors import InputError
from bedplate.pipeline import feature_options

FOLDER = "features"
_MOST = 64 << 10
"""Bytes of a file."""


class _Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    entity: str | tuple[str, ...]
    inputs: tuple[str, ...]
    time: str | dict[str, Any] | None = None
    rows: bool = False
    windows: dict[str, dict[str, str]] = {}
    on_demand: dict[str, str] = {}
    request: tuple[str, ...] = ()
    ttl: str | None = None
    defaults: dict[str, float] = {}
    owner: str = ""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A view as its file declares it: what :class:`~bedplate.features.views.Declaration` asks for."""

    name: str
    options: dict[str, Any]
    sql: str
    line: int
    file: str
    kind: str = "feature_view"


def written(folder: Path, wanted: tuple[str, ...]) -> tuple[Written, ...]:
    """Those of the views called ``wanted`` that the folder of a use case has a file of, in that order.

    Raises:
        InputError: a file cannot be read, or does not say what a view is.
    """
    found = ((name, folder / FOLDER / f"{name}.sql") for name in wanted if name.isidentifier())
    return tuple(_read(name, path) for name, path in found if path.is_file())


def _read(name: str, path: Path) -> Written:
    file = f"{FOLDER}/{path.name}"
    try:
        data = path.read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"it cannot be read: {error}", where=file, fix="save it as UTF-8 text") from error
    if len(data) > _MOST:
        raise InputError(f"it is larger than {_MOST >> 10} KiB", where=file, fix="declare one view in each file")
    lines = text.splitlines()
    count = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    sql = "\n".join(lines[count:]).strip().removesuffix(";").rstrip()
    if not count or not sql:
        what = "no SELECT" if count else "no comment at its head that says what it is of"
        raise InputError(f"it has {what}", where=file, fix="begin with -- entity: ..., then write one SELECT")
    head = "\n".join(line[2:].removeprefix(" ") for line in lines[:count])
    try:
        said = msgspec.yaml.decode(head, type=_Head)
    except (msgspec.DecodeError, RecursionError) as error:
        told = str(error).replace("\n", " ")
        allowed = ", ".join(_Head.__struct_fields__)
        raise InputError(f"its head cannot be used: {told}", where=file, fix=f"write YAML with {allowed}") from error
    options = feature_options(**{each: getattr(said, each) for each in _Head.__struct_fields__})
    return Written(name=name, options=options, sql=sql, line=count + 1, file=file)
