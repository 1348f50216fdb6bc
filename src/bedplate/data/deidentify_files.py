"""De-identification of pictures: which columns a contract may take of files that were, and how it is recorded.

The files are changed where they are parsed (:mod:`bedplate.data.parsing.dicom`); here it is only said how.
"""

from collections.abc import Collection

import pyarrow as pa

from bedplate.data.model import Column, Contract, Freshness, Model, Retention
from bedplate.data.parsing import profile as profiles
from bedplate.data.parsing.deidentified import REASONS
from bedplate.data.parsing.profile import Profile
from bedplate.errors import ContractError
from bedplate.usecase.types import DataSet

PATIENT = "PatientID"
"""The attribute that stays as a pseudonym, so that rows of one patient can be told from those of another."""
_BESIDE = ("metadata",)
_BYTES = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")


class AsRead:
    """Rows of files that were de-identified as they were read; see :class:`.deidentify.SafeHarbor`."""

    reasons: Collection[str] = REASONS
    """What may be said of a file that is no row."""

    def tells_apart(self, columns: Collection[str]) -> bool:
        """They are compared as they land: they were read so."""
        return True

    def of(self, table: pa.Table) -> pa.Table:
        """The same rows."""
        return table


def profile(spec: DataSet, key: bytes, *, safe_harbor: bool) -> Profile | None:
    """How the files of a data set are read; None where it does not ask for it."""
    return None if spec.deidentify is None else Profile(asked=spec.deidentify, key=key, safe_harbor=safe_harbor)


def said(spec: DataSet) -> str:
    """What is recorded: the profile, the codes of CID 7050 and the edition of the standard."""
    assert spec.deidentify is not None
    if spec.deidentify.profile == "images":
        return "images"
    made = Profile(asked=spec.deidentify, key=b"")
    codes = ", ".join(code for code, _ in made.codes)
    return f"dicom-basic ({codes} of PS3.15 {profiles.table().edition})"


def check(contract: Contract, model: Model, spec: DataSet, *, safe_harbor: bool) -> None:
    """Refuse options that Safe Harbor does not allow, and columns that a profile leaves nothing in.

    Raises:
        ContractError: with every such option or column.
    """
    assert spec.deidentify is not None
    against = sorted(profiles.NOT_SAFE_HARBOR.intersection(spec.deidentify.options)) if safe_harbor else []
    if against:
        raise ContractError(
            f"{model.name} asks for {', '.join(against)}, and Safe Harbor takes out what that keeps",
            where=f"data.{model.name}.deidentify.options",
            fix="leave it out, or leave out governance.deidentify",
        )
    asked = Profile(asked=spec.deidentify, key=b"", safe_harbor=safe_harbor)
    gone = {column.name: why for column in model.columns if (why := _gone(asked, column))}
    problems = [
        f"{column.name} (line {column.line}) {gone[column.name]}" for column in model.columns if column.name in gone
    ]
    timed: tuple[Retention | Freshness, ...] = (*contract.retention, *contract.freshness)
    moved = {each.column for each in timed if each.table in ("", model.name)} - gone.keys()
    if "modified-dates" in spec.deidentify.options:
        problems += [
            f"{column.name} (line {column.line}) is moved, and a retention or a freshness looks at when it was"
            for column in model.columns
            if column.name in moved
        ]
    if problems:
        raise ContractError(
            f"{model.name} cannot be de-identified: {'; '.join(problems)}",
            where=contract.path,
            fix="leave the column out of the contract, or choose an option that keeps it",
        )


def gone(spec: DataSet, model: Model) -> frozenset[str]:
    """The columns in which nothing of a person stands as it came: pseudonyms, and what is written by the profile."""
    assert spec.deidentify is not None
    asked = Profile(asked=spec.deidentify, key=b"")
    return frozenset(column.name for column in model.columns if _action(asked, column.name) == "U")


def _gone(asked: Profile, column: Column) -> str:
    """Why nothing of a column is left; empty where something is."""
    if asked.asked.profile == "images":
        return "stands beside the pixels, where anything may be written" if column.name in _BESIDE else ""
    action = _action(asked, column.name)
    if action == "bytes":
        return "holds bytes that nobody can look through"
    return "is taken out by the profile" if action in ("X", "Z", "D") else ""


def _action(asked: Profile, keyword: str) -> str:
    """What becomes of the attribute that a column is; ``K`` for what is none."""
    if asked.asked.profile == "images":
        return "K"
    from bedplate import extensions

    datadict = extensions.require("pydicom.datadict", "images")
    tag = datadict.tag_for_keyword(keyword)
    if tag is None:
        return "K"  # the file, its pixels; and what is no keyword is said where columns are looked up
    if keyword == PATIENT:
        return "U"
    kind = str(datadict.dictionary_VR(tag)).split(" or ")
    if any(each in _BYTES for each in kind):
        return "bytes"
    action = asked.action(tag, kind[0])
    if action == "C" and kind[0] not in ("AE", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UT"):
        return "X"
    return action
