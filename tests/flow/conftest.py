"""A small use case on real data, and a home that it ran in once."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from bedplate import settings
from bedplate.app.home import create_or_open
from bedplate.app.operations import Bedplate
from bedplate.app.read_models import RunSummary
from bedplate.compute import probe
from bedplate.plan.types import MatrixRate
from bedplate.records import Event
from tests import retail
from tests.plan.conftest import PROBE


class Done(NamedTuple):
    """A home in which the sample ran from its file to a trace."""

    bedplate: Bedplate
    folder: Path
    summary: RunSummary
    events: list[Event]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sample. Not to be changed: `retail.copy` makes another."""
    return retail.make(tmp_path_factory.mktemp("retail") / "sample")


@pytest.fixture(scope="session")
def done(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One complete run, planned by a probe that does not depend on what else this machine does."""
    home = settings.Home(tmp_path_factory.mktemp("done") / "home")
    create_or_open(home)
    known = msgspec.structs.replace(PROBE, code=probe.code(), matmul_sizes=(MatrixRate(rows=1024, gflops=60),))
    home.probe.write_bytes(msgspec.json.encode(known))
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(home.root), "BEDPLATE_PORT": "0", **retail.REGION}))
    events: list[Event] = []
    summary = bedplate.run(sample, on_event=events.append)
    return Done(bedplate, sample, summary, events)


@pytest.fixture
def starter(tmp_path: Path) -> Path:
    """The starter that `bedplate init` writes: it runs in seconds."""
    folder = tmp_path / "starter"
    Bedplate(settings.load({"BEDPLATE_HOME": str(tmp_path / "none")})).init(folder, "starter")
    return folder
