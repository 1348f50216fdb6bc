"""A ledger on SQLite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bedplate import store as stores
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store

KEY = new_key("bedplate/test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the ledger; its database lies beside it."""
    path = tmp_path / "ledger"
    path.mkdir()
    (path / "ledger.pub").write_text(Signer(KEY).public)
    return path


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    """The store that the ledger's rows lie in."""
    opened = stores.open(folder.with_name("test.db"))
    yield opened
    opened.close()


@pytest.fixture
def ledger(store: Store, folder: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    opened = Ledger(store, folder, Signer(KEY))
    yield opened
    timer = opened._timer
    if timer is not None:
        timer.cancel()


def fill(store: Store, ledger: Ledger, count: int) -> None:
    """Append entries, all in one transaction: the tests are about the tree."""
    with store.transaction() as tx:
        for number in range(count):
            ledger.record(tx, actor="ana", action="test.do", resource=f"thing/{number}", payload={"number": number})
