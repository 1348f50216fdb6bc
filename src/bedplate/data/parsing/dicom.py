"""A DICOM data set without what identifies somebody: the profile of PS3.15 Annex E, carried out element by element.

Sequences are walked to their ends. What comes out is new: no element of the input is in it that was not looked at.
"""

import re
from collections.abc import Iterator, MutableSequence
from typing import Any

from bedplate import extensions
from bedplate.data.parsing import profile as profiles
from bedplate.data.parsing import pseudonyms
from bedplate.data.parsing.profile import Action, Profile

DEEPEST = 64
"""Sequences inside each other; a file with more is none."""
_TEXT = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
_SAID = frozenset({*_TEXT, "AE", "AS", "CS", "PN", "UR", "DA"})
_PATIENT, _METHOD = 0x00100020, 0x00120063
_WRITTEN = frozenset({0x00120062, _METHOD, 0x00120064, 0x00280303})
"""What this module says of its own work; what was said before goes."""
_OVERLAY, _ZONE = 0x3000, 0x00080201
_TIME, _OFFSET = re.compile(r"\d{2}(:?\d{2}){0,2}(\.\d{1,6})?"), re.compile(r"[+-]\d{4}")
_VALUES = {
    "TEXT": 0x0040A160, "PNAME": 0x0040A123, "DATE": 0x0040A121, "TIME": 0x0040A122, "DATETIME": 0x0040A120,
    "UIDREF": 0x0040A124,
}  # fmt: skip
"""Where a content item of a structured report keeps its value."""
_SILENT = frozenset({
    "CODE", "COMPOSITE", "CONTAINER", "IMAGE", "NUM", "SCOORD", "SCOORD3D", "TCOORD", "UIDREF", "WAVEFORM",
})  # fmt: skip
"""Content items that the table leaves out and that say nobody's name."""


