"""The profile of PS3.15 Annex E: every attribute under every option, by a reading of the table of its own."""

import csv
import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.data.parsing import profile as profiles
from bedplate.data.parsing import pseudonyms, regions
from bedplate.data.parsing.profile import OPTIONS, Profile
from bedplate.usecase.types import Deidentify, Region

pydicom = pytest.importorskip("pydicom")
datadict = pytest.importorskip("pydicom.datadict")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402

from bedplate.data.parsing.dicom import Engine  # noqa: E402

TABLE = Path(profiles.__file__).parent / "ps3_15.csv"
LINES = list(csv.DictReader(TABLE.read_text().splitlines()[1:]))
KEY = b"k" * 32
SECRET, KNOWN = "Zebulon", "CHEST"
UID, MAPPED = "1.2.826.0.1.99.7", "2.25."
GIVEN = date(2020, 2, 28)
PATIENT = "MRN-0042"
PLANTED: dict[str, Any] = {
    "AE": SECRET, "AS": "047Y", "CS": "ZEBULON", "DA": "20200228", "DS": "47.25", "DT": "20200228101530+0100",
    "IS": "4711", "LO": f"{KNOWN} {SECRET}", "LT": f"{KNOWN} {SECRET}", "PN": f"{SECRET}^Q", "SH": f"{KNOWN} {SECRET}",
    "ST": f"{KNOWN} {SECRET}", "TM": "101530", "UC": f"{KNOWN} {SECRET}", "UI": UID, "UR": f"urn:{SECRET}",
    "US": 4711, "UT": f"{KNOWN} {SECRET}", "OB": b"Zebulon.", "OW": b"Zebulon.", "UN": b"Zebulon.",
}  # fmt: skip
BY_NAME = (("DateTime", "DT"), ("Sequence", "SQ"), ("URI", "UR"), ("Comment", "LT"))
"""VRs of attributes that the installed dictionary does not have yet, by how their names end."""


def engine(*options: str, harbor: bool = False, private: dict[str, tuple[str, ...]] | None = None) -> Engine:
    asked = Deidentify(profile="dicom-basic", options=options, private=private or {})  # type: ignore[arg-type]
    return Engine(Profile(asked=asked, key=KEY, safe_harbor=harbor))


def place(line: dict[str, str]) -> tuple[int, str]:
    """A tag of a line, and its VR."""
    tag = {"PRIVATE": "00191001", "50xxxxxx": "50043000"}.get(line["tag"], line["tag"].replace("xx", "02"))
    number = int(tag, 16)
    if number >> 16 & 1:
        return number, "LO"
    try:
        kind = datadict.dictionary_VR(number).split(" or ")[0]
    except KeyError:
        kind = next((kind for end, kind in BY_NAME if line["name"].endswith(end)), "LO")
    return number, kind


def scan(number: int, kind: str) -> Any:
    """A data set with a planted value, another place of the same UID, and a date to compare with."""
    data = Dataset()
    data.SOPInstanceUID, data.PatientID, data.Modality = "1.2.826.0.1.99.1", PATIENT, "CT"
    data.PatientName = f"{SECRET}^Quark"
    data.StudyDate = f"{GIVEN:%Y%m%d}"
    inner = Dataset()
    inner.ReferencedSOPInstanceUID, inner.ReferencedSOPClassUID, inner.Modality = UID, pydicom.uid.CTImageStorage, "MR"
    inner.PatientName, inner.PatientID = f"{SECRET}^Quark", PATIENT
    data.RelatedSeriesSequence = [inner]
    if number >> 16 & 1:
        data.add_new(0x00190010, "LO", "ACME")
    data.add_new(number, kind, [inner] if kind == "SQ" else PLANTED[kind])
    return data


def values(data: Any) -> Iterator[bytes]:
    """Every value at any depth, as bytes."""
    for element in data:
        if element.VR == "SQ":
            for item in element.value:
                yield from values(item)
        else:
            yield element.value if isinstance(element.value, bytes) else str(element.value).encode()


def names_of(data: Any) -> bytes:
    return b"\0".join(values(data))


