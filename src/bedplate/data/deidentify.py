"""Safe Harbor of HIPAA: what of 45 CFR 164.514(b)(2) a column holds is said by its contract, and never lands.

Each column bears one tag ``safe-harbor:CLASS``; nothing is guessed, and a column that says nothing is refused. Rules of
the contract judge the rows as they came; the table and the quarantine get what this module makes of them.
"""

import re
from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bedplate import clock
from bedplate.data.model import Column, Contract, Freshness, Model, Retention
from bedplate.errors import ContractError
from bedplate.identifiers import OLDEST, PROFILE, code, zip3

_PREFIX = f"{PROFILE}:"
CLASSES = (
    "name", "geography", "zip", "date", "birth-date", "age", "telephone", "fax", "email", "ssn", "medical-record",
    "health-plan", "account", "licence", "vehicle", "device", "url", "ip", "biometric", "photo", "other", "text",
    "none",
)  # fmt: skip
"""The classes A to R of the rule. C are ``date``, ``birth-date`` and ``age``; B is ``zip`` and, where it is no postal
code, ``geography``. ``text`` is free text that may hold any of them; ``none`` is none of them."""
_CODED = ("medical-record", "health-plan", "account", "device", "other")
_OPTIONS = {"code": _CODED, "scrub": ("text",)}
_TYPES: dict[str, tuple[str, ...]] = {
    "date": ("date", "timestamp"), "birth-date": ("date", "timestamp"), "age": ("integer", "number"),
    "zip": ("string",), "code": ("string",), "scrub": ("string",),
}  # fmt: skip

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_PATTERNS = tuple(
    (re.compile(pattern, re.IGNORECASE), f"[{name}]")
    for name, pattern in (
        ("url", r"\b[a-z][a-z0-9+.-]*://\S+|\bwww\.\S+"),
        ("email", r"\S+@\S+"),
        (
            "date",
            r"\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[t ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:z|[+-]\d{2}:?\d{2})?)?",
        ),
        ("date", rf"\b\d{{1,2}}(?:st|nd|rd|th|\.)?\s+(?:of\s+)?{_MONTH}(?:,?\s+\d{{2,4}})?\b"),
        ("date", rf"\b{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{2,4}})?\b|\b\d{{1,2}}/\d{{1,4}}\b"),
        ("ip", r"(?<!\w)(?:\d{1,3}\.){3}\d{1,3}(?!\w)|(?<!\w)[0-9a-f]*(?::[0-9a-f]*){2,}"),
        ("age", r"\b(?:9\d|1\d\d)(?=[ -]*(?:years?|yrs?|y/?o|y\.o)\b)|\bage[ds]?\W{1,3}(?:is |of )?(?:9\d|1\d\d)\b"),
        ("number", r"\+?\(?\d(?:[\d()./ -]*\d){4,}"),
    )
)
_TOKEN = re.compile(r"[^\s,;()\[\]\"']*\d[^\s,;()\[\]\"']*")
_WORD = re.compile(r"\w[\w'’-]+")


def class_of(column: Column) -> str | None:
    """The class that a column says it is of; None where it says none."""
    said = [tag.removeprefix(_PREFIX) for tag in column.tags if tag.startswith(_PREFIX)]
    return next((each for each in said if each not in _OPTIONS), None)


def kept(model: Model) -> frozenset[str]:
    """The columns that stay as they come."""
    return frozenset(column.name for column in model.columns if class_of(column) == "none")


def coded(model: Model) -> frozenset[str]:
    """The columns that land as a code: equal values are equal codes, so rows are found and joined by them."""
    return frozenset(column.name for column in model.columns if is_coded(column))


def is_coded(column: Column) -> bool:
    """Whether a column lands as a code."""
    return f"{_PREFIX}code" in column.tags


def check(contract: Contract, model: Model, needed: Collection[str] = (), ordered: Collection[str] = ()) -> None:
    """Refuse a contract that does not say of each column what it is, or that needs an identifier as it came.

    ``needed`` are columns that something finds rows by, ``ordered`` those that it sorts them by.

    Raises:
        ContractError: with every such column.
    """
    problems = [problem for column in model.columns for problem in _problems(column)]
    found_by = {column for rule in model.references for column in rule.columns} | set(needed)
    resting = set(ordered)
    timed: tuple[Retention | Freshness, ...] = (*contract.retention, *contract.freshness)
    resting |= {each.column for each in timed if each.table in ("", model.name)}
    same = kept(model)
    problems += [
        f"{column.name} (line {column.line}) says when a row is from: a watermark, a retention or a freshness goes by "
        "it, and it does not land as it came"
        for column in model.columns
        if column.name in resting - same
    ]
    problems += [
        f"{column.name} (line {column.line}) is what a reference, a subject or the key of rows that come in batch by "
        f"batch finds rows by, and it lands neither as it came nor as {_PREFIX}code"
        for column in model.columns
        if column.name in found_by - same - coded(model)
    ]
    if problems:
        raise ContractError(
            f"{model.name} cannot be de-identified: {'; '.join(problems)}",
            where=contract.path,
            fix=f"give each column one tag of {', '.join(_PREFIX + each for each in CLASSES)}",
        )


