import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bedplate.usecase import load
from bedplate.usecase.nodes import Node, read
from bedplate.usecase.schema import schema
from bedplate.usecase.starter import starter
from tests.usecase.conftest import VALID

VALIDATOR = jsonschema.Draft202012Validator(schema())


def plain(node: Node) -> Any:
    """The tree as an editor sees it, which reads YAML 1.2."""
    if node.kind == "mapping":
        return {key: plain(child) for key, child in node.entries.items()}
    if node.kind == "sequence":
        return [plain(child) for child in node.items]
    if not node.plain:
        return node.text
    try:
        return json.loads(node.text)
    except ValueError:
        return None if node.text in ("", "~") else node.text


def test_it_is_a_schema_and_json() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()
    assert schema()["$defs"]["Latency"]["properties"]["p99"]["examples"] == ["20 ms", "5 s", "14 d"]
    assert schema()["$defs"]["Kpi"]["description"]


def test_the_examples_pass(tmp_path: Path) -> None:
    starter(tmp_path / "new", "late-invoices")
    for text in (VALID.encode(), load(tmp_path / "new").text.encode()):
        node, _ = read(text)
        assert [error.message for error in VALIDATOR.iter_errors(plain(node))] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("p99: 20 ms", "p99: 20"),
        ("p99: 20 ms", "p99: 20 msec"),
        ("500/s", "500"),
        ("99.9 %", "99.9"),
        ("2000 USD", "2000 dollars"),
        ("kind: recommender", "kind: recomender"),
        ("unit: USD", "unt: USD"),
        ("92000 items", "-5"),
        ("residency: [eu]", "residency: [mars]"),
        ("transactions.csv}", "transactions.csv, region: mars}"),
        ("name: retail", "name: My Retail"),
        ("bedplate: 1", "bedplate: 2"),
        ("gates: [quality", "gates: [qualty"),
        ("affects_people: true", 'affects_people: "true"'),
        ("gates: [quality, latency, fairness, security]", "gates: quality"),
    ],
)
def test_what_loading_refuses_by_shape_the_schema_refuses(old: str, new: str) -> None:
    assert old in VALID
    node, _ = read(VALID.replace(old, new).encode())
    assert list(VALIDATOR.iter_errors(plain(node)))
