"""What the flow of a use case does to the registry: its model is the registered model of its name."""

from bedplate.identity import Principal
from bedplate.ids import Digest
from bedplate.ledger import Ledger
from bedplate.release.changes import Change, model, write
from bedplate.release.environments import NONE
from bedplate.store import Transaction
from bedplate.store.workspaces import DEFAULT


def allot(ledger: Ledger, tx: Transaction, by: Principal, use_case: str, fact: Digest) -> int:
    """The number of the version that is made from ``fact``: a new one, or the one that it already has."""
    tx.ledger.head(lock=True)
    known = tx.models.find(DEFAULT, use_case)
    before = tx.history.highest(DEFAULT, use_case)
    number = tx.versions.allot(use_case, fact, creator=by.name)
    if number <= before:
        return number
    changes = [] if known is not None else [Change(kind="model-created", after=use_case)]
    changes.append(Change(kind="created", number=number, value=fact, after=NONE))
    write(ledger, tx, by, "model_version.create", model(tx, DEFAULT, use_case), changes)
    return number


def bind(ledger: Ledger, tx: Transaction, by: Principal, use_case: str, number: int, bundle: Digest) -> None:
    """Say which bundle a version is.

    Raises:
        ConflictError: it is another one already.
    """
    tx.ledger.head(lock=True)
    before = tx.versions.get(use_case, number).bundle
    tx.versions.bind(use_case, number, bundle)
    if before is None:
        change = Change(kind="bundle", number=number, value=bundle)
        write(ledger, tx, by, "model_version.bundle", model(tx, DEFAULT, use_case), [change])


def serve(ledger: Ledger, tx: Transaction, by: Principal, use_case: str, bundle: Digest, environment: str) -> None:
    """Say that a bundle is what answers in an environment from now on."""
    tx.ledger.head(lock=True)
    number = tx.versions.of_bundle(use_case, bundle)
    if number is None:
        return
    of = model(tx, DEFAULT, use_case)
    last = tx.history.served(of.id, environment, 1 << 62)
    if last is None or last.after != str(number):
        before = "" if last is None else last.after
        change = Change(kind="served", number=number, value=environment, before=before, after=str(number))
        write(ledger, tx, by, "model_version.serve", of, [change], environment=environment)
