"""The kinds of storage that every contract suite runs on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bedplate import store as stores
from bedplate.store import Store
from tests.servers import Postgresql


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a store can be opened that holds nothing; where nothing at all is yet, with ``real_migrations``."""
    if request.param == "sqlite":
        return tmp_path / "test.db"
    server: Postgresql = request.getfixturevalue("postgresql")
    return server.database() if "real_migrations" in request.fixturenames else server.store()


@pytest.fixture
def store(location: Path | str) -> Iterator[Store]:
    """A new, empty store."""
    opened = stores.open(location)
    yield opened
    opened.close()
