"""Fixtures that several packages share. The servers start with the first test that needs them."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import certifi
import psutil
import pytest

from bedplate.serve import process
from bedplate.store import migrate
from tests import laws, migrated, replicas, servers

laws.register()


def pytest_configure(config: pytest.Config) -> None:
    """Trust one authority, as nothing outside this machine is asked: to read all of them takes each client 50 ms."""
    sys.dont_write_bytecode = False  # asserts are rewritten once, not in each worker of each run: half of collecting
    _keep_files_in_memory()
    one, end, _ = Path(certifi.where()).read_text("utf-8").partition("-----END CERTIFICATE-----")
    file = Path(tempfile.mkdtemp(prefix="bedplate-trust-")) / "one.pem"
    file.write_text(one + end + "\n", "utf-8")
    os.environ["SSL_CERT_FILE"] = str(file)
    os.environ.pop("SSL_CERT_DIR", None)
    config.add_cleanup(partial(shutil.rmtree, file.parent))


_MEMORY, _ROOM = Path("/dev/shm"), 12 << 30
"""Bytes that must be free: the suite was seen to hold 3.4 GiB, beside what its processes take."""


def _keep_files_in_memory() -> None:
    """Unless somebody says where: tests wait for a disk a hundred thousand times, and none takes the power away."""
    if "TMPDIR" in os.environ or not _MEMORY.is_dir() or not os.access(_MEMORY, os.W_OK):
        return
    found = os.statvfs(_MEMORY)
    free = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    if free >= _ROOM and not found.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(_MEMORY)
        tempfile.tempdir = None  # it is looked up anew


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep what collecting makes from the collector, which would go through all of it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Give it back, as some libraries complain of what is left when the interpreter ends."""
    gc.unfreeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left alone with it in the end."""
    items.sort(key=lambda item: sum(item.get_closest_marker(name) is None for name in ("slow", "long")))


@pytest.fixture(scope="session", autouse=True)
def _migrations_once() -> Iterator[None]:
    """The migrations work out once what makes a new database."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(migrate, "run", migrated.Again().run)
        yield


@pytest.fixture
def real_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new database is made by the migrations themselves."""
    monkeypatch.setattr(migrate, "run", migrated.really)


@pytest.fixture(scope="session", autouse=True)
def _replicas_forked() -> Iterator[None]:
    """Replicas are forked from a process that has them loaded."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(process, "subprocess", replicas)
        yield


@pytest.fixture
def real_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every replica is a new interpreter."""
    monkeypatch.setattr(process, "subprocess", subprocess)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.Postgresql]:
    """A running PostgreSQL server."""
    with servers.postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[servers.Redis]:
    """A running Redis server."""
    with servers.redis() as server:
        yield server


@pytest.fixture(scope="session")
def azure() -> Iterator[servers.Azure]:
    """A running server of Azure's object storage."""
    with servers.azure() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[servers.S3]:
    """A running S3 server."""
    with servers.s3() as server:
        yield server