def holds(action: str, number: int, kind: str, made: Any) -> bool:
    """Whether what became of a planted value is what a code of the table asks for."""
    there, value = number in made, made[number].value if number in made else None
    given = PLANTED.get(kind)
    if action == "X":
        return not there
    if action == "Z":
        return there and value in ("", None, [], b"")
    if action == "D":
        return there and value not in ("", None, [], b"", given) and SECRET.encode() not in names_of(made)
    if action in ("U", "U*"):
        shown = made.RelatedSeriesSequence[0].ReferencedSOPInstanceUID
        shown = pseudonyms.uid(KEY, UID) if shown == UID else shown  # an option keeps that one
        if kind == "SQ":
            return bool(value[0].ReferencedSOPInstanceUID == shown and shown.startswith(MAPPED))
        return bool(value == shown and value.startswith(MAPPED))
    assert action == "K"
    if kind == "SQ":
        return there and value[0].Modality == "MR" and SECRET.encode() not in names_of(value[0])
    return bool(there and (value == PATIENT if number == 0x00100020 else value == given))


def cleaned(line: dict[str, str], number: int, kind: str, made: Any) -> bool:
    """Whether a value is of similar meaning and without what was planted; or else what the basic profile asks for."""
    if SECRET.encode() in names_of(made):
        return False
    if kind in ("DA", "DT") and number in made:
        moved = timedelta(days=pseudonyms.days(KEY, PATIENT))
        return str(made[number].value) == f"{GIVEN + moved:%Y%m%d}" + PLANTED[kind][8:]
    if kind == "TM":
        return bool(made[number].value == PLANTED["TM"])
    if kind in ("LO", "LT", "SH", "ST", "UC", "UT") and line["tag"] not in ("00080201", "60xx4000"):
        return KNOWN in str(made[number].value) and len(str(made[number].value)) <= (16 if kind == "SH" else 64)
    if kind == "AE":
        return str(made[number].value) not in (SECRET, "")
    if kind == "SQ":
        return holds("K", number, kind, made)
    return any(holds(basic, number, kind, made) for basic in line["basic"].split("/")) or not any(
        made[number].value if isinstance(made[number].value, bytes) else [1]
    )


@pytest.mark.parametrize("option", ["", *OPTIONS])
def test_every_attribute_of_the_table_becomes_what_it_says(option: str) -> None:
    profile = engine(*([option] if option else []), private={"ACME": ("0019,xx01",)})
    wrong = []
    for line in LINES:
        number, kind = place(line)
        if number >> 16 < 8:  # commands and file meta information are no part of a data set: see the test of the latter
            continue
        made, said = profile.of(scan(number, kind)), line.get(option) if option else ""
        if line["tag"] == "PRIVATE" and said:
            right = made[number].value == f"{KNOWN} [other]"
        elif said == "C":
            right = cleaned(line, number, kind, made)
        elif number == 0x00100020:
            right = re.fullmatch("[0-9a-f]{32}", made.PatientID) is not None
        elif number in (0x0008001A, 0x00080018) and not said:
            right = holds("U", number, kind, made)
        else:
            right = any(holds(action, number, kind, made) for action in (said or line["basic"]).split("/"))
            right = right and (said == "K" or SECRET.encode() not in names_of(made))
        if not right:
            wrong.append((line["tag"], line["name"], said or line["basic"], str(made.get(number))))
    assert not wrong


def test_the_table_is_whole_and_says_its_edition() -> None:
    table = profiles.table()
    assert table.edition == "2026d"
    assert len(table.rows) == len(LINES) == 657
    assert {part for line in LINES for part in line["basic"].split("/")} == {"X", "Z", "D", "U", "U*"}
    for line in LINES:
        number, _ = place(line)
        row = table.row(number)
        assert row is not None
        assert row.name == line["name"]
    codes = [code for code, _ in OPTIONS.values()]
    assert codes == [str(number) for number in range(113101, 113113)]


