"""Images and DICOM files as rows: one file, one row; pixels and what stands beside them as columns.

``pixels`` are the decoded values in row-major order, little-endian. A DICOM tag is a column under its keyword
(PS3.6), and only those that are asked for are read: what a contract does not name never leaves the file.
"""

import io
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bedplate import clock, extensions
from bedplate.data.model import Model
from bedplate.data.parsing.deidentified import UNREAD, Files
from bedplate.data.parsing.profile import Profile
from bedplate.data.parsing.regions import WithheldError
from bedplate.data.parsing.values import BadLine, Chunk
from bedplate.errors import ContractError

MAX_PIXELS = 1 << 27
"""Most pixels of one image; a file that claims more is set aside undecoded."""
_HELD = 64 << 20
_LONG = 20.0
"""Seconds after which rows go on, however few: looking for text takes a second a picture, and somebody waits."""
_IMAGE = {
    "file": pa.string(), "format": pa.string(), "width": pa.int64(), "height": pa.int64(), "mode": pa.string(),
    "metadata": pa.string(), "pixels": pa.binary(),
}  # fmt: skip
_DICOM = {"file": pa.string(), "pixels": pa.binary()}
_WHOLE = ("IS", "US", "SS", "UL", "SL", "UV", "SV")
_REAL = ("DS", "FL", "FD")
PERSONAL = frozenset({
    "AccessionNumber", "AcquisitionDate", "AcquisitionDateTime", "AcquisitionTime", "AdmissionID", "BurnedInAnnotation",
    "ContentDate", "ContentTime", "CountryOfResidence", "DeviceSerialNumber", "EthnicGroup", "FrameOfReferenceUID",
    "InstanceCreationDate", "InstanceCreationTime", "InstitutionAddress", "InstitutionName",
    "InstitutionalDepartmentName", "IssuerOfPatientID", "MedicalRecordLocator", "MilitaryRank",
    "NameOfPhysiciansReadingStudy", "Occupation", "OperatorsName", "OtherPatientIDs", "OtherPatientNames",
    "PatientAddress", "PatientAge", "PatientBirthDate", "PatientBirthName", "PatientBirthTime", "PatientComments",
    "PatientID", "PatientMotherBirthName", "PatientName", "PatientReligiousPreference", "PatientSex", "PatientSize",
    "PatientTelephoneNumbers", "PatientWeight", "PerformingPhysicianName", "ReferringPhysicianAddress",
    "ReferringPhysicianName", "ReferringPhysicianTelephoneNumbers", "RegionOfResidence", "RequestingPhysician",
    "ResponsiblePerson", "SOPInstanceUID", "SeriesDate", "SeriesInstanceUID", "SeriesTime", "StationName", "StudyDate",
    "StudyID", "StudyInstanceUID", "StudyTime",
})  # fmt: skip
"""Keywords of attributes that the basic confidentiality profile of PS3.15 Annex E protects, as far as they are columns
that somebody asks for."""


def check_personal(model: Model, where: str, gone: Collection[str] = ()) -> None:
    """Refuse a contract that takes in tags about a person without saying so; ``gone`` are none any more.

    Raises:
        ContractError: there are such; lists them.
    """
    silent = [
        f"{column.name} (line {column.line})"
        for column in model.columns
        if column.name in PERSONAL and column.name not in gone and not column.classification
    ]
    if silent:
        raise ContractError(
            f"{', '.join(silent)} says who somebody is and has no classification",
            where=where,
            fix="give it one in the contract, or leave it out",
        )


def columns(kind: str, wanted: Sequence[str]) -> pa.Schema:
    """The columns of images, or those ``wanted`` of DICOM files.

    Raises:
        ContractError: there is no such tag, or it holds other data sets.
        MissingExtraError: the library is not installed.
    """
    if kind == "images":
        return pa.schema(list(_IMAGE.items()))
    known = _DICOM | {name: tag_type(name) for name in wanted if name not in _DICOM}
    return pa.schema(list(known.items()))


def tag_type(keyword: str) -> pa.DataType:
    datadict: Any = extensions.require("pydicom.datadict", "images")
    tag = datadict.tag_for_keyword(keyword)
    if tag is None:
        raise ContractError(f"{keyword} is no keyword of DICOM", fix="name tags as PS3.6 does, such as Modality")
    kind, many = datadict.dictionary_VR(tag), datadict.dictionary_VM(tag) != "1"
    if kind == "SQ":
        raise ContractError(f"{keyword} is a sequence of data sets, which is no column", fix="name the tags of values")
    if many:
        return pa.string()
    return pa.int64() if kind in _WHOLE else pa.float64() if kind in _REAL else pa.date32() if kind == "DA" else (
        pa.string()
    )  # fmt: skip


