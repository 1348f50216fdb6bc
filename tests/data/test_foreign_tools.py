"""Tools of others, where they are set up: datacontract-cli accepts our contracts, and what dlt gives comes in."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from bedplate.data import infer
from tests.data import test_odcs as said
from tests.mlflow import environment

EXAMPLES = Path(__file__).parents[2] / "examples"
LINT = """
import json, sys
from datacontract.data_contract import DataContract
for path in sys.argv[1:]:
    run = DataContract(data_contract_file=path).lint()
    print(json.dumps([path, str(run.result.value), [check.reason for check in run.checks if check.reason]]))
"""
PROGRAM = """
import os

import dlt
from dlt.sources.sql_database import sql_database

shop = sql_database("sqlite:///" + os.environ["SHOP"], table_names=["orders"])

@dlt.resource(primary_key="id")
def people():
    yield {"id": 1, "name": "Ana", "joined": __import__("pendulum").datetime(2024, 5, 1)}
    yield [{"id": 2, "name": None}]

@dlt.transformer(data_from=people)
def loud(item):
    for each in item if isinstance(item, list) else [item]:
        yield {"id": each["id"], "name": (each["name"] or "?").upper()}

@dlt.source
def crm():
    return people, loud
"""
READ = """
import json, sys
sys.path += [sys.argv[1]]
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from bedplate.data.sources import Reach, opened
from bedplate.usecase.types import Source
for name in sys.argv[3:]:
    reach = Reach(connections={"crm": "program:given:" + name})
    with opened(Source(kind="rows", connection="crm"), Path(), reach) as files:
        print(json.dumps([row for item in files.read(["id", "name"]) for row in item.table.to_pylist()]))
"""

pytestmark = pytest.mark.long


INFERRED = {
    "from text": ("id,day,at,clock,share,on", "{0},2024-05-01,2024-05-01T12:00:00Z,2024-05-01 12:00:00,0.5,true"),
    "with choices, and a name to be quoted": ("id,a: b,kind", '{0},"x, y",a'),
}


def test_datacontract_cli_accepts_our_contracts(tmp_path: Path) -> None:
    texts = {f"type {name}": said._contract("t", [{"name": "v", **case[0]}]) for name, case in said.TYPES.items()}
    for name, (rule, *_) in said.METRICS.items():
        quality = {"quality": [{"type": "library", **rule}]}
        of_rows = rule.get("metric") == "rowCount"  # of the object, not of a property
        v = {"name": "v", "logicalType": "string", **({} if of_rows else quality)}
        texts[f"rule {name}"] = said._contract("t", [v], schema=quality if of_rows else {})
    texts["relation"] = said._contract("lines", said.LINE, schema={"relationships": said.BOTH})
    promises = [
        {"property": "frequency", "value": 1, "unit": "d", "scheduler": "cron", "schedule": "0 6 * * 1-5"},
        {"property": "completeness", "value": 99, "unit": "%"},
    ]
    texts["promises"] = said._contract("t", [{"name": "v", "logicalType": "date"}], slaProperties=promises)
    for name, (head, line) in INFERRED.items():
        lines = [head, *(line.format(number) for number in range(1, 41)), ""]
        (tmp_path / "rows.csv").write_text("\n".join(lines))
        texts[f"inferred {name}"] = infer.infer(tmp_path / "rows.csv", "csv", "rows")
    paths = sorted(map(str, EXAMPLES.glob("*/contracts/*.yaml")))
    for name, text in texts.items():
        assert yaml.safe_load(text)
        (tmp_path / f"{name}.odcs.yaml").write_text(text)
        paths.append(str(tmp_path / f"{name}.odcs.yaml"))
    done = subprocess.run(
        [str(environment.python("contracts")), "-c", LINT, *paths],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(found) == len(paths)
    assert [each for each in found if each[1] != "passed"] == []


def test_what_dlt_gives_comes_in(tmp_path: Path) -> None:
    (tmp_path / "given.py").write_text(PROGRAM)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT)")
        shop.executemany("INSERT INTO orders VALUES (?, ?)", [(7, "tea"), (8, None)])
    site = next((environment.python("contracts").parents[1] / "lib").glob("python*/site-packages"))
    names = ["people", "loud", "crm.people", "shop.orders", "shop"]
    done = subprocess.run(
        [sys.executable, "-c", READ, str(site), str(tmp_path), *names],
        env=os.environ | {"RUNTIME__DLTHUB_TELEMETRY": "false", "SHOP": str(tmp_path / "shop.db")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows, loud, again, orders, whole = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert rows == again == [{"id": "1", "name": "Ana"}, {"id": "2", "name": None}]
    assert loud == [{"id": "1", "name": "ANA"}, {"id": "2", "name": "?"}]
    assert orders == whole == [{"id": "7", "name": "tea"}, {"id": "8", "name": None}]
