"""The confidentiality profile of DICOM (PS3.15 Annex E) as a table, and what it says of one attribute under options.

The table is that of the standard, in ``ps3_15.csv`` with its edition. This module knows no DICOM file.
"""

import csv
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple

import msgspec

from bedplate.usecase.types import Deidentify

Action = Literal["X", "Z", "D", "K", "C", "U"]
"""Remove, empty, replace by a dummy, keep, clean, map consistently."""
BASIC = "113100"
OPTIONS: Mapping[str, tuple[str, str]] = {
    "clean-pixel-data": ("113101", "Clean Pixel Data Option"),
    "clean-visual-features": ("113102", "Clean Recognizable Visual Features Option"),
    "clean-graphics": ("113103", "Clean Graphics Option"),
    "clean-structured-content": ("113104", "Clean Structured Content Option"),
    "clean-descriptors": ("113105", "Clean Descriptors Option"),
    "retain-full-dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "modified-dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "retain-patient": ("113108", "Retain Patient Characteristics Option"),
    "retain-device": ("113109", "Retain Device Identity Option"),
    "retain-uids": ("113110", "Retain UIDs Option"),
    "retain-safe-private": ("113111", "Retain Safe Private Option"),
    "retain-institution": ("113112", "Retain Institution Identity Option"),
}
"""Code and meaning of each option, of CID 7050."""
NOT_SAFE_HARBOR = frozenset({
    "retain-full-dates", "modified-dates", "retain-device", "retain-uids", "retain-safe-private", "retain-institution",
})  # fmt: skip
"""What 45 CFR 164.514(b)(2) takes out and an option would keep: dates finer than a year, places, devices, numbers."""


class Row(NamedTuple):
    """One attribute of the table: its action, and the action of each option that has one."""

    tag: str
    name: str
    basic: str
    options: Mapping[str, str]

    def action(self, options: Collection[str]) -> Action:
        """What becomes of it. Of several options, one that keeps it wins over one that cleans it.

        Of a compound such as ``X/Z/D`` the first counts: the others are for files that must stay valid objects of their
        kind, and rows of a table need not. ``X/Z/U*`` is U: what refers to other files goes on to.
        """
        said = {action for option, action in self.options.items() if option in options}
        if said:
            return "K" if "K" in said else "C"
        return "U" if self.basic.endswith("U*") else self.basic.split("/")[0]  # type: ignore[return-value]


class Table(NamedTuple):
    """The attributes by tag, eight hexadecimal digits, and the edition of the standard that says so."""

    edition: str
    rows: Mapping[str, Row]

    def row(self, tag: int) -> Row | None:
        """What the table says of an attribute; None if it does not list it."""
        group = tag >> 16
        if group & 1:
            return self.rows["PRIVATE"]
        if group & 0xFF00 == 0x5000:
            return self.rows["50xxxxxx"]
        if group & 0xFF00 == 0x6000:
            return self.rows.get(f"60xx{tag & 0xFFFF:04X}")
        return self.rows.get(f"{tag:08X}")


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """How the files of one data set are de-identified. ``safe_harbor``: ages above 89 are one."""

    asked: Deidentify
    key: bytes
    safe_harbor: bool = False

    def action(self, tag: int, kind: str) -> Action:
        """What becomes of an attribute with this VR: as the table has it, and more strictly where it has nothing."""
        row = table().row(tag) or _UNLISTED.get(kind)
        return "K" if row is None else row.action(self.asked.options)

    @property
    def codes(self) -> list[tuple[str, str]]:
        """Code and meaning of the profile and of each option, for (0012,0064)."""
        whole = (BASIC, "Basic Application Confidentiality Profile")
        return [whole, *(OPTIONS[name] for name in OPTIONS if name in self.asked.options)]


_DATES = {"retain-full-dates": "K", "modified-dates": "C"}
_UNLISTED = {
    **{kind: Row("", "", "X", _DATES) for kind in ("DA", "DT", "TM")},
    "UI": Row("", "", "U", {"retain-uids": "K"}),
    "AS": Row("", "", "X", {"retain-patient": "K"}),
    "PN": Row("", "", "X", {}),
    "UN": Row("", "", "X", {}),
}
"""Attributes that the table leaves out stay as they are, but for these kinds."""


def unlisted(kind: str) -> Row | None:
    """What becomes of an attribute of this VR that the table leaves out; None if it stays."""
    return _UNLISTED.get(kind)


@cache
def table() -> Table:
    """Table E.1-1."""
    head, lines = _lines("ps3_15.csv")
    rows = {each["tag"]: Row(each["tag"], each["name"], each["basic"], _options(each)) for each in lines}
    return Table(edition=re.findall(r"edition (\w+)", head)[0], rows=rows)


@cache
def content() -> Mapping[tuple[str, str, str], Row]:
    """Table E.3.4-1: content items of structured reports, by scheme and code of their concept, and value type."""
    _, lines = _lines("ps3_15_content.csv")
    return {
        (each["scheme"], each["code"], each["type"]): Row("", each["code"], each["basic"], _options(each))
        for each in lines
    }


def _options(line: dict[str, str]) -> dict[str, str]:
    return {name: line[name] for name in OPTIONS if line.get(name)}


def _lines(name: str) -> tuple[str, list[dict[str, str]]]:
    text = resources.files(__package__).joinpath(name).read_text("utf-8")
    head, _, rest = text.partition("\n")
    return head, list(csv.DictReader(rest.splitlines()))
