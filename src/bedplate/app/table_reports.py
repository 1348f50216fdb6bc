"""What the tables of a home answer to the command line."""

from typing import Any

import msgspec

from bedplate.ids import Digest
from bedplate.records import ContractChange, RuleOutcome


class TableLine(msgspec.Struct, frozen=True, kw_only=True):
    """One table at its newest version. ``rows`` is None for whom row policies keep some in."""

    name: str
    use_case: str
    version: int
    rows: int | None


class TableView(msgspec.Struct, frozen=True, kw_only=True):
    """The newest version of a table. ``columns`` maps names to Arrow types; ``size`` is in bytes.

    ``rows`` and ``size`` are None for whom row policies keep some rows in: how many there are is a way to look for one.
    """

    name: str
    use_case: str
    purpose: str
    version: int
    digest: Digest
    rows: int | None
    files: int
    size: int | None
    columns: dict[str, str]


class TableChange(msgspec.Struct, frozen=True, kw_only=True):
    """One version in a table's history; ``time`` is ISO 8601, UTC. ``rows`` as in :class:`TableView`."""

    version: int
    time: str
    what: str
    rows: int | None
    files: int


class TableRows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows as whoever asked may see them. ``more``: there are others, or nobody looked for them any longer."""

    name: str
    version: int
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool


class TableScrub(msgspec.Struct, frozen=True, kw_only=True):
    """What re-hashing every data file of a table found; ``size`` is in bytes."""

    name: str
    files: int
    size: int
    damaged: tuple[str, ...]
    missing: tuple[str, ...]
    sound: bool


class BatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of a range became: ``known`` ones stood in the table already, ``outside`` ones are not of it."""

    dataset: str
    table: str
    version: int
    read: int
    accepted: int
    rejected: int
    known: int
    outside: int
    unconfined: str = ""


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of rows that were set aside: ``left`` ones still break the contract."""

    dataset: str
    table: str
    version: int
    read: int
    accepted: int
    known: int
    left: int


class ContractResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one contract found in its source."""

    dataset: str
    contract: str
    outcomes: tuple[RuleOutcome, ...]


class ContractTestReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the contracts of a use case found in its sources, without keeping a row."""

    use_case: str
    passed: bool
    results: tuple[ContractResult, ...]


class ContractDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What the contract of one data set changes against the one in force, whose version is ``before``; empty for none.

    ``accepted``: it breaks nobody who reads the table, or says so by its version. ``features``, ``models`` and
    ``endpoints`` are what a break hits.
    """

    dataset: str
    version: str
    accepted: bool
    before: str = ""
    changes: tuple[ContractChange, ...] = ()
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()


class ContractDiffReport(msgspec.Struct, frozen=True, kw_only=True):
    """The contracts of a use case against those in force."""

    use_case: str
    accepted: bool
    contracts: tuple[ContractDiff, ...]


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """One promise of a contract about a data set, and what is found now. Where nothing came in it is not ``kept``."""

    dataset: str
    promise: str
    wanted: str
    found: str
    kept: bool


class PromiseReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the contracts of a use case promise of its tables, and whether it holds now."""

    use_case: str
    kept: bool
    promises: tuple[Promise, ...]


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """A place that still holds somebody who was erased, and why it stays or what to do about it."""

    where: str
    why: str


class ErasureReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken of one person: rows by table, over all versions, and views of online features.

    ``logged`` counts params and tags of runs, and payloads of the ledger, that named them. ``models`` were trained on
    them, ``endpoints`` serve one of those or let one in, ``sources`` are data sets whose source still holds them,
    ``left`` is where else they stand; ``entry`` is the proof.
    """

    use_case: str
    tables: dict[str, int]
    online: int
    logged: int
    models: tuple[str, ...]
    endpoints: tuple[str, ...]
    sources: tuple[str, ...]
    left: tuple[Left, ...]
    entry: int


class ExpiryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was older than it may be kept: rows by table, over all versions. ``kept_from`` is the oldest time left."""

    use_case: str
    tables: dict[str, int]
    kept_from: dict[str, str]
    entry: int


class HoldReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a use case is on hold, so that nothing of it is erased; why, and who said so."""

    use_case: str
    on: bool
    reason: str
    by: str


class AccessChange(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody would see of a table otherwise than now.

    Pairs are before and after. ``columns`` are those that would be seen otherwise: as ``it is``, by a mask, or ``not at
    all``. ``rows_more`` and ``rows_fewer`` count rows of the newest version.
    """

    who: str
    table: str
    version: int
    may_read: tuple[bool, bool]
    columns: dict[str, tuple[str, str]]
    rows_more: int
    rows_fewer: int


class AccessDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What a change would let whom see more or less of. ``compared_all``: everybody was held against every table."""

    changes: tuple[AccessChange, ...]
    compared_all: bool


class AccessView(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody sees of a table for a purpose, and why.

    ``columns`` maps each column to the mask on it, empty for none; ``rows`` is the condition that rows must meet, empty
    where all go out.
    """

    who: str
    table: str
    version: int
    purpose: str
    allowed: bool
    columns: dict[str, str]
    rows: str
    policies: tuple[str, ...]
    row_policies: tuple[str, ...]
    reasons: tuple[str, ...]
