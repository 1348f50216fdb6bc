"""Code that is not ours runs, answers, and reaches nothing else."""

import os
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bedplate.compute import sandbox
from bedplate.errors import DeniedError, InputError, NotFoundError, UserCodeError
from bedplate.usecase.types import Resources
from tests.compute import hostile

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ORDINARY, HOSTILE = HERE / "pipeline_sample.py", HERE / "hostile.py"
ORDERS = pa.table({"household_id": [1, 2, 2], "amount": [1.5, None, 2.0]})


def call(name, **options):
    return sandbox.call(f"pipeline:{name}", pipeline=ORDINARY, **options)


# ------------------------------------------------------------------------------------------------------------ answers


def test_describe_tells_marked_functions_and_their_sql():
    declared = {d.name: d for d in sandbox.describe(ORDINARY)}

    assert list(declared)[:3] == ["clean", "recent", "fit"]
    assert declared["recent"].kind == "feature_view"
    said = {"entity": ["household_id"], "inputs": ["orders"], "time": "day"}
    unsaid = {"rows": False, "windows": {}, "on_demand": {}, "request": [], "defaults": {}, "ttl": None, "owner": ""}
    assert declared["recent"].options == said | unsaid
    assert declared["recent"].sql == "select household_id, max(day) as last from orders group by 1"
    assert declared["fit"].sql is None


def test_a_call_gets_rows_parameters_and_seed_and_gives_files_and_values():
    events = []

    reply = call(
        "fit",
        tables={"orders": ORDERS, "empty": ORDERS.slice(0, 0)},
        parameters={"factors": 64},
        seed=11,
        on_progress=lambda *event: events.append(event),
    )

    assert reply.files == {"model.json": b"{}", "b.bin": bytes(3)}
    assert reply.result == {"rows": {"orders": 3, "empty": 0}, "seed": 11, "factors": 64}
    assert events == [("half way", 1.0, 2.0)]
    assert reply.seconds > 0


def test_a_dataset_function_cleans_a_table():
    reply = call("clean", tables={"orders": ORDERS})

    assert pa.ipc.open_stream(reply.files["table.arrow"]).read_all().column("amount").to_pylist() == [1.5, 2.0]


def test_every_kind_of_column_arrives_as_it_was():
    table = pa.table(
        {
            "text": pa.array(["a", None, "ü"]),
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
            "list": pa.array([[1], [], None]),
            "day": pa.array([0, 1, 2], pa.timestamp("us", "UTC")),
            "amount": pa.array(["1.50", None, "2.00"]).cast(pa.decimal128(9, 2)),
            "amount_is_valid": pa.array([True, False, True]),
        }
    ).rename_columns(["text", "kind", "list", "day", "amount", "ok"])

    reply = call("clean", tables={"orders": table})

    assert pa.ipc.open_stream(reply.files["table.arrow"]).read_all().equals(table.take([0, 2]))


def test_big_tables_pass():
    rows = 1_500_000
    numbers = np.arange(rows, dtype="float64")
    table = pa.table({f"c{i}": numbers for i in range(11)})

    reply = call("fit", tables={"orders": table}, resources=Resources(cpu=2, memory=1 << 30))

    assert reply.result["rows"] == {"orders": rows}


def test_a_reader_is_streamed():
    batches = (pa.record_batch({"a": np.arange(1000)}) for _ in range(50))
    reader = pa.RecordBatchReader.from_batches(pa.schema([("a", pa.int64())]), batches)

    assert call("fit", tables={"orders": reader}).result["rows"] == {"orders": 50_000}


def test_rows_that_cannot_be_read_stop_the_run_with_their_own_error():
    def batches():
        yield pa.record_batch({"a": [1]})
        raise DeniedError("the purpose does not allow it")

    reader = pa.RecordBatchReader.from_batches(pa.schema([("a", pa.int64())]), batches())

    with pytest.raises(DeniedError, match="the purpose does not allow it"):
        call("fit", tables={"orders": reader})


# ------------------------------------------------------------------------------------------------------------- errors


