"""What a question told of itself, for when it is asked again or for its next page.

How long an answer takes depends on it, and nothing else: what is known of runs may have changed since, so it is never
part of an answer.
"""

import hashlib
import threading
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import msgspec
import sqlalchemy as sa

KEPT = 1_000
"""Of so many questions per database it is known what they told."""
USED = 50
"""After so many uses it is learnt anew."""


class Learnt(msgspec.Struct):
    """What one question told: none of its tests finds so few runs as ``many``, of the first runs along the index of its
    order so many pass each test (``passing``), and the database has at most so many ``runs``."""

    many: int = 0
    passing: Sequence[int] | None = None
    runs: int = 0
    used: int = 0


_learnt: WeakKeyDictionary[sa.Engine, dict[bytes, Learnt]] = WeakKeyDictionary()
_lock = threading.Lock()


def of(connection: sa.Connection, question: object) -> Learnt:
    """What is known of a question, which is told from others by how it is written; it takes what is learnt from now."""
    name = hashlib.blake2b(repr(question).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    with _lock:
        questions = _learnt.setdefault(connection.engine, {})
        learnt = questions.get(name)
        if learnt is None or learnt.used >= USED:
            learnt = questions[name] = Learnt()
            if len(questions) > KEPT:
                del questions[next(iter(questions))]
        learnt.used += 1
    return learnt
