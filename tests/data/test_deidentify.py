"""Safe Harbor: no identifier of any class is left in a table, a quarantine or a message; what may stay, stays."""

import csv
import random
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bedplate import clock
from bedplate.data import contracts, deidentify
from bedplate.data.ingest import ingest
from bedplate.data.tables import Tables
from bedplate.errors import ContractError
from bedplate.identifiers import SMALL_AREAS, code, zip3
from bedplate.records import IngestResult
from bedplate.usecase.types import DataSet, Incremental, Source

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
ROWS = 60
NOW = datetime(2026, 3, 1, tzinfo=UTC)
HEAD = """apiVersion: v3.1.0
kind: DataContract
id: patients
version: 1.0.0
status: active
schema:
- name: patients
  properties:
"""
SYLLABLES = ("bra", "dol", "fen", "gri", "hul", "jas", "kov", "lem", "mir", "nox", "pra", "quo", "rus", "tiv", "wex")


def _column(name: str, *tags: str, kind: str = "string", more: str = "") -> str:
    said = ", ".join(f"'safe-harbor:{tag}'" for tag in tags)
    return f"  - {{name: {name}, logicalType: {kind}, tags: [{said}]{more}}}\n"


CONTRACT = HEAD + "".join(
    (
        _column("full_name", "name", more=", required: true"),
        _column("address", "geography"),
        _column("zip", "zip"),
        _column("admitted", "date", kind="date"),
        _column("born", "birth-date", kind="date"),
        _column("age", "age", kind="integer"),
        _column("phone", "telephone", more=", logicalTypeOptions: {minLength: 1}"),
        _column("fax", "fax"),
        _column("mail", "email"),
        _column("ssn", "ssn"),
        _column("mrn", "medical-record", "code", more=", primaryKey: true"),
        _column("plan", "health-plan"),
        _column("account", "account"),
        _column("licence", "licence"),
        _column("vehicle", "vehicle"),
        _column("device", "device"),
        _column("site", "url"),
        _column("ip", "ip"),
        _column("finger", "biometric"),
        _column("photo", "photo"),
        _column("pass", "other"),
        _column("note", "text", "scrub"),
        _column("letter", "text"),
        _column("score", "none", kind="integer", more=", logicalTypeOptions: {maximum: 100}"),
    )
)


def _word(rng: random.Random, parts: int = 3) -> str:
    return "".join(rng.choice(SYLLABLES) for _ in range(parts)).capitalize()


def _digits(rng: random.Random, count: int) -> str:
    return str(rng.randrange(10 ** (count - 1), 10**count))


def _patient(rng: random.Random) -> dict[str, str]:
    """One row; every value is as good as unique, so that it can be searched for."""
    day, born = (date(year, rng.randrange(1, 13), rng.randrange(2, 29)) for year in (2019, rng.randrange(1910, 2015)))
    serial = _digits(rng, 8)
    return {
        "full_name": f"{_word(rng)} {_word(rng)}",
        "address": f"{rng.randrange(1000, 9999)} {_word(rng)} Lane, {_word(rng, 4)}",
        "zip": _digits(rng, 5),
        "admitted": day.isoformat(),
        "born": born.isoformat(),
        "age": str(2026 - born.year),
        "phone": f"({_digits(rng, 3)}) 555-{_digits(rng, 4)}",
        "fax": f"+1 {_digits(rng, 3)} 555 {_digits(rng, 4)}",
        "mail": f"{_word(rng).lower()}.{serial}@{_word(rng).lower()}.example",
        "ssn": f"{_digits(rng, 3)}-{_digits(rng, 2)}-{_digits(rng, 4)}",
        "mrn": f"MRN{_digits(rng, 7)}",
        "plan": f"HP-{_digits(rng, 9)}",
        "account": f"ACC{_digits(rng, 10)}",
        "licence": f"D{_digits(rng, 7)}",
        "vehicle": f"1HGCM{_digits(rng, 5)}A{_digits(rng, 6)}",
        "device": f"SN-{_word(rng, 1)}{_digits(rng, 6)}",
        "site": f"https://{_word(rng).lower()}.example/p?id={serial}",
        "ip": f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 256)}",
        "finger": f"template-{rng.randbytes(12).hex()}",
        "photo": f"faces-{rng.randbytes(12).hex()}",
        "pass": f"guest{_digits(rng, 6)}",
        "score": str(rng.randrange(100)),
    }


