"""What Bedplate answers otherwise than ``mlflow server``, on purpose. ``docs/reference/mlflow.md`` shows this table.

An entry that no call of the corpus shows any more fails a test, as does a reply that differs without an entry.
"""

import msgspec


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. ``fields`` allows it by place: (glob of "METHOD path", glob of the field). Where a whole reply is
    another one, each step of the corpus names the entry and says what ours is."""

    name: str
    where: str
    theirs: str
    ours: str
    why: str
    fields: tuple[tuple[str, str], ...] = ()


DIFFERENCES: tuple[Difference, ...] = ()