class Engine:
    """What carries a profile out. One key gives the same pseudonyms in every file."""

    def __init__(self, profile: Profile) -> None:
        self._profile, self._key = profile, profile.key
        self._options = frozenset(profile.asked.options)
        dates = {"retain-full-dates": "UNMODIFIED", "modified-dates": "MODIFIED"}
        self._dates = next((said for option, said in dates.items() if option in self._options), "REMOVED")

    def of(self, data: Any) -> Any:
        """A new ``Dataset``, with file meta information of its own, that says how it was de-identified.

        Raises:
            ValueError: sequences are nested too deeply.
        """
        dataset: Any = extensions.require("pydicom.dataset", "images")
        self._told = _told(data, self._options)
        who = str(data.get("PatientID") or data.get("StudyInstanceUID") or "").strip()
        self._days = pseudonyms.days(self._key, who)
        made = self._walked(data, 0)
        made.PatientIdentityRemoved = "YES"
        edition = profiles.table().edition
        made.DeidentificationMethod = [f"DCM {code} of PS3.15 {edition}" for code, _ in self._profile.codes]
        made.DeidentificationMethodCodeSequence = [
            _coded(dataset.Dataset(), code, meaning) for code, meaning in self._profile.codes
        ]
        made.LongitudinalTemporalInformationModified = self._dates
        made.file_meta = self._meta(data, dataset.FileMetaDataset())
        made.preamble = bytes(128)
        return made

    def _meta(self, data: Any, made: Any) -> Any:
        before: Any = getattr(data, "file_meta", None) or {}
        for name in ("MediaStorageSOPClassUID", "TransferSyntaxUID"):
            if before.get(name):
                setattr(made, name, before.get(name))
        instance = str(before.get("MediaStorageSOPInstanceUID") or data.get("SOPInstanceUID") or "")
        if instance:
            same = "retain-uids" in self._options
            made.MediaStorageSOPInstanceUID = instance if same else pseudonyms.uid(self._key, instance)
        return made

    def _walked(self, data: Any, depth: int, spared: int = 0) -> Any:
        """The elements of one data set; ``spared`` is one that somebody else has judged."""
        if depth > DEEPEST:
            raise ValueError("sequences are nested too deeply")
        dataset: Any = extensions.require("pydicom.dataset", "images")
        made = dataset.Dataset()
        for element in _elements(data):
            tag = int(element.tag)
            if tag in _WRITTEN or tag == spared:
                continue
            if tag >> 16 & 1:
                self._private(data, element, made, depth)
                continue
            action = self._profile.action(tag, element.VR)
            if profiles.table().row(tag) is None and not _known(tag):
                action = "X"  # of a later edition, or of nobody's
            self._put(made, element, action, depth)
        return made

    def _put(self, made: Any, element: Any, action: Action, depth: int) -> None:
        tag, kind = int(element.tag), str(element.VR)
        if tag == _PATIENT:
            value: Any = pseudonyms.patient(self._key, str(element.value or "").strip()) if element.value else ""
        elif action == "X" or (action == "C" and (value := self._clean(element, depth)) is None):
            basic = profiles.table().row(tag)
            if action == "X" or basic is None or basic.action(()) == "X":
                return
            self._put(made, element, basic.action(()), depth)  # nothing cleans such a value
            return
        elif action == "Z":
            value = [] if kind == "SQ" else None if kind in ("AT", "FD", "FL", "SL", "SS", "UL", "US") else ""
        elif action == "D":
            value = self._dummy(element)
        elif action == "U" and kind != "SQ":
            value = _each(element.value, lambda one: pseudonyms.uid(self._key, str(one)))
        elif action in ("K", "U"):
            value = self._kept(element, depth)
        made.add_new(tag, kind, value)

    def _kept(self, element: Any, depth: int) -> Any:
        kind, value = str(element.VR), element.value
        if kind == "SQ":
            return [self._walked(item, depth + 1) for item in value or ()]
        if kind == "AS" and self._profile.safe_harbor:
            return _each(value, lambda one: pseudonyms.capped(str(one)))
        if kind in _TEXT and profiles.table().row(int(element.tag)) is None:
            return _each(value, lambda one: self._told.without(str(one), kind))
        return value

    def _clean(self, element: Any, depth: int) -> Any:
        """What of a value may stay; None if nothing may, or nobody knows."""
        kind, value, tag = str(element.VR), element.value, int(element.tag)
        if kind in ("DA", "DT"):
            return _each(value, lambda one: pseudonyms.moved(str(one), kind, self._days))
        if kind == "TM" or tag == _ZONE:  # days move, and no time of day
            shape = _TIME if kind == "TM" else _OFFSET
            return _each(value, lambda one: str(one) if shape.fullmatch(str(one).strip()) else None)
        if tag >> 24 in (0x50, 0x60):  # what is drawn may be text
            return bytes(len(value or b"")) if tag & 0xFFFF == _OVERLAY and tag >> 24 == 0x60 else None
        if kind == "AE":
            return _each(value, lambda one: pseudonyms.title(self._key, str(one)))
        if kind in _TEXT:
            return _each(value, lambda one: self._told.cleaned(str(one), kind))
        if kind == "SQ":
            items = (self._item(item, depth + 1) for item in value or ())
            return [item for item in items if item is not None]
        return None

    def _item(self, item: Any, depth: int) -> Any:
        """An item of a sequence that is cleaned: content items go by what their concept is."""
        said = str(item.get("ValueType") or "")
        if not said or "ConceptNameCodeSequence" not in item:
            return self._walked(item, depth)
        tag = _VALUES.get(said)
        row = next((row for row in map(profiles.content().get, _concepts(item, said)) if row is not None), None)
        if row is not None:
            action = row.action(self._options)
        else:
            action = "K" if said in _SILENT else "C" if said == "TEXT" and "clean-descriptors" in self._options else "X"
            if said in ("DATE", "TIME", "DATETIME"):
                action = {"UNMODIFIED": "K", "MODIFIED": "C"}.get(self._dates, "X")  # type: ignore[assignment]
        if action == "X":
            return None
        if said == "UIDREF" and action == "K":
            action = "K" if "retain-uids" in self._options else "U"
        made = self._walked(item, depth, spared=tag or 0)
        if tag is not None and tag in item:
            self._put(made, item[tag], action, depth)
        return made

    def _private(self, data: Any, element: Any, made: Any, depth: int) -> None:
        """A private element stays if the file names it under the creator of its block."""
        tag = int(element.tag)
        block = tag >> 8 & 0xFF
        if "retain-safe-private" not in self._options or block < 0x10 or (tag & 0xFFFF) < 0x1000:
            return
        owner = (tag & 0xFFFF0000) | block
        creator = str(data[owner].value).strip() if owner in data else ""
        name = f"{tag >> 16:04x},xx{tag & 0xFF:02x}"
        kind = str(element.VR)
        if name not in {each.lower() for each in self._profile.asked.private.get(creator, ())} or kind == "UN":
            return
        rule = profiles.unlisted(kind)
        self._put_private(made, element, "K" if rule is None else rule.action(self._options), depth)
        if tag in made:
            made.add_new(owner, "LO", creator)

    def _put_private(self, made: Any, element: Any, action: Action, depth: int) -> None:
        kind, value = str(element.VR), element.value
        if kind == "SQ":
            made.add_new(element.tag, kind, [self._walked(item, depth + 1) for item in value or ()])
        elif kind in _TEXT:
            made.add_new(element.tag, kind, _each(value, lambda one: self._told.without(str(one), kind)))
        elif action != "X":
            self._put(made, element, action, depth)

    def _dummy(self, element: Any) -> Any:
        kind = str(element.VR)
        if kind == "UI":
            return pseudonyms.uid(self._key, str(element.value) or "0")
        if kind == "SQ":
            dataset: Any = extensions.require("pydicom.dataset", "images")
            return [dataset.Dataset()]
        return pseudonyms.dummy(kind)


