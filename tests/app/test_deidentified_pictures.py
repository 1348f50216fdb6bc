"""A use case with scans and photographs of people: what lands of them, what is set aside, what is refused, erasure."""

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedplate import settings
from bedplate.app.operations import Bedplate
from bedplate.app.system import System
from bedplate.data.tables import Tables
from bedplate.errors import BedplateError, ContractError, InputError, UseCaseError
from bedplate.usecase.starter import starter

pydicom = pytest.importorskip("pydicom")
image = pytest.importorskip("PIL.Image")
png = pytest.importorskip("PIL.PngImagePlugin")

PEOPLE, EACH = 50, 2
HEAD = """apiVersion: v3.1.0
kind: DataContract
id: {name}
version: 1.0.0
status: active
schema:
- name: {name}
  properties:
  - {{name: file, logicalType: string, primaryKey: true}}
  - {{name: pixels, logicalType: string, logicalTypeOptions: {{format: binary}}}}
"""
SCANS = """  - {name: PatientID, logicalType: string, required: true}
  - {name: Modality, logicalType: string}
  - {name: Rows, logicalType: integer, logicalTypeOptions: {maximum: 8}}
  - {name: StudyDate, logicalType: date, classification: personal}
  - {name: StudyDescription, logicalType: string}
  - {name: PatientAge, logicalType: string, classification: personal}
  - {name: SeriesInstanceUID, logicalType: string}
  - {name: DeidentificationMethod, logicalType: string}
"""
OPTIONS = "clean-pixel-data, clean-descriptors, modified-dates, retain-patient"
ASKED = f"""    deidentify:
      profile: dicom-basic
      options: [{OPTIONS}]
      regions: [{{ modality: CT, rows: 8, columns: 8, boxes: [[0, 0, 8, 2]] }}]
"""
PHOTOS = """  - {name: mode, logicalType: string}
  - {name: width, logicalType: integer}
"""


class Secrets:
    """Values that must be nowhere, by what they are."""

    def __init__(self) -> None:
        self.rng = random.Random(5)
        self.by_kind: dict[str, list[str]] = {}

    def of(self, kind: str, form: str = "Zq{}Xw") -> str:
        made = form.format(self.rng.randbytes(5).hex())
        self.by_kind.setdefault(kind, []).append(made)
        return made

    def number(self, kind: str, form: str = "1.2.826.0.1.7{}") -> str:
        made = form.format(self.rng.randrange(10**11, 10**12))
        self.by_kind.setdefault(kind, []).append(made)
        return made


