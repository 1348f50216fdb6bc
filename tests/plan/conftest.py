from pathlib import Path

import msgspec
import pytest

from bedplate import settings
from bedplate.ids import Digest
from bedplate.plan import requirements
from bedplate.plan.types import DataFacts, Probe, Requirements, TableFacts
from bedplate.usecase import Loaded, load
from tests.usecase.conftest import write

PROBE = Probe(
    cpu="a processor",
    cores=2,
    memory=8 << 30,
    clock_ghz=2.5,
    matmul_gflops=60,
    copy_gbps=16,
    score_gbps=12,
    select_ns=6,
    request_us=5,
    service_cs2=0.1,
    onnx_call_us=14,
    onnx_tree_ns=10,
    fsync_ms=1,
    made="2026-01-01T00:00:00.000000Z",
    seconds=2,
    code=Digest("sha256:" + "0" * 64),
)
SETTINGS = settings.load({})
FACTS = DataFacts(tables={"transactions": TableFacts(rows=1_469_307, size=24 << 20)})


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    write(tmp_path)
    return load(tmp_path)


@pytest.fixture
def needs(loaded: Loaded) -> Requirements:
    return requirements.derive(loaded, FACTS)


def changed(needs: Requirements, name: str, value: float) -> Requirements:
    """The requirements with another value of one item."""
    items = tuple(msgspec.structs.replace(i, value=value) if i.name == name else i for i in needs.items)
    return msgspec.structs.replace(needs, items=items)
