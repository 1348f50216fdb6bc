"""Changing who may do what: principals, their keys and groups, and policies. One change at a time, whole or not at all.

Two things hold after each change: somebody can administer the home, and replicas decide by it. So both are seen to
before it is committed, and what cannot be told to the replicas does not happen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bedplate import files
from bedplate.errors import BedplateError, StateError
from bedplate.identity import ADMINISTRATOR, policy_principal
from bedplate.policy import values as policy
from bedplate.policy.policies import Policies
from bedplate.store import Transaction

if TYPE_CHECKING:
    from bedplate.app.system import System


@contextmanager
def changing(system: "System", policies: Policies | None = None) -> Iterator[Transaction]:
    """A transaction that changes rights; ``policies``, if given, are in force once it is committed.

    Raises:
        StateError: nobody could administer the home afterwards.
        StorageError: replicas cannot be told, or the change not be written.
    """
    from bedplate.app import endpoints  # the supervisor's side: not for every command

    told = False
    with system.governing:
        deciding = system.policies.now if policies is None else policies
        try:
            with system.store.transaction() as tx:
                yield tx
                leave_an_administrator(tx, deciding)
                if endpoints.access_path(system).exists():
                    told = True
                    endpoints.write_access(system, tx, deciding)
            system.policies.now = deciding
        except BaseException:
            if told:
                _take_back(system)
            raise


def leave_an_administrator(tx: Transaction, policies: Policies) -> None:
    """Refuse a change after which nobody who can come in at any time may administer the home.

    A key that expires does not count. The local administrator always has one, in the home's folder.

    Raises:
        StateError: this is such a change.
    """
    lasting = {key.principal for key in tx.keys.list() if key.ended is None and key.expires is None}
    for row in sorted(tx.principals.list(), key=lambda row: row.name != ADMINISTRATOR):
        comes_in = row.disabled is None and (row.id in lasting or row.name == ADMINISTRATOR)
        if comes_in and policies.decide(policy_principal(row), "administer", policy.HOME).allowed:
            return
    raise StateError(
        "nobody could administer this home afterwards", fix="leave somebody who may, with a key that does not expire"
    )


def _take_back(system: "System") -> None:
    """Replicas were told what then was not committed: tell them what is in force, or nothing, which opens nothing."""
    from bedplate.app import endpoints

    try:
        endpoints.publish_access(system)
    except BedplateError:
        files.discard(endpoints.access_path(system))