def test_of_several_options_one_that_keeps_wins_and_a_retired_option_is_none() -> None:
    row = profiles.table().row(0x00181200)  # Date of Last Calibration
    assert row is not None
    assert row.action(("modified-dates",)) == "C"
    assert row.action(("modified-dates", "retain-device")) == "K"
    assert row.action(()) == "X"


def test_what_is_done_is_written_and_what_was_written_before_goes() -> None:
    data = scan(0x00080060, "CS")
    data.DeidentificationMethod = f"by {SECRET}"
    data.PatientIdentityRemoved = "NO"
    made = engine("clean-descriptors", "modified-dates").of(data)
    assert made.PatientIdentityRemoved == "YES"
    assert [item.CodeValue for item in made.DeidentificationMethodCodeSequence] == ["113100", "113105", "113107"]
    assert {item.CodingSchemeDesignator for item in made.DeidentificationMethodCodeSequence} == {"DCM"}
    assert made.LongitudinalTemporalInformationModified == "MODIFIED"
    assert "2026d" in made.DeidentificationMethod[0]
    assert SECRET.encode() not in names_of(made)


def test_the_file_begins_anew(tmp_path: Path) -> None:
    """A preamble may be a program or a picture, and file meta information names who sent it."""
    data = scan(0x00080060, "CS")
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.SOPClassUID = pydicom.uid.CTImageStorage
    data.file_meta.SourceApplicationEntityTitle = data.file_meta.SendingApplicationEntityTitle = SECRET
    data.file_meta.ReceivingApplicationEntityTitle = SECRET
    data.file_meta.PrivateInformationCreatorUID, data.file_meta.PrivateInformation = UID, SECRET.encode()
    data.preamble = (b"MZ" + SECRET.encode()).ljust(128, b"\1")
    pydicom.dcmwrite(tmp_path / "a", data)
    assert SECRET.encode() in (tmp_path / "a").read_bytes()[:128]
    made = engine().of(pydicom.dcmread(tmp_path / "a"))
    pydicom.dcmwrite(tmp_path / "b", made, enforce_file_format=True)
    whole = (tmp_path / "b").read_bytes()
    assert whole[:128] == bytes(128)
    assert SECRET.encode() not in whole
    assert UID.encode() not in whole
    again = pydicom.dcmread(tmp_path / "b")
    assert again.file_meta.MediaStorageSOPInstanceUID == again.SOPInstanceUID == made.SOPInstanceUID
    assert str(made.SOPInstanceUID).startswith(MAPPED)


def test_private_elements_go_unless_they_are_named_under_their_creator() -> None:
    data = scan(0x00080060, "CS")
    data.add_new(0x00190010, "LO", "ACME")
    data.add_new(0x00190011, "LO", f"OF {SECRET}")
    for number, value in ((0x00191001, "3.5"), (0x00191002, SECRET), (0x00191101, SECRET)):
        data.add_new(number, "LO", value)
    nested = Dataset()
    nested.add_new(0x00190010, "LO", "ACME")
    nested.add_new(0x00191001, "LO", "7")
    nested.add_new(0x00191003, "PN", SECRET)
    data.RelatedSeriesSequence = [nested]
    assert not any(element.tag.is_private for element in engine().of(data).iterall())
    made = engine("retain-safe-private", private={"ACME": ("0019,XX01", "0019,xx03")}).of(data)
    assert [str(element.value) for element in made if element.tag.is_private] == ["ACME", "3.5"]
    (inside,) = made.RelatedSeriesSequence
    assert [str(element.value) for element in inside if element.tag.is_private] == ["ACME", "7"]


def test_overlays_curves_and_what_nobody_knows_go_at_any_depth() -> None:
    data = inner = scan(0x00080060, "CS")
    for _ in range(20):
        for number in (0x60003000, 0x60024000, 0x601E3000, 0x50003000, 0x50100110):
            inner.add_new(
                number, "LT" if number == 0x60024000 else "OW", PLANTED["LT" if number == 0x60024000 else "OW"]
            )
        inner.add_new(0x0040FFEE, "LO", SECRET)  # of no edition
        inner.add_new(0x00080094, "UN", b"Zebulon.")
        following = Dataset()
        inner.RelatedSeriesSequence = [following]
        inner = following
    made = engine().of(data)
    assert b"ebulon" not in names_of(made)
    assert sum(1 for element in made.iterall() if element.tag == 0x0008001A or element.VR == "SQ") >= 20
    drawn = engine("clean-graphics").of(data)
    assert drawn[0x60003000].value == bytes(8)
    deep = Dataset()
    for _ in range(70):
        outer = Dataset()
        outer.RelatedSeriesSequence = [deep]
        deep = outer
    with pytest.raises(ValueError, match="nested too deeply"):
        engine().of(deep)


