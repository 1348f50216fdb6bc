"""What stands in place of a value of DICOM that identifies somebody: pseudonyms, moved dates, dummies, clean text."""

import hmac
import re
import uuid
from collections.abc import Iterable
from datetime import date, timedelta
from functools import cache
from typing import Any

from bedplate.data.deidentify import scrubbed
from bedplate.identifiers import OLDEST, code

DAYS = 3650
"""Dates move back by as many days at most, by one at least."""
DUMMIES: dict[str, Any] = {
    "AE": "REMOVED", "AS": "000D", "CS": "REMOVED", "DA": "19000101", "DS": "0", "DT": "19000101000000", "IS": "0",
    "LO": "REMOVED", "LT": "REMOVED", "PN": "REMOVED", "SH": "REMOVED", "ST": "REMOVED", "TM": "000000",
    "UC": "REMOVED", "UR": "urn:removed", "UT": "REMOVED", "AT": 0, "FD": 0.0, "FL": 0.0, "SL": 0, "SS": 0, "SV": 0,
    "UL": 0, "US": 0, "UV": 0,
}  # fmt: skip
"""A value of each VR that says nothing; bytes that are none stand for the others."""
_LENGTHS = {"LO": 64, "SH": 16, "ST": 1024, "LT": 10240}
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_MOMENT = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{2,6}(?:\.\d{1,6})?)?([+-]\d{4})?")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_MEASURE = re.compile(r"[a-z]{0,2}\d{1,3}[a-z]{0,2}")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
SHORT = 3
"""A name of fewer letters is looked for in cleaned descriptors only: elsewhere it would be in every other word."""


def uid(key: bytes, value: str) -> str:
    """Another UID, the same for the same one under one key; those that the standard itself assigns stay."""
    from pydicom._uid_dict import UID_dictionary

    if not value or value in UID_dictionary:
        return value
    made = hmac.digest(key, f"dicom-uid\0{value}".encode(), "sha256")[:16]
    return f"2.25.{uuid.UUID(bytes=made, version=5).int}"


def patient(key: bytes, value: str) -> str:
    """The pseudonym of a patient: that of ``safe-harbor:code`` for the same number in a table of the use case."""
    return code(key, value) or ""


def title(key: bytes, value: str) -> str:
    """Another AE title, of 16 letters at most."""
    made = hmac.digest(key, f"dicom-ae\0{value}".encode(), "sha256").hex()[:14].upper()
    return f"AE{made}"


def days(key: bytes, value: str) -> int:
    """By how many days the dates of one patient move: the same for all of theirs, so that intervals stay."""
    found = int.from_bytes(hmac.digest(key, f"dicom-days\0{value}".encode(), "sha256")[:8])
    return -1 - found % DAYS


def moved(text: str, kind: str, by: int) -> str | None:
    """A value of DA or DT so many days later; None where it is no date.

    A moment without a day moves as its first day does, and is as coarse as before.
    """
    hit = (_DATE if kind == "DA" else _MOMENT).fullmatch(text.strip())
    if hit is None:
        return None
    year, month, day = (int(each or 1) for each in hit.groups()[:3])
    try:
        then = date(year, month, day) + timedelta(days=by)
    except (ValueError, OverflowError):
        return None
    whole = f"{then:%Y%m%d}".rjust(8, "0")
    if kind == "DA":
        return whole
    _, months, dates, time, zone = hit.groups()
    return whole[: 8 if dates else 6 if months else 4] + (time or "") + (zone or "")


def capped(text: str) -> str:
    """An age of DICOM; those above 89 years are one."""
    old = re.fullmatch(r"(\d{3})([DWMY])", text.strip())
    per = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
    return f"{OLDEST:03}Y" if old is not None and int(old[1]) / per[old[2]] >= OLDEST else text


def dummy(kind: str) -> Any:
    """A value of a VR that says nothing."""
    return DUMMIES.get(kind, b"\0\0")


class Told:
    """What identifies somebody in one file, as its attributes say it: it may stand in its descriptions as well.

    ``names`` count word by word, ``others`` whole.
    """

    def __init__(self, names: Iterable[str], others: Iterable[str]) -> None:
        self._told = [("name", each.replace("^", " ").replace("=", " ")) for each in names]
        self._told += [("other", each) for each in others]
        words = {word for kind, text in self._told if kind == "name" for word in _WORD.findall(text)}
        words |= {text.strip() for kind, text in self._told if kind == "other"}
        kept = sorted((re.escape(word) for word in words if len(word) >= SHORT), key=len, reverse=True)
        self._found = re.compile(rf"(?<![^\W_])(?:{'|'.join(kept)})(?![^\W_])", re.IGNORECASE) if kept else None

    def without(self, text: str, kind: str) -> str:
        """A text that is kept, without what is told."""
        return text if self._found is None else _cut(self._found.sub("[other]", text), kind)

    def cleaned(self, text: str, kind: str) -> str:
        """A description of words that the standard and the terminologies of medicine know, and of short numbers.

        Words that are nowhere known, or told, go: what stays is known not to identify, as far as a word can be.
        """
        text = scrubbed(text, self._told)
        known = vocabulary()

        def one(hit: re.Match[str]) -> str:
            word = hit.group().casefold()
            return hit.group() if word in known or _MEASURE.fullmatch(word) else "[other]"

        return _cut(_WORD.sub(one, text.replace("_", " ")), kind)


def _cut(text: str, kind: str) -> str:
    return text[: _LENGTHS.get(kind, len(text))]


@cache
def vocabulary() -> frozenset[str]:
    """Words that are no names: of the attributes of DICOM, and of the concepts of its context groups."""
    from pydicom._dicom_dict import DicomDictionary
    from pydicom.sr._concepts_dict import concepts

    found = {word.casefold() for entry in DicomDictionary.values() for word in _WORD.findall(entry[2])}
    for terms in concepts.values():
        found.update(word.casefold() for keyword in terms for word in _CAMEL.findall(keyword))
    return frozenset(found)
