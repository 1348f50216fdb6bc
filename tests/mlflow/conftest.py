"""The servers that the tests of this folder talk to. Each starts with the first test that needs it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import retail, servers
from tests.mlflow import environment, peer


class Bedplate(NamedTuple):
    """An owner of a home, as ``bedplate up`` starts it, and the key of its administrator."""

    home: Path
    address: str
    key: str

    def settings(self) -> dict[str, str]:
        """What an MLflow client needs to reach it."""
        return {"MLFLOW_TRACKING_URI": self.address, "MLFLOW_TRACKING_TOKEN": self.key}

    def headers(self) -> dict[str, str]:
        """What goes with a request by hand."""
        return {"authorization": f"Bearer {self.key}"}


@pytest.fixture(scope="session")
def bedplate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bedplate]:
    """A running owner with an empty home."""
    home = tmp_path_factory.mktemp("bedplate") / "home"
    started = retail.command(home, "up", "--detach", "--json")
    try:
        assert started.returncode == 0, started.stderr
        key = (home / "keys" / "admin.key").read_text("ascii").strip()
        yield Bedplate(home, json.loads(started.stdout)["address"], key)
    finally:
        stopped = retail.command(home, "stop")
    assert stopped.returncode == 0, stopped.stderr
    log = (home / "logs" / "up.log").read_text("utf-8", errors="replace")
    assert "Traceback" not in log, log[-4000:]


@pytest.fixture(scope="session")
def reference() -> Iterator[str]:
    """The address of a running ``mlflow server``. Only one file asks for it: it takes seconds to start."""
    with peer.running() as running:
        yield running.address


@pytest.fixture(scope="session")
def reference_with_workspaces() -> Iterator[str]:
    """The address of one that was started with workspaces."""
    with peer.running("--enable-workspaces") as running:
        yield running.address


@pytest.fixture(scope="session")
def reference_on_s3(s3: servers.S3) -> Iterator[str]:
    """The address of one that keeps artifacts in S3: elsewhere it takes no upload in parts."""
    environment.needs("boto3")
    options = s3.options
    settings = {
        "AWS_ACCESS_KEY_ID": options["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": options["secret_access_key"],
        "AWS_DEFAULT_REGION": options["region"],
        "MLFLOW_S3_ENDPOINT_URL": options["endpoint"],
    }
    with peer.running("--artifacts-destination", s3.address(), **settings) as running:
        yield running.address