def test_a_name_that_the_file_tells_is_found_where_it_should_not_stand() -> None:
    data = scan(0x00080060, "CS")
    data.AccessionNumber, data.Manufacturer = "ACC77812", f"{SECRET.upper()} works"
    data.ReasonForStudy = "old"
    data.LossyImageCompressionMethod = "ISO_10918_1"
    data.add_new(0x00200062, "CS", "L")
    data.add_new(0x00189004, "CS", "PRODUCT")
    data.SoftwareVersions = ["v1", "ACC77812"]
    made = engine("retain-device").of(data)
    assert made.Manufacturer == "[other] works"
    assert names_of(made).count(b"ACC77812") == (1 if profiles.table().row(0x00181020) else 0)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("CT CHEST w/o contrast, 2 mm axial", True),
        ("Knee left AP and lateral T2", True),
        ("Chest for Dr. Mueller-Luedenscheidt", False),
        ("call 030 1234567", False),
        ("seen 2020-02-28", False),
    ],
)
def test_descriptions_keep_words_of_medicine_and_no_others(text: str, clean: bool) -> None:
    data = scan(0x00080060, "CS")
    data.StudyDescription = text
    made = str(engine("clean-descriptors").of(data).StudyDescription)
    assert (made.replace("[other]", "") == made and re.findall(r"\w+", made) == re.findall(r"\w+", text)) is clean or (
        clean and text.startswith("CT") and "CHEST" in made and "contrast" in made
    )
    assert not re.search("Mueller|Lueden|1234567|02-28", made)


def test_uids_dates_and_patients_stay_consistent_over_a_set() -> None:
    """Two patients, each two studies of two series of three files that refer to each other."""
    profile = engine("modified-dates")
    found: dict[tuple[str, ...], Any] = {}
    for who in ("P1", "P2"):
        for study in range(2):
            for series in range(2):
                for number in range(3):
                    data = Dataset()
                    at = f"1.2.3.{who[1]}.{study}"
                    data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = who, at, f"{at}.{series}"
                    data.SOPInstanceUID, data.SOPClassUID = f"{at}.{series}.{number}", pydicom.uid.MRImageStorage
                    data.FrameOfReferenceUID, data.Modality = f"{at}.77", "MR"
                    data.StudyDate = f"{GIVEN + timedelta(days=100 * study):%Y%m%d}"
                    data.AcquisitionDateTime = f"{data.StudyDate}1200"
                    refers = Dataset()
                    refers.ReferencedSOPClassUID = pydicom.uid.MRImageStorage
                    refers.ReferencedSOPInstanceUID = f"{at}.{series}.{(number + 1) % 3}"
                    data.SourceImageSequence = [refers]
                    found[who, str(study), str(series), str(number)] = profile.of(data)
    assert len({made.SOPInstanceUID for made in found.values()}) == 24
    assert len({made.SeriesInstanceUID for made in found.values()}) == 8
    assert (
        len({made.StudyInstanceUID for made in found.values()})
        == len({m.FrameOfReferenceUID for m in found.values()})
        == 4
    )
    assert len({made.PatientID for made in found.values()}) == 2
    assert {made.SOPClassUID for made in found.values()} == {pydicom.uid.MRImageStorage}
    moved = {}
    for (who, study, series, number), made in found.items():
        following = found[who, study, series, str((int(number) + 1) % 3)]
        assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == following.SOPInstanceUID
        then = date.fromisoformat(f"{made.StudyDate[:4]}-{made.StudyDate[4:6]}-{made.StudyDate[6:]}")
        assert made.AcquisitionDateTime == f"{made.StudyDate}1200"
        moved.setdefault(who, set()).add((then - GIVEN).days - 100 * int(study))
    assert all(len(days) == 1 and -pseudonyms.DAYS <= min(days) < 0 for days in moved.values())
    assert moved["P1"] != moved["P2"]
    other = Engine(Profile(asked=Deidentify(profile="dicom-basic"), key=b"o" * 32)).of(data)
    assert other.SOPInstanceUID not in {made.SOPInstanceUID for made in found.values()}