IDENTIFYING = tuple(name for name in _patient(random.Random(0)) if name not in ("score", "age"))
TELLING = tuple(name for name in IDENTIFYING if name not in ("finger", "photo"))
"""What stands in texts too."""


def _noted(row: dict[str, str]) -> dict[str, str]:
    told = "; ".join(f"{name} is {row[name]}" for name in TELLING)
    first = row["full_name"].split()[0]
    return {**row, "note": f"{first} felt well. {told}. Seen by the ward", "letter": f"Dear {first}, {told}"}


def _sought(row: dict[str, str]) -> list[str]:
    whole = (row[name] for name in IDENTIFYING if name != "zip")  # five digits stand in any digest by chance
    return [*whole, *row["full_name"].split(), row["address"].split(",")[0]]


def _taken_in(folder: Path, rows: list[dict[str, str]], key: bytes | None = KEY) -> tuple[IngestResult, Tables]:
    folder.mkdir(exist_ok=True)
    (folder / "c.odcs.yaml").write_text(CONTRACT)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
        file.write(f"{rows[0]['full_name']},{rows[0]['ssn']}\n")  # no row: too short
    tables = Tables(folder / "home")
    spec = DataSet(contract="c.odcs.yaml", source=Source(kind="csv", path="rows.csv"))
    with clock.frozen(NOW):
        return ingest(
            tables, use_case="ward", dataset="patients", spec=spec, folder=folder, key="k", pseudonyms=key
        ), tables


def _everything(folder: Path, tables: Tables, result: IngestResult) -> str:
    """Every byte below the home as it lies there, and every value as it is read: pages may be compressed."""
    raw = b"\n".join(path.read_bytes() for path in sorted((folder / "home").rglob("*")) if path.is_file())
    read = [tables.scan(version).read_all().to_pylist() for version in (result.table, result.quarantine) if version]
    return raw.decode("latin-1") + repr(read) + repr(result)


def test_no_identifier_lands_in_the_table_nor_in_the_quarantine(tmp_path: Path) -> None:
    rng = random.Random(164514)
    rows = [_noted(_patient(rng)) for _ in range(ROWS)]
    for row in rows[::5]:
        row["score"] = rng.choice(("900", row["full_name"]))  # breaks a rule; is no number
    result, tables = _taken_in(tmp_path / "safe", rows)
    assert (result.read, result.rejected, result.deidentified) == (ROWS + 1, ROWS // 5 + 1, "safe-harbor")
    found = _everything(tmp_path / "safe", tables, result)
    left = [value for row in rows for value in _sought(row) if value in found]
    assert not left
    zips = {row["zip"] for row in rows}
    for version in (result.table, result.quarantine):
        assert version is not None
        values = tables.scan(version).read_all().to_pylist()
        assert not zips & {word for row in values for word in re.findall(r"\w+", repr(row))}
    (tmp_path / "open").mkdir()
    plain = _everything(tmp_path / "open", *reversed(_taken_in(tmp_path / "open", rows, None)))
    assert all(value in plain for row in rows for value in _sought(row) if value not in (row["admitted"], row["born"]))


def test_what_may_stay_stays(tmp_path: Path) -> None:
    rng = random.Random(2)
    rows = [_noted(_patient(rng)) for _ in range(5)]
    result, tables = _taken_in(tmp_path, rows)
    for before, after in zip(rows, tables.scan(result.table).read_all().to_pylist(), strict=True):
        young = 2026 - int(before["born"][:4]) < 90
        assert after["admitted"] == date(2019, 1, 1)
        assert after["born"] == (date(int(before["born"][:4]), 1, 1) if young else None)
        assert after["age"] == min(90, int(before["age"]))
        assert after["zip"] in (before["zip"][:3], "000")
        assert after["mrn"] == code(KEY, before["mrn"])
        assert after["score"] == int(before["score"])
        assert after["letter"] is after["full_name"] is after["photo"] is None
        assert "felt well" in after["note"]
        assert "Seen by the ward" in after["note"]


@pytest.mark.parametrize("name", TELLING)
def test_texts_lose_what_the_row_tells_and_what_patterns_know(name: str) -> None:
    rng = random.Random(name)
    for _ in range(50):
        value = _patient(rng)[name]
        kind = {"full_name": "name", "address": "geography"}.get(name)
        told = [(kind, value)] if kind else []  # names and places are found only where a column tells them
        text = deidentify.scrubbed(f"The one of {value}, as written ({value}), came back.", told)
        assert value not in text
        assert not [part for part in value.split() if len(part) > 3 and part in text]
        assert text.startswith("The one of ")
        assert text.endswith(" came back.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aged 89, age 89, 89 years old", "aged 89, age 89, 89 years old"),
        ("aged 90; 103-year-old; age 91", "[age]; [age]-year-old; [age]"),
        ("on 3 March 2021 and March 4, and 5/6/2020", "on [date] and [date], and [date]"),
        ("took 5 mg twice, pulse 72", "took 5 mg twice, pulse 72"),
        ("from fe80::1c2:3d4 or 2001:db8:0:0:0:0:0:1", "from [ip] or [ip]"),
    ],
)
def test_texts_at_the_boundaries(text: str, expected: str) -> None:
    assert deidentify.scrubbed(text) == expected


