"""The kinds of storage that every contract suite runs on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bedplate import store as stores
from bedplate.store import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a new, empty database can be made."""
    if request.param == "sqlite":
        return tmp_path / "test.db"
    return str(request.getfixturevalue("postgresql").database())


@pytest.fixture
def store(location: Path | str) -> Iterator[Store]:
    """A new, empty store."""
    opened = stores.open(location)
    yield opened
    opened.close()