@given(st.integers(0, 200), st.sampled_from("DWMY"))
def test_an_age_above_89_years_is_one_under_safe_harbor(age: int, unit: str) -> None:
    data = Dataset()
    data.PatientAge = f"{age:03}{unit}"
    made = str(engine("retain-patient", harbor=True).of(data).PatientAge)
    assert made == ("090Y" if unit == "Y" and age > 89 else f"{age:03}{unit}")


_TAGS = st.sampled_from([place(line) for line in LINES if int(place(line)[0]) >> 16 >= 8 and place(line)[1] != "SQ"])
_LETTERS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=6, max_size=12).map(lambda text: f"QX{text}XQ")


@given(
    secrets=st.lists(st.tuples(_TAGS, _LETTERS), min_size=1, max_size=30),
    depth=st.integers(0, 5),
    private=st.integers(0x11, 0xFF),
    options=st.sets(
        st.sampled_from(["clean-descriptors", "modified-dates", "clean-graphics", "clean-structured-content"])
    ),
)
def test_nothing_planted_is_left_in_any_data_set(
    secrets: list[tuple[tuple[int, str], str]], depth: int, private: int, options: set[str]
) -> None:
    """Whatever stands where, and however deep: options that clean let nothing through that the basic profile holds."""
    data = inner = Dataset()
    data.PatientID = PATIENT
    for _ in range(depth):
        following = Dataset()
        inner.RelatedSeriesSequence = [following]
        inner = following
    for (number, kind), text in secrets:
        if kind in ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "OB", "OW", "UN"):
            inner.add_new(number, kind, text.encode() if kind in ("OB", "OW", "UN") else text)
        inner.add_new(0x00090000 | private << 8 | 0x10, "UT", text)
    made = engine(*options).of(data)
    whole = names_of(made)
    assert not [text for _, text in secrets if text.encode() in whole]
    assert made.PatientIdentityRemoved == "YES"


@given(st.dates(date(1910, 1, 1), date(2120, 1, 1)), st.dates(date(1910, 1, 1), date(2120, 1, 1)), st.text(min_size=1))
def test_intervals_between_the_dates_of_a_patient_stay(first: date, second: date, who: str) -> None:
    by = pseudonyms.days(KEY, who)
    moved = [pseudonyms.moved(f"{each:%Y%m%d}", "DA", by) for each in (first, second)]
    there = [date(int(text[:4]), int(text[4:6]), int(text[6:])) for text in moved if text]
    assert there[1] - there[0] == second - first
    assert -pseudonyms.DAYS <= (there[0] - first).days < 0