def _elements(data: Any) -> Iterator[Any]:
    """Every element of one data set but group 2; what cannot be decoded is an error, as it cannot be judged."""
    for tag in sorted(data.keys()):
        if tag.group > 0x0002:
            yield data[tag]


def _known(tag: int) -> bool:
    datadict: Any = extensions.require("pydicom.datadict", "images")
    return bool(datadict.dictionary_has_tag(tag) or datadict.repeater_has_tag(tag))


def _each(value: Any, change: Any) -> Any:
    """A value changed, each of several; empty ones stay, and None for one is None for all."""
    if value is None or value == "" or value == b"":
        return value
    if not isinstance(value, list | MutableSequence):  # a name of a person can be iterated, and is one value
        return change(value)
    made = [change(one) for one in value]
    return None if any(one is None for one in made) else made


def _concepts(item: Any, said: str) -> Iterator[tuple[str, str, str]]:
    for concept in item.ConceptNameCodeSequence:
        yield str(concept.get("CodingSchemeDesignator")), str(concept.get("CodeValue")), said


def _coded(item: Any, code: str, meaning: str) -> Any:
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", meaning[:64]
    return item


def _told(data: Any, options: frozenset[str]) -> pseudonyms.Told:
    """Names, numbers and places that the attributes of a file give, at any depth, unless an option keeps them."""
    names: set[str] = set()
    others: set[str] = set()
    waiting = [(data, 0)]
    while waiting:
        held, depth = waiting.pop()
        for element in _elements(held):
            kind, tag = str(element.VR), int(element.tag)
            if kind == "SQ" and depth < DEEPEST:
                waiting += [(item, depth + 1) for item in element.value or ()]
            row = profiles.table().row(tag)
            if row is None or kind not in _SAID or "clean-descriptors" in row.options or kind in ("DA", "AS", "CS"):
                continue
            action = row.action(options)
            if tag >> 16 & 1 or action == "K" or (action == "C" and kind in _TEXT):
                continue
            found = element.value
            texts = {str(each).strip() for each in (found if element.VM > 1 else [found]) if each is not None} - {""}
            (names if kind == "PN" else others).update(texts)
    return pseudonyms.Told(names, others)