@pytest.mark.parametrize(
    ("tag", "values", "expected"),
    [
        ("age", pa.array([0, 89, 90, 91, 120, None]), [0, 89, 90, 90, 90, None]),
        ("zip", pa.array(["10001", "03601-1234", "893010000", "1000", "K1A 0B1", None]),
         ["100", "000", "000", None, None, None]),
        ("date", pa.array([date(2020, 12, 31), date(2021, 1, 1), None]), [date(2020, 1, 1), date(2021, 1, 1), None]),
        ("birth-date", pa.array([date(1936, 12, 31), date(1937, 1, 1)]), [None, date(1937, 1, 1)]),
    ],
)  # fmt: skip
def test_boundaries(tmp_path: Path, tag: str, values: pa.Array, expected: list[Any]) -> None:
    kind = {"age": "integer", "zip": "string"}.get(tag, "date")
    (tmp_path / "c.yaml").write_text(HEAD + _column("it", tag, kind=kind))
    model = contracts.load(tmp_path / "c.yaml").model("patients")
    with clock.frozen(NOW):
        made = deidentify.SafeHarbor(model, KEY).of(pa.table({"it": values}))
    assert made.column("it").to_pylist() == expected
    assert made.schema.field("it").type == values.type


def test_every_small_area_is_one() -> None:
    assert len(SMALL_AREAS) == 17
    zips = pa.chunked_array([[f"{area}01" for area in sorted(SMALL_AREAS)]])
    assert {zip3(text) for text in zips.to_pylist()} == {"000"}


def test_codes_hold_together_under_one_key_and_tell_nothing_under_another() -> None:
    mine = {value: code(KEY, value) for value in map(str, range(20_000))}
    assert len(set(mine.values())) == len(mine)
    assert mine["7"] == code(KEY, "7")
    assert not set(mine.values()) & {code(key, value) for key in (OTHER_KEY, b"") for value in mine}


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ("  - {name: it, logicalType: string}\n", "says nothing"),
        (_column("it", "name", "none"), "name and none"),
        (_column("it", "nane"), "nane, which is no class"),
        (_column("it", "age"), "is string, and safe-harbor:age takes integer or number"),
        (_column("it", "date"), "takes date or timestamp"),
        (_column("it", "name", "code"), "safe-harbor:code is for medical-record"),
        (_column("it", "medical-record", "code", kind="integer"), "safe-harbor:code takes string"),
        (_column("it", "name", "scrub"), "safe-harbor:scrub is for text"),
    ],
)
def test_a_column_that_does_not_say_what_it_is_is_refused(tmp_path: Path, columns: str, match: str) -> None:
    (tmp_path / "c.yaml").write_text(HEAD + columns)
    contract = contracts.load(tmp_path / "c.yaml")
    with pytest.raises(ContractError, match=match) as raised:
        deidentify.check(contract, contract.model("patients"))
    assert "line 9" in str(raised.value)