def test_structured_reports_lose_texts_names_and_dates_and_keep_measures() -> None:
    def item(kind: str, code: str, scheme: str, **more: Any) -> Any:
        made, concept = Dataset(), Dataset()
        concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = code, scheme, "concept"
        made.ValueType, made.RelationshipType, made.ConceptNameCodeSequence = kind, "CONTAINS", [concept]
        for name, value in more.items():
            setattr(made, name, value)
        return made

    measured = Dataset()
    measured.NumericValue = "12.5"
    data = scan(0x00080060, "CS")
    data.ContentSequence = [
        item("CONTAINER", "126000", "DCM", ContentSequence=[
            item("NUM", "410668003", "SCT", MeasuredValueSequence=[measured]),
            item("TEXT", "121106", "DCM", TextValue=f"{KNOWN} {SECRET}"),
            item("PNAME", "121008", "DCM", PersonName=SECRET),
            item("DATETIME", "99", "99X", DateTime="20200228"),
            item("UIDREF", "112040", "DCM", UID=UID),
        ]),
    ]  # fmt: skip
    (whole,) = engine("clean-structured-content").of(data).ContentSequence
    assert [each.ValueType for each in whole.ContentSequence] == ["NUM", "PNAME", "UIDREF"]
    assert whole.ContentSequence[0].MeasuredValueSequence[0].NumericValue == 12.5
    assert whole.ContentSequence[1].PersonName == "REMOVED"
    assert str(whole.ContentSequence[2].UID).startswith(MAPPED)
    assert SECRET.encode() not in names_of(whole)
    (whole,) = engine("clean-structured-content", "clean-descriptors", "modified-dates").of(data).ContentSequence
    assert [each.ValueType for each in whole.ContentSequence] == ["NUM", "TEXT", "PNAME", "DATETIME", "UIDREF"]
    assert KNOWN in whole.ContentSequence[1].TextValue
    assert SECRET.encode() not in names_of(whole)
    assert whole.ContentSequence[3].DateTime == f"{GIVEN + timedelta(days=pseudonyms.days(KEY, PATIENT)):%Y%m%d}"


# -------------------------------------------------------------------------------------------------------------- pixels


def frame(kind: str, bits: int, signed: bool, frames: int = 1) -> tuple[Any, Any]:
    data, samples = Dataset(), 3 if kind == "RGB" else 1
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 6, 8, samples, kind
    data.BitsStored, data.PixelRepresentation, data.NumberOfFrames = bits, int(signed), frames
    shape = [frames] * (frames > 1) + [6, 8] + [samples] * (samples > 1)
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    kinds = np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    return np.random.default_rng(7).integers(low + 1, high - 1, shape).astype(kinds), data


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(
    ("kind", "bits", "signed", "dark"),
    [
        ("MONOCHROME2", 8, False, 0), ("MONOCHROME1", 8, False, 255), ("MONOCHROME2", 12, False, 0),
        ("MONOCHROME1", 12, False, 4095), ("MONOCHROME2", 16, True, -32768), ("MONOCHROME1", 12, True, 2047),
        ("MONOCHROME1", 16, False, 65535), ("RGB", 8, False, 0),
    ],
)  # fmt: skip
def test_boxes_are_black_in_every_frame_and_nothing_else_changes(
    kind: str, bits: int, signed: bool, dark: int, frames: int
) -> None:
    pixels, data = frame(kind, bits, signed, frames)
    made = regions.black(pixels, [(1, 2, 5, 4)], data)
    assert (made.shape, made.dtype) == (pixels.shape, pixels.dtype)
    planes, before = (each.reshape(frames, 6, 8, -1) for each in (made, pixels))
    assert (planes[:, 2:4, 1:5] == dark).all()
    planes[:, 2:4, 1:5] = before[:, 2:4, 1:5]
    assert (planes == before).all()


def test_an_overlay_in_the_bits_above_a_value_goes() -> None:
    pixels, data = frame("MONOCHROME2", 12, False)
    assert (regions.black(pixels | 0x8000, [], data) == pixels).all()
    signed, data = frame("MONOCHROME2", 12, True)
    assert (regions.black(signed & 0x0FFF, [], data) == signed).all()


def test_pixels_that_may_show_text_are_withheld() -> None:
    ct = Region(boxes=((0, 0, 8, 2),), modality="CT", rows=6)
    seen = Region(boxes=(), modality="MR")
    asked = {"rows": 6, "columns": 5}
    assert regions.boxes([ct], modality="CT", **asked) == [(0, 0, 5, 2)]
    assert regions.boxes([ct, seen], modality="MR", **asked) == []
    assert regions.boxes([], burned="NO", **asked) == []
    assert regions.boxes([ct], modality="CT", burned="YES", **asked) == [(0, 0, 5, 2)]
    for more, said in (({}, regions.BURNED), ({"burned": "YES", "modality": "MR"}, regions.SAID)):
        with pytest.raises(regions.WithheldError, match=re.escape(said)):
            regions.boxes([ct, seen], **asked, **more)