def _scan(path: Path, secrets: Secrets, patient: str, name: str, *, burned: bool = False, rows: int = 8) -> None:
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = secrets.number("uid")
    data.file_meta.SourceApplicationEntityTitle = secrets.of("meta", "Z{}")
    data.preamble = (b"MZ" + secrets.of("preamble").encode()).ljust(128, b"\0")
    data.PatientID, data.PatientName = patient, f"{name}^{secrets.of('given name')}"
    data.SeriesInstanceUID, data.StudyInstanceUID = secrets.number("uid"), secrets.number("uid")
    data.Modality, data.StudyDate, data.PatientAge = "CT", "20200228", "047Y"
    data.StudyDescription = f"CT CHEST {name} {secrets.of('unknown name')} 2 mm"
    data.AccessionNumber, data.InstitutionName = secrets.of("accession", "A{}"), secrets.of("institution")
    data.PatientComments, data.Manufacturer = secrets.of("comment"), f"works of {name}"
    data.add_new(0x00190010, "LO", "ACME")
    data.add_new(0x00191001, "LO", secrets.of("private"))
    data.add_new(0x60003000, "OW", secrets.of("overlay").encode())
    data.add_new(0x50003000, "OW", secrets.of("curve").encode())
    inner = pydicom.Dataset()
    inner.PatientName, inner.ReferencedSOPInstanceUID = secrets.of("nested"), secrets.number("uid")
    data.RequestAttributesSequence = [inner]
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = rows, 8, 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    pixels = np.full((rows, 8), 99, np.uint8)
    pixels[:2] = np.frombuffer(secrets.of("burned", "{}abcdef").encode()[:16], np.uint8).reshape(2, 8)
    data.PixelData = pixels.tobytes()
    if burned:
        data.BurnedInAnnotation = "YES"
    pydicom.dcmwrite(path, data, enforce_file_format=True)


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Path, Secrets, list[str]]:
    """The first use case, with scans and photographs beside its invoices."""
    root, secrets = tmp_path / "shop", Secrets()
    starter(root, "shop")
    (root / "data" / "scans").mkdir()
    (root / "data" / "photos").mkdir()
    patients = [secrets.number("patient", "MRN{}") for _ in range(PEOPLE)]
    for number, patient in enumerate(patients):
        name = secrets.of("name")
        for each in range(EACH):
            path = root / "data" / "scans" / f"{number:03}-{each}-{secrets.of('file name')}.dcm"
            _scan(path, secrets, patient, name)
        picture = image.fromarray(np.full((8, 8), number, np.uint8))
        told = png.PngInfo()
        told.add_text("Author", secrets.of("text chunk"))
        picture.save(root / "data" / "photos" / f"{secrets.of('file name')}.png", pnginfo=told)
        exif = image.Exif()
        exif[0x010E] = secrets.of("exif")
        picture.save(root / "data" / "photos" / f"{secrets.of('file name')}.jpg", exif=exif)
    aside = root / "data" / "scans"
    _scan(aside / f"{secrets.of('file name')}-mr.dcm", secrets, patients[0], secrets.of("name"), rows=9)
    whole = next(aside.glob("000-0-*")).read_bytes()
    (aside / f"{secrets.of('file name')}-cut.dcm").write_bytes(whole[: len(whole) - 40])
    (aside / f"{secrets.of('file name')}-text.dcm").write_text(f"{secrets.of('damaged')} is no scan")
    (root / "contracts" / "scans.odcs.yaml").write_text(HEAD.format(name="scans") + SCANS)
    (root / "contracts" / "photos.odcs.yaml").write_text(HEAD.format(name="photos") + PHOTOS)
    file = root / "usecase.yaml"
    photos = "{ profile: images, options: [clean-pixel-data], regions: [{ rows: 8, boxes: [[0, 0, 3, 3]] }] }"
    head, tail = re.split(r"\ndata:.*\n", file.read_text())
    file.write_text(
        f"{head}\ndata:\n"
        "  scans:\n    contract: contracts/scans.odcs.yaml\n    source: { kind: dicom, path: data/scans }\n"
        f"    subject: PatientID\n{ASKED}"
        "  photos:\n    contract: contracts/photos.odcs.yaml\n    source: { kind: images, path: data/photos }\n"
        f"    deidentify: {photos}\n{tail}".replace("erasure: none", "erasure: by subject")
    )
    return root, secrets, patients


def _run(bedplate: Bedplate, folder: Path) -> None:
    for stage in ("check", "plan", "ingest"):
        bedplate.run(folder, only=stage)


def _rows(tables: Tables, name: str) -> list[dict[str, Any]]:
    return tables.scan(tables.current(name)).read_all().to_pylist()


def test_nothing_that_was_planted_is_anywhere_in_the_home(
    shop: tuple[Path, Secrets, list[str]], tmp_path: Path
) -> None:
    root, secrets, patients = shop
    home = tmp_path / "home"
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(home)}))
    _run(bedplate, root)
    with System(bedplate.settings) as system:
        scans, aside = _rows(system.tables, "shop.scans"), _rows(system.tables, "shop.scans.quarantine")
        photos = _rows(system.tables, "shop.photos")
        with system.store.read() as tx:
            facts = {fact.body["dataset"]: fact.body["deidentified"] for fact in tx.facts.list("shop", "dataset")}
    assert (len(scans), len(photos)) == (PEOPLE * EACH, 2 * PEOPLE)
    assert facts["scans"] == "dicom-basic (113100, 113101, 113105, 113107, 113108 of PS3.15 2026d)"
    assert (facts["photos"], facts["invoices"]) == ("images", "")
    assert sorted(row["_reasons"] for row in aside) == [
        "the row cannot be decoded", "the row cannot be decoded",
        "the row may show text in its pixels: its attributes do not say NO, and no region is declared for its kind",
    ]  # fmt: skip
    kinds = [kind for kind, values in secrets.by_kind.items() if len(values) >= PEOPLE]
    assert len(kinds) >= 15
    planted = {value for values in secrets.by_kind.values() for value in values}
    told = repr([scans, aside, photos])
    assert not [value for value in planted if value in told]
    for path in home.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            assert not [value for value in planted if value.encode() in held], path
    # What may stay is there: groups of one patient, whole words of medicine, dates that moved together, black boxes.
    people = {row["PatientID"] for row in scans}
    assert len(people) == len(patients)
    assert all(len({row["StudyDate"] for row in scans if row["PatientID"] == who}) == 1 for who in people)
    assert len({row["StudyDate"] for row in scans}) > PEOPLE // 2
    assert all(re.fullmatch(r"CT CHEST \[name\] .*\[\w+\] 2 mm", row["StudyDescription"]) for row in scans)
    assert {row["PatientAge"] for row in scans} == {"047Y"}
    assert {row["pixels"] for row in scans} == {bytes(16) + bytes([99]) * 48}
    assert all("113107" in row["DeidentificationMethod"] for row in scans)
    assert all(np.frombuffer(row["pixels"], np.uint8).reshape(8, 8)[:3, :3].max() == 0 for row in photos)
    _refused_and_erased(bedplate, root, patients)


