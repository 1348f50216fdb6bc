"""Artifacts of a small home: its database, its folder of content, and its ledger."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bedplate import blobs, store
from bedplate.blobs import Blobs
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store
from bedplate.tracking.actors import Actor
from bedplate.tracking.artifacts import Artifacts
from bedplate.tracking.contents import Contents
from bedplate.tracking.uploads import Uploads

WORKSPACE = "default"


class Kept:
    """Everything that artifacts need, and who changes them."""

    def __init__(self, opened: Store, place: Blobs, ledger: Ledger) -> None:
        self.store, self.place, self.ledger = opened, place, ledger
        self.contents = Contents(opened, place)
        self.artifacts = Artifacts(opened, self.contents)
        self.uploads = Uploads(opened, self.contents, self.artifacts)
        self.ana = Actor(ledger=ledger, name="ana")

    def put(self, path: str, data: bytes) -> None:
        """Keep an artifact."""
        with self.artifacts.receive() as incoming:
            incoming.write(data)
            self.artifacts.put(WORKSPACE, path, incoming, by=self.ana)

    def get(self, path: str) -> bytes:
        """The content of an artifact."""
        content = self.artifacts.read(self.artifacts.find(WORKSPACE, path))
        try:
            return b"".join(content)
        finally:
            content.close()

    def delete(self, path: str) -> int:
        """Delete an artifact or a folder."""
        return self.artifacts.delete(WORKSPACE, path, by=self.ana)

    def part(self, upload: str, number: int, data: bytes) -> str:
        """Keep a part of an upload."""
        with self.artifacts.receive() as incoming:
            incoming.write(data)
            return self.uploads.put_part(WORKSPACE, upload, number, incoming)

    def entries(self) -> list[tuple[str, str]]:
        """Action and resource of every entry of the ledger, oldest first."""
        with self.store.read() as tx:
            indexes = sorted(row.position for row in tx.ledger.recent(10_000))
            entries = [self.ledger.entry(tx, index)[0] for index in indexes]
        return [(entry.action, entry.resource) for entry in entries]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """A small home."""
    with (
        closing(store.open(tmp_path / "bedplate.db")) as opened,
        closing(Ledger(opened, tmp_path / "ledger", Signer(new_key("test")))) as ledger,
    ):
        yield Kept(opened, blobs.open(tmp_path / "blobs"), ledger)