def test_a_function_that_raises_names_the_line():
    with pytest.raises(UserCodeError) as caught:
        call("raises")

    text = ORDINARY.read_text().splitlines()
    line = next(number for number, words in enumerate(text, 1) if "amounts[0] / amounts[1]" in words)
    assert caught.value.where == f"{ORDINARY}:{line}"
    assert "ZeroDivisionError: division by zero" in caught.value.message
    assert "amounts[0] / amounts[1]" in caught.value.message
    assert "limited.py" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("refuses", "InputError: no rows"),
        ("returns_nothing", "returned NoneType"),
        ("returns_text", "file 'a' is str, not bytes"),
        ("returns_nan", "not JSON compliant"),
        ("crashes", "killed by signal 11"),
        ("leaves", "ended with status 3"),
        ("exits", "SystemExit: enough"),
        ("forges", "cannot be used|no frame of kind|ended with status 0"),
    ],
)
def test_everything_that_goes_wrong_is_the_users_to_read(name, words):
    with pytest.raises(UserCodeError, match=words) as caught:
        call(name)

    assert "pipeline_sample.py" in str(caught.value.where)


def test_an_unknown_function_is_named():
    with pytest.raises(NotFoundError, match="no function 'nobody'"):
        call("nobody")


@pytest.mark.parametrize(
    "entry", ["os:system", "pipeline", "bedplate.store.sql:run", "pipeline:a-b", "bedplate.train.x:"]
)
def test_only_pipelines_and_recipes_are_entries(entry):
    with pytest.raises(InputError, match="cannot be run"):
        sandbox.call(entry, pipeline=ORDINARY)


def test_a_file_that_does_not_load_names_its_line(tmp_path):
    (tmp_path / "pipeline.py").write_text("import bedplate.pipeline\n\ndef broken(:\n")

    with pytest.raises(UserCodeError) as caught:
        sandbox.describe(tmp_path / "pipeline.py")

    assert caught.value.where == f"{tmp_path}/pipeline.py:3"


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        sandbox.describe(tmp_path / "pipeline.py")


def test_a_view_that_returns_no_sql_is_refused(tmp_path):
    (tmp_path / "pipeline.py").write_text(
        "from bedplate.pipeline import feature_view\n\n"
        "@feature_view(entity='a', inputs=('b',))\ndef v():\n    return 1\n"
    )

    with pytest.raises(UserCodeError, match="feature view v returned int, not SQL text"):
        sandbox.describe(tmp_path / "pipeline.py")


# ------------------------------------------------------------------------------------------------------------- limits


def test_more_memory_than_allowed_ends_it_and_says_so():
    with pytest.raises(UserCodeError, match=r"memory.*allows 300 MiB|ran out of memory") as caught:
        call("eats_memory", resources=Resources(memory=300 << 20))

    assert caught.value.fix


def test_more_time_than_allowed_ends_it():
    with pytest.raises(UserCodeError, match="took longer than allowed"):
        call("never_ends", limit=sandbox.Limit(1.0))


def test_what_it_uses_is_told_while_it_runs():
    seen = []
    sandbox.call("pipeline:busy", pipeline=ORDINARY, on_usage=seen.append)

    assert len(seen) >= 2
    assert all(later.seconds - earlier.seconds >= 1.0 for earlier, later in pairwise(seen))
    assert seen[-1].memory > 80 << 20
    assert seen[-1].cpu_seconds > seen[0].cpu_seconds > 0


