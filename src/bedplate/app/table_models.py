"""What the pages of tables show, as values: a line of the catalogue, a column, a version, a whole page."""

from typing import Literal

import msgspec

from bedplate.app.table_reports import AccessView, TableChange, TableRows, TableView
from bedplate.app.upkeep import Standing
from bedplate.errors import BedplateError
from bedplate.ids import Digest

Kind = Literal["data set", "rows set aside", "features", "replayed features", "logged predictions", "scores", "rows"]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A table in the catalogue. ``rows`` is None for whom row policies keep some in; ``found`` are matching columns."""

    name: str
    use_case: str
    kind: Kind
    version: int
    rows: int | None
    columns: int
    description: str = ""
    marks: tuple[str, ...] = ()
    found: tuple[str, ...] = ()


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the tables that somebody may know of."""

    words: str
    lines: tuple[Line, ...]
    total: int
    first: int
    failing: tuple[Standing, ...] = ()
    """Upkeep of their use cases that did not end well."""


class ColumnLine(msgspec.Struct, frozen=True, kw_only=True):
    """A column as its contract describes it, and the mask through which this reader sees it (empty for none)."""

    name: str
    type: str
    mask: str
    description: str = ""
    required: bool = False
    classification: str = ""
    tags: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """What one ingestion found. ``broken`` are the rules that rows broke, with how many."""

    digest: Digest
    created: str
    version: int
    read: int
    accepted: int
    rejected: int
    broken: tuple[tuple[str, int], ...]


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """One version, with who made it and why as far as ledger and evidence say."""

    change: TableChange
    by: str = ""
    why: str = ""
    entry: int | None = None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What these people see alike of the newest version, for the purpose of its use case."""

    people: tuple[str, ...]
    view: AccessView


class ContractLine(msgspec.Struct, frozen=True, kw_only=True):
    """The contract in force: under which the newest rows came in."""

    id: str
    version: str
    status: str
    digest: Digest
    promises: tuple[str, ...]
    text: str


class TablePage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the page of a table shows to one reader.

    ``dataset`` is empty where the table is none; ``counted`` is false where row policies keep rows in from the reader;
    ``everybody`` is None for whom that is not told. ``sample`` is there once it was asked for, ``refused`` if denied.
    """

    view: TableView
    kind: Kind
    dataset: str
    counted: bool
    columns: tuple[ColumnLine, ...]
    you: AccessView
    versions: tuple[Written, ...]
    description: str = ""
    contract: ContractLine | None = None
    quality: tuple[Quality, ...] = ()
    quarantine: str = ""
    everybody: tuple[Seen, ...] | None = None
    unasked: int = 0
    """People beyond those of ``everybody``, of whom there are too many for a page."""
    upkeep: tuple[Standing, ...] = ()
    sample: TableRows | None = None
    refused: BedplateError | None = None