def read(
    kind: str, paths: Sequence[Path], names: Sequence[str], profile: Profile | None = None
) -> Iterator[Chunk | BadLine]:
    """One row for each file, in the order of their names; a file that cannot be decoded is a bad line.

    Under a ``profile`` the rows are de-identified, and bad lines say nothing of what is in a file.

    Raises:
        MissingExtraError: the library is not installed.
    """
    schema = columns(kind, names)
    schema = pa.schema([schema.field(name) for name in names])
    decode: Callable[[Path, list[str]], dict[str, Any]] = _image if kind == "images" else _dicom
    extensions.require("PIL.Image" if kind == "images" else "pydicom", "images")
    files = None if profile is None else Files(profile)
    if files is not None:
        decode = partial(_safe_image if kind == "images" else _safe_dicom, files)
    held: list[dict[str, Any]] = []
    rows: list[int] = []
    size, began = 0, clock.monotonic()
    for number, path in enumerate(paths, 1):
        try:
            row = decode(path, schema.names)
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # noqa: BLE001  decoders raise whatever a damaged file leads them to
            if files is not None:
                reason = str(error) if isinstance(error, WithheldError) else UNREAD
                yield BadLine(files.name(path), number, "", reason)
                continue
            yield BadLine(path.name, number, "", f"{UNREAD}: {type(error).__name__}: {str(error)[:200]}")
            continue
        held.append(row)
        rows.append(number)
        size += len(row.get("pixels") or b"")
        if size > _HELD or len(held) == 4096 or clock.monotonic() - began > _LONG:
            yield _chunk(held, schema, rows)
            held, rows, size, began = [], [], 0, clock.monotonic()
    if held:
        yield _chunk(held, schema, rows)


def _chunk(held: list[dict[str, Any]], schema: pa.Schema, rows: list[int]) -> Chunk:
    return Chunk("", pa.Table.from_pylist(held, schema), np.array(rows))


def _image(path: Path, names: list[str]) -> dict[str, Any]:
    from PIL import ExifTags, Image

    with Image.open(io.BytesIO(path.read_bytes())) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it claims {image.width} x {image.height} pixels")
        found = {str(ExifTags.TAGS.get(tag, tag)): str(value)[:1000] for tag, value in image.getexif().items()}
        row: dict[str, Any] = {
            "file": path.name,
            "format": image.format,
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            "metadata": json.dumps(found, sort_keys=True),
        }
        image.load()  # whole: a truncated file is no row, whether or not its pixels are asked for
        if "pixels" in names:
            row["pixels"] = image.tobytes()
        return row


def _dicom(path: Path, names: list[str]) -> dict[str, Any]:
    import pydicom
    from pydicom.tag import Tag

    with_pixels = "pixels" in names
    frame = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"]
    wanted = None if with_pixels else [Tag(name) for name in (*names, *frame) if name not in _DICOM]
    data = pydicom.dcmread(path, stop_before_pixels=not with_pixels, specific_tags=wanted)
    claimed = 1
    for keyword in frame:
        claimed *= int(data.get(keyword) or 1)
    if claimed > MAX_PIXELS:
        raise ValueError(f"it claims {claimed} values")
    row: dict[str, Any] = {"file": path.name}
    for name in names:
        if name == "pixels":
            row[name] = np.ascontiguousarray(data.pixel_array).tobytes()
        elif name != "file":
            row[name] = _value(data.get(name), tag_type(name))
    return row


def _safe_image(files: Files, path: Path, names: list[str]) -> dict[str, Any]:
    return files.image(path, names, MAX_PIXELS)


def _safe_dicom(files: Files, path: Path, names: list[str]) -> dict[str, Any]:
    data, pixels = files.dicom(path, names, MAX_PIXELS)
    row: dict[str, Any] = {"file": files.name(path)}
    for name in names:
        if name == "pixels":
            row[name] = np.ascontiguousarray(pixels).tobytes()
        elif name != "file":
            row[name] = _value(data.get(name), tag_type(name))
    return row


def _value(value: Any, kind: pa.DataType) -> Any:
    if value is None or value == "":
        return None
    if pa.types.is_date32(kind):
        return datetime.strptime(str(value), "%Y%m%d").date()
    if pa.types.is_integer(kind):
        return int(value)
    if pa.types.is_floating(kind):
        return float(value)
    many = not isinstance(value, str | bytes) and hasattr(value, "__iter__") and not hasattr(value, "components")
    return json.dumps([str(each) for each in value]) if many else str(value)
