"""Images and DICOM files as rows: pixels and metadata, what is personal, and what cannot be decoded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedplate.data import ingest as ingestion
from bedplate.data.parsing import formats
from bedplate.data.parsing.values import BadLine, Chunk
from bedplate.data.tables import Tables
from bedplate.errors import ContractError
from bedplate.usecase.types import DataSet, Source

CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: scans
version: 1.0.0
status: active
schema:
- name: scans
  properties:
  - {name: file, logicalType: string, primaryKey: true}
"""
IMAGES = """  - {name: width, logicalType: integer, logicalTypeOptions: {maximum: 4}}
  - {name: mode, logicalType: string}
  - {name: pixels, logicalType: string, logicalTypeOptions: {format: binary}}
"""
TAGS = """  - {name: Modality, logicalType: string}
  - {name: Rows, logicalType: integer}
  - {name: SliceThickness, logicalType: number}
  - {name: pixels, logicalType: string, logicalTypeOptions: {format: binary}}
"""
PERSONAL = """  - {name: PatientID, logicalType: string}
  - {name: PatientBirthDate, logicalType: date}
"""
PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def _ingest(folder: Path, kind: str, more: str) -> tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]:
    (folder / "c.odcs.yaml").write_text(CONTRACT + more)
    spec = DataSet(contract="c.odcs.yaml", source=Source(kind=kind, path="scans"))  # type: ignore[arg-type]
    tables = Tables(folder / "tables")
    result = ingestion.ingest(tables, use_case="u", dataset="scans", spec=spec, folder=folder, key="k")
    aside = [] if result.quarantine is None else tables.scan(result.quarantine).read_all().to_pylist()
    return result, tables.scan(result.table).read_all().to_pylist(), aside


def test_images_are_rows_with_their_pixels(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "scans").mkdir()
    image.fromarray(PIXELS).save(tmp_path / "scans" / "a.png")
    image.fromarray(np.zeros((2, 9), np.uint8)).save(tmp_path / "scans" / "b.png")  # wider than the contract allows
    whole = (tmp_path / "scans" / "a.png").read_bytes()
    (tmp_path / "scans" / "c.png").write_bytes(whole[: len(whole) // 2])
    result, rows, aside = _ingest(tmp_path, "images", IMAGES)
    assert (result.read, result.accepted, result.rejected) == (3, 1, 2)
    assert rows == [{"file": "a.png", "width": 4, "mode": "L", "pixels": PIXELS.tobytes()}]
    assert {(row["_source_file"], row["_source_row"], row["_rules"][0]) for row in aside} == {
        ("", 2, "width.maximum"), ("c.png", 3, "row"),
    }  # fmt: skip
    assert next(row["pixels"] for row in aside if row["_source_row"] == 2) == bytes(18).hex()


def test_an_image_that_claims_too_much_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(PIXELS).save(tmp_path / "a.png")
    monkeypatch.setattr("bedplate.data.parsing.pictures.MAX_PIXELS", 11)
    (item,) = formats.read("images", [tmp_path / "a.png"], ["pixels"])
    assert isinstance(item, BadLine)
    assert "claims 4 x 3 pixels" in item.reason


def _scan(path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.Modality, data.PatientID, data.PatientBirthDate, data.SliceThickness = "CT", "p-77", "19700131", "2.5"
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 3, 4, 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = PIXELS.tobytes()
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def test_dicom_tags_are_columns_and_personal_ones_need_a_classification(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    _scan(tmp_path / "scans" / "a.dcm")
    (tmp_path / "scans" / "b.dcm").write_bytes(b"no scan")
    result, rows, aside = _ingest(tmp_path, "dicom", TAGS)
    assert (result.accepted, result.rejected, aside[0]["_rules"]) == (1, 1, ["row"])
    assert rows == [{"file": "a.dcm", "Modality": "CT", "Rows": 3, "SliceThickness": 2.5, "pixels": PIXELS.tobytes()}]
    assert not any(b"p-77" in path.read_bytes() for path in (tmp_path / "tables").rglob("*") if path.is_file())
    with pytest.raises(ContractError, match=r"PatientID .*PatientBirthDate .*classification"):
        _ingest(tmp_path, "dicom", TAGS + PERSONAL)
    with pytest.raises(ContractError, match="Modalty is no keyword"):
        _ingest(tmp_path, "dicom", TAGS.replace("Modality", "Modalty"))
    named = PERSONAL.replace("logicalType", "classification: personal, logicalType")
    _, rows, _ = _ingest(_again(tmp_path), "dicom", TAGS + named)
    assert (rows[0]["PatientID"], str(rows[0]["PatientBirthDate"])) == ("p-77", "1970-01-31")


def _again(folder: Path) -> Path:
    """A folder of its own, with the same scan."""
    (folder / "again" / "scans").mkdir(parents=True)
    _scan(folder / "again" / "scans" / "a.dcm")
    return folder / "again"


def test_several_values_of_a_tag_are_a_list(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    _scan(tmp_path / "a.dcm")
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.PixelSpacing = [0.5, 0.75]
    data.save_as(tmp_path / "a.dcm")
    (item,) = formats.read("dicom", [tmp_path / "a.dcm"], ["PixelSpacing", "PatientName"])
    assert isinstance(item, Chunk)
    assert item.table.to_pylist() == [{"PixelSpacing": '["0.5", "0.75"]', "PatientName": None}]
