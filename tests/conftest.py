"""Fixtures that several packages share. The servers start with the first test that needs them."""

from collections.abc import Iterator

import pytest

from tests import servers


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.Postgresql]:
    """A running PostgreSQL server."""
    with servers.postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[servers.S3]:
    """A running S3 server."""
    with servers.s3() as server:
        yield server