def _refused_and_erased(bedplate: Bedplate, root: Path, patients: list[str]) -> None:
    with pytest.raises(InputError, match="not kept as it came"):
        bedplate.tables.replay(root, "scans")
    report = bedplate.erasure.subject("shop", patients[3], "request 12")
    assert report.tables == {"shop.scans": EACH}
    assert report.sources == ("scans",)
    with System(bedplate.settings) as system:
        assert len({row["PatientID"] for row in _rows(system.tables, "shop.scans")}) == PEOPLE - 1


def test_versions_from_before_and_what_safe_harbor_forbids_are_refused(
    shop: tuple[Path, Secrets, list[str]], tmp_path: Path
) -> None:
    root, _, _ = shop
    file, contract = root / "usecase.yaml", root / "contracts" / "scans.odcs.yaml"
    safe, open_ = file.read_text(), contract.read_text()
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")}))
    contract.write_text(HEAD.format(name="scans"))
    file.write_text(safe.replace(ASKED, "").replace("    subject: PatientID\n", ""))
    _run(bedplate, root)
    file.write_text(safe)
    with pytest.raises(BedplateError, match=r"shop\.scans, shop\.scans\.quarantine hold rows as they came"):
        _run(bedplate, root)
    contract.write_text(open_.replace("classification: personal", "tags: [x]", 1))
    fresh = Bedplate(settings.load({"BEDPLATE_HOME": str(tmp_path / "fresh")}))
    with pytest.raises(BedplateError, match=r"StudyDate .*has no classification|may quote a row"):
        _run(fresh, root)
    contract.write_text(
        open_ + "  - {name: PatientBirthDate, logicalType: date}\n  - {name: PixelData, logicalType: string}\n"
    )
    with pytest.raises(ContractError, match=r"PatientBirthDate .line \d+. is taken out .*PixelData .* holds bytes"):
        bedplate.check(root)
    contract.write_text(open_)
    assert bedplate.check(root)
    harbor = safe.replace("erasure: by subject", "erasure: by subject\n  deidentify: safe-harbor")
    file.write_text(harbor)
    invoices = root / "contracts" / "invoices.odcs.yaml"
    tag = "        tags: ['safe-harbor:none']\n        logicalType: "
    invoices.write_text(invoices.read_text().replace("        logicalType: ", tag))
    with pytest.raises(ContractError, match="scans asks for modified-dates, and Safe Harbor takes out"):
        bedplate.check(root)
    file.write_text(harbor.replace("modified-dates, ", ""))
    with pytest.raises(ContractError, match=r"StudyDate .* is taken out"):
        bedplate.check(root)
    contract.write_text(open_.replace("  - {name: StudyDate, logicalType: date, classification: personal}\n", ""))
    assert bedplate.check(root)
    file.write_text(harbor.replace(ASKED, ""))
    with pytest.raises(ContractError, match="does not say how those are de-identified"):
        bedplate.check(root)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (OPTIONS, f"{OPTIONS}, clean-visual-features", "nothing here finds a face"),
        (OPTIONS, f"{OPTIONS}, retain-full-dates", "kept or moved, not both"),
        (OPTIONS, f"{OPTIONS}, retain-safe-private", "private and the option retain-safe-private"),
        (OPTIONS, f"{OPTIONS}, retain-uuids", "retain-uids"),
        ("clean-pixel-data, clean-descriptors", "clean-descriptors", "the option clean-pixel-data belongs"),
        ("[[0, 0, 8, 2]]", "[[0, 0, 0, 2]]", "this is no box"),
        ("[[0, 0, 8, 2]]", "[[0, 0, 8]]", "this is no box"),
        ("profile: dicom-basic", "profile: images", "dicom has no such profile"),
        ("profile: images, options: [clean-pixel-data]", "profile: images, options: [clean-pixel-data, retain-uids]",
         "files other than DICOM have pixels alone"),
        ("      profile: dicom-basic", "      private: { ACME: ['0042,xx01'] }\n      profile: dicom-basic",
         "this is no private element"),
    ],
)  # fmt: skip
def test_the_file_says_what_is_wrong(shop: tuple[Path, Secrets, list[str]], old: str, new: str, said: str) -> None:
    root, _, _ = shop
    file = root / "usecase.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UseCaseError, match=said):
        Bedplate(settings.load({"BEDPLATE_HOME": str(root / "home")})).check(root)