def test_what_needs_an_identifier_as_it_came_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.odcs.yaml").write_text(CONTRACT)
    csv_, pictures = Source(kind="csv", path="rows.csv"), Source(kind="images", path="scans")
    weekly = Incremental(watermark="admitted")
    for spec, match in (
        (DataSet(contract="c.odcs.yaml", source=csv_, subject="ssn"), "ssn .* a subject .* neither as it came nor as"),
        (DataSet(contract="c.odcs.yaml", source=csv_, incremental=weekly), "admitted .* a watermark"),
        (DataSet(contract="c.odcs.yaml", source=pictures), "pictures"),
    ):
        with pytest.raises(ContractError, match=match):
            ingest(
                Tables(tmp_path / "home"), use_case="w", dataset="patients", spec=spec, folder=tmp_path, key="k",
                pseudonyms=KEY,
            )  # fmt: skip
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("text", ["Ada Lovelace,1 Main Street\nBob,2\n", "", '"Ada Lovelace\nBob'])
def test_a_file_that_cannot_be_read_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.odcs.yaml").write_text(CONTRACT)
    (tmp_path / "rows.csv").write_text(text)
    spec = DataSet(contract="c.odcs.yaml", source=Source(kind="csv", path="rows.csv"))
    with pytest.raises(ContractError, match="may quote a row") as raised:
        ingest(
            Tables(tmp_path / "home"), use_case="w", dataset="patients", spec=spec, folder=tmp_path, key="k",
            pseudonyms=KEY,
        )  # fmt: skip
    assert "Ada" not in str(raised.value)


VISITS = HEAD.replace("id: patients", "id: visits").replace("name: patients", "name: visits") + "".join(
    (
        _column("visit", "other", "code", more=", primaryKey: true"),
        _column("patient", "medical-record", "code", more=", relationships: [{type: foreignKey, to: patients.mrn}]"),
        _column("before", "other", "code", more=", relationships: [{type: foreignKey, to: visits.visit}]"),
        _column("number", "none", kind="integer", more=", required: true"),
        _column("ward", "none"),
    )
)


def test_codes_know_rows_of_a_batch_again_and_hold_references(tmp_path: Path) -> None:
    patients = [_noted(_patient(random.Random(seed))) for seed in range(3)]
    _result, tables = _taken_in(tmp_path, patients)
    (tmp_path / "visits.odcs.yaml").write_text(VISITS)
    spec = DataSet(
        contract="visits.odcs.yaml", source=Source(kind="csv", path="visits.csv"), subject="patient",
        incremental=Incremental(watermark="number", lateness=9),
    )  # fmt: skip
    ada, bob, cid = (row["mrn"] for row in patients)

    def bring(*lines: str) -> IngestResult:
        (tmp_path / "visits.csv").write_text("\n".join(("visit,patient,before,number,ward", *lines)) + "\n")
        return ingest(
            tables, use_case="ward", dataset="visits", spec=spec, folder=tmp_path, key="k", pseudonyms=KEY
        )  # fmt: skip

    first = bring(f"V-70001,{ada},,1,a", f"V-70002, {bob} ,V-70001,2,b", "V-70003,MRN0000000,,2,b", f",{cid},,2,c")
    assert (first.read, first.accepted, first.rejected) == (4, 2, 2)
    again = bring(f"V-70002,{bob},V-70001,2,b", f"V-70004,{ada},V-70002,3,c", f"V-70005,{cid},V-79999,3,c")
    assert (again.known, again.accepted, again.rejected) == (1, 1, 1)
    failed = {outcome.rule for outcome in again.outcomes if outcome.failed}
    assert failed == {"before.foreignKey.visits"}

    held = tables.scan(tables.current("ward.visits")).read_all().to_pylist()
    assert [row["visit"] for row in held] == [code(KEY, f"V-7000{n}") for n in (1, 2, 4)]
    assert [row["patient"] for row in held] == [code(KEY, mrn) for mrn in (ada, bob, ada)]
    people = tables.scan(tables.current("ward.patients")).read_all().column("mrn").to_pylist()
    assert {row["patient"] for row in held} <= set(people)
    everything = _everything(tmp_path, tables, again)
    for told in (ada, bob, cid, "V-7000", "V-79999", "MRN0000000"):
        assert told not in everything


def test_columns_that_are_dictionaries_of_text_land_as_safe_ones(tmp_path: Path) -> None:
    """As Parquet gives text: its distinct values once."""
    rows = [_noted(_patient(random.Random(seed))) for seed in range(4)]
    _result, tables = _taken_in(tmp_path, rows * 2)
    plain = tables.scan(tables.current("ward.patients")).read_all()
    contract = contracts.load(tmp_path / "c.odcs.yaml")
    model = contract.model("patients")
    texts = {name: [row[name] for row in rows] for name in ("mrn", "zip", "full_name", "note")}
    table = pa.table({name: pa.array(values).dictionary_encode() for name, values in texts.items()})
    made = deidentify.SafeHarbor(model, KEY).of(table)
    assert made.column("mrn").to_pylist() == plain.column("mrn").to_pylist()[:4]
    assert made.column("full_name").null_count == 4
    assert "MRN" not in repr(made.to_pylist())