def _problems(column: Column) -> list[str]:
    said = [tag.removeprefix(_PREFIX) for tag in column.tags if tag.startswith(_PREFIX)]
    at = f"{column.name} (line {column.line})"
    found = [f"{at} bears {_PREFIX}{each}, which is no class" for each in said if each not in (*CLASSES, *_OPTIONS)]
    classes = [each for each in said if each in CLASSES]
    if len(classes) != 1:
        return [*found, f"{at} says {' and '.join(classes) or 'nothing'} of what identifies somebody"]
    for each in said:
        if classes[0] not in _OPTIONS.get(each, CLASSES):
            found.append(f"{at}: {_PREFIX}{each} is for {', '.join(_OPTIONS[each])}")
        if column.logical_type not in _TYPES.get(each, (column.logical_type,)):
            found.append(f"{at} is {column.logical_type}, and {_PREFIX}{each} takes {' or '.join(_TYPES[each])}")
    return found


class SafeHarbor:
    """What makes rows of one contract safe, under a key of 16 bytes or more. Call :func:`check` first."""

    reasons: Collection[str] = ()
    """What may be said of a line that is no row: nothing, as it may quote it."""

    def __init__(self, model: Model, key: bytes) -> None:
        self._key = key
        self._columns = {column.name: column for column in model.columns}
        self._classes = {column.name: class_of(column) for column in model.columns}

    def tells_apart(self, columns: Collection[str]) -> bool:
        """Whether rows that differ in these columns still do where they land."""
        return all(self._classes[name] == "none" or is_coded(self._columns[name]) for name in columns)

    def of(self, table: pa.Table) -> pa.Table:
        """The same columns and types without identifiers."""
        columns = [self._made(name, table) for name in table.column_names]
        return pa.table(columns, schema=table.schema)

    def _made(self, name: str, table: pa.Table) -> pa.ChunkedArray | pa.Array:
        kind, column = self._classes.get(name), self._columns[name]
        values = table.column(name)
        if kind == "none":
            return values
        if kind in ("date", "birth-date"):
            return _years(values, born=kind == "birth-date")
        if kind == "age":
            return pc.min_element_wise(values, pa.scalar(OLDEST, values.type), skip_nulls=False)
        if kind == "zip":
            return pa.array([zip3(text) for text in values.to_pylist()], pa.string())
        if is_coded(column):
            return pa.array([code(self._key, text) for text in values.to_pylist()], pa.string())
        if f"{_PREFIX}scrub" in column.tags:
            return pa.array(self._scrubbed(name, table), pa.string())
        return pa.nulls(len(values), values.type)

    def _scrubbed(self, name: str, table: pa.Table) -> list[str | None]:
        """Texts without what looks like an identifier, nor any that stands in another column of the row."""
        others = [
            (kind, table.column(other).to_pylist())
            for other, kind in self._classes.items()
            if kind not in ("none", "text") and other in table.column_names
        ]
        texts = table.column(name).to_pylist()
        rows = ([(kind, values[row]) for kind, values in others] for row in range(len(texts)))
        return [None if text is None else scrubbed(text, told) for text, told in zip(texts, rows, strict=True)]


def scrubbed(text: str, told: Collection[tuple[str | None, Any]] = ()) -> str:
    """A text without the identifiers ``told``, by class, and without what the patterns of this module know.

    A name that is not told is not found.
    """
    words: dict[str, str] = {}
    for kind, value in told:
        if value is None or (kind == "age" and value < OLDEST):
            continue
        whole = str(value).strip()
        parts = _WORD.findall(whole) if kind in ("name", "geography") else []
        words |= {each.casefold(): f"[{kind}]" for each in (whole, *parts) if len(each) > 1}
    if words:
        either = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        found = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)
        text = found.sub(lambda hit: words.get(hit.group().casefold(), "[other]"), text)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return _TOKEN.sub(lambda hit: "[number]" if _is_number(hit.group()) else hit.group(), text)


def _is_number(token: str) -> bool:
    digits = sum(sign.isdigit() for sign in token)
    return digits > 4 or (len(token) > 3 and any(sign.isalpha() for sign in token))


def _years(values: pa.ChunkedArray, *, born: bool) -> pa.ChunkedArray:
    """The 1st of January of each year; null for years of birth that tell of an age above 89 this year."""
    years = pc.floor_temporal(values, unit="year").cast(values.type)
    if not born:
        return years
    young = pc.less(pc.subtract(clock.now().year, pc.year(values)), OLDEST)
    return pc.if_else(young, years, pa.scalar(None, values.type))
