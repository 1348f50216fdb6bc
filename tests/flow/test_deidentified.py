"""A use case that de-identifies, from its file to predictions: who is asked about stands in no byte of its home."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bedplate.app import access, endpoints
from bedplate.identifiers import code
from bedplate.isolation import confine
from bedplate.observe.ship import ship
from bedplate.usecase.starter import starter
from tests import retail
from tests.flow.test_recipes import ROW, ran
from tests.serve.support import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not confine.available().isolated, reason="this machine holds no code"),
]
NAMES = [f"Zebulon{number:06}" for number in range(3000)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The starter with a customer in each row, whose code lands, and the terms as the age of somebody."""
    folder = tmp_path / "shop"
    starter(folder, "shop")
    source = folder / "data" / "invoices.csv"
    head, *lines = source.read_text().splitlines()
    rows = (f"{line},{name}" for line, name in zip(lines, NAMES, strict=True))
    source.write_text("\n".join((f"{head},customer", *rows)) + "\n")
    more = "      - { name: customer, logicalType: string, tags: ['safe-harbor:account', 'safe-harbor:code'] }\n"
    retail.change(
        folder / "contracts" / "invoices.odcs.yaml",
        ("        logicalType: ", "        tags: ['safe-harbor:none']\n        logicalType: "),
        ("    quality:", f"{more}    quality:"),
    )
    contract = folder / "contracts" / "invoices.odcs.yaml"
    head, at, tail = contract.read_text().partition("- name: terms_days\n")
    contract.write_text(head + at + tail.replace("safe-harbor:none", "safe-harbor:age", 1))
    retail.change(
        folder / "usecase.yaml",
        ("  erasure: none\n", "  erasure: by subject\n  deidentify: safe-harbor\n"),
        ("path: data/invoices.csv }\n", "path: data/invoices.csv }\n    subject: customer\n"),
        ("  seed: 7\n", "  seed: 7\n  parameters: { without: [customer, invoice_id, issued_on] }\n"),
        ("replay: 200", "replay: 20"),
        ("p99: 50 ms", "p99: 900 ms"),
    )
    return folder


def test_who_is_asked_about_is_in_no_byte_of_the_home(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ran(folder, home) as served:
        headers = {
            "x-request-id": NAMES[7],
            "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01",
            "tracestate": f"w={NAMES[8]}",
        }
        answer = served.http.post("/predict", json={**ROW, "terms_days": 97.0}, headers=headers)
        assert answer.status_code == 200, answer.text
        system, table = served.system, access.predictions_table("shop")
        system.supervisor.seal("shop")
        journal = endpoints.journal_of(system, "shop")

        def logged() -> list[dict[str, str]]:
            version = ship(journal, system.tables, table).table
            rows = [] if version is None else system.tables.scan(version).read_all().to_pylist()
            return [row for row in rows if row["id"] == answer.headers["x-prediction-id"]]

        (row,) = eventually(logged)
        assert row["request_id"] == code(access.mask_key(system, "shop"), NAMES[7])
        assert '"terms_days":[90.0]' in row["inputs"]
        assert '"amount":[900.0]' in row["inputs"]
        assert "tracestate" not in row["trace"]
        rows = system.tables.scan(system.tables.current("shop.invoices")).read_all()
        assert rows.column("customer").null_count == 0
    for path in (path for path in home.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":  # its pages may be compressed
            data += str(pq.ParquetFile(path).read().to_pydict()).encode()
        assert b"Zebulon" not in data, path