def test_it_ends_with_its_owner():
    code = (
        "from pathlib import Path; from bedplate.compute import sandbox\n"
        f"sandbox.call('pipeline:never_ends', pipeline=Path({str(ORDINARY)!r}))"
    )
    owner = subprocess.Popen([sys.executable, "-c", code])
    children: list[str] = []
    deadline = time.monotonic() + 90
    while not children and time.monotonic() < deadline:
        time.sleep(0.05)
        children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children").read_text().split()
    time.sleep(0.5)

    owner.kill()
    owner.wait()

    while Path(f"/proc/{children[0]}/cmdline").exists() and time.monotonic() < deadline:
        if not Path(f"/proc/{children[0]}/cmdline").read_bytes():  # a zombie that init has not collected yet
            break
        time.sleep(0.05)
    assert time.monotonic() < deadline


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    sandbox.call("pipeline:work", pipeline=HOSTILE, resources=Resources(memory=1 << 30))

    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------------------------------------------------- isolation


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A key, a table, listening sockets and a secret in the environment."""
    (tmp_path / "keys").mkdir()
    key = tmp_path / "keys" / "admin.key"
    key.write_text("secret")
    key.chmod(0o600)
    table = tmp_path / "part-0.parquet"
    table.write_bytes(b"PAR1")
    pipeline = tmp_path / "pipeline.py"
    pipeline.write_text(HOSTILE.read_text())
    neighbour = tmp_path / "neighbour.py"
    neighbour.write_text("x = 1")
    monkeypatch.setenv("BEDPLATE_DATABASE", "postgresql://user:secret@host/db")
    tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    unix, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "owner.sock"))
    unix.listen()
    abstract.bind(f"\0bedplate-{os.getpid()}")
    abstract.listen()
    with tcp, udp, unix, abstract:
        yield {
            "owner": os.getpid(),
            "key": str(key),
            "table": str(table),
            "pipeline": str(pipeline),
            "neighbour": str(neighbour),
            "outside": str(tmp_path / "outside"),
            "tcp": tcp.getsockname(),
            "udp": udp.getsockname(),
            "unix": str(tmp_path / "owner.sock"),
            "abstract": f"bedplate-{os.getpid()}",
        }


def test_user_code_cannot_reach_anything(world):
    reply = sandbox.call("pipeline:escape", pipeline=Path(world["pipeline"]), parameters=world, require_isolation=True)

    assert reply.isolated
    assert reply.result["reached"] == {}
    assert reply.result["denied"].keys() == hostile.attempts(world).keys()
    names = {"PYTHONPATH", "PYTHONHASHSEED", "LANG", "TZ", "HOME", "TMPDIR"}
    threads = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}
    assert reply.result["environment"].keys() <= names | threads | {"LC_CTYPE", "ORT_DISABLE_TELEMETRY"}
    assert Path(world["key"]).read_text() == "secret"


def test_the_same_attempts_succeed_outside(world):
    """Otherwise the test above would show nothing."""
    harmless = [
        "read the key", "read a table", "read passwd", "read the owner's environment", "read the key through proc",
        "write outside", "connect", "listen", "send UDP", "connect to a unix socket", "connect to an abstract socket",
        "make a socket pair", "run a program", "signal the owner", "keep memory that is not counted",
        "read a secret of the environment", "open the key to all", "touch the key", "read another script",
    ]  # fmt: skip
    attempts = hostile.attempts(world)
    results = [attempts[name]() for name in harmless]

    for result in results:
        for opened in result if isinstance(result, tuple) else (result,):
            if isinstance(opened, socket.socket):
                opened.close()
    os.close(results[harmless.index("keep memory that is not counted")])


def test_ordinary_code_does_not_notice():
    reply = sandbox.call("pipeline:work", pipeline=HOSTILE, resources=Resources(cpu=2, memory=1 << 30))

    assert reply.isolated
    assert reply.result == {"threads": 20, "product": 8e6}
    assert "printing does not disturb the answer\nnor does writing" in reply.log


NO_LANDLOCK = """
import ctypes, struct, sys
from pathlib import Path
from bedplate.compute import sandbox
from bedplate.isolation import seccomp
from bedplate.errors import UserCodeError
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
lines = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
seccomp.install(b"".join(struct.pack("<HBBI", *line) for line in lines))
pipeline = Path(sys.argv[1])
assert "no Landlock" in sandbox.isolation().reason
assert not sandbox.call("pipeline:fit", pipeline=pipeline).isolated
try:
    sandbox.call("pipeline:fit", pipeline=pipeline, require_isolation=True)
except UserCodeError as error:
    print(error)
else:
    sys.exit("it ran")
"""


def test_without_landlock_it_says_so_and_runs_only_where_that_is_allowed():
    done = subprocess.run(
        [sys.executable, "-c", NO_LANDLOCK, str(ORDINARY)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "was not run: this kernel has no Landlock" in done.stdout
